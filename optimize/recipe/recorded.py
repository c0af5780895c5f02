"""The recipe that an artifact was made from, as the build that made it kept the text."""

from pathlib import Path

from .. import config
from ..artifact import Artifact
from ..errors import MissingError
from ..store import Store
from .recipe import Recipe


def recorded_recipe(artifact: Artifact, store: Store) -> Recipe:
    """The recipe that made the artifact, from the text that the build kept.

    Raises:
        MissingError: the store does not have it.
    """
    noted = store.recall_as("recipes", artifact.made_by.recipe, lambda note: (Path(note["path"]), str(note["text"])))
    if noted is None:
        raise MissingError(
            f"the recipe {artifact.made_by.recipe[:19]} is not in the store"
            if artifact.made_by.recipe
            else "no recipe made it",
            where=artifact.short,
            next_step="name it with --recipe",
        )
    path, text = noted
    return config.parse(text, Recipe, path).at(path)
