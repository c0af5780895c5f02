"""The recipe's data: splits from the user's loader, loaded when first needed, known by digest without loading.

A loader counts as a function of its code, its arguments, the `files` and the versions of the `packages` that the
recipe declares; while none of these change, the digest noted at the last load is believed, so that a build with nothing
to do loads nothing.
"""

from importlib import metadata
from typing import get_args

from ..artifact import canonical, checked_digest, digest_bytes, digest_file
from ..environment import Environment
from ..errors import MissingError
from ..samples import Samples, Split, checked
from ..store import Store
from .manifest import Manifest, columns_of, data_files, merkle_root
from .recipe import Recipe


class Data:
    """The splits of one recipe."""

    def __init__(self, recipe: Recipe, store: Store, environment: Environment) -> None:
        self._recipe = recipe
        self._store = store
        self._loader = recipe.reference(recipe.data.loader)
        self._loaded: dict[str, Samples] = {}
        versions = {name: environment.libraries.get(name, "") for name in ("numpy", "scipy", "torch")}
        versions |= {name: _version(name) for name in recipe.data.packages}
        self._files = {name: digest_file(recipe.base / name) for name in recipe.data.files}
        files = [self._files[name] for name in recipe.data.files]
        self._fixed = {"loader": self._loader.digest, "files": files, "libraries": versions, "seed": recipe.seed}

    def samples(self, split: Split) -> Samples:
        """Load a split (once).

        Raises:
            SourceError: the loader raised or returned something unusable.
        """
        if split not in self._loaded:
            loaded = self._loader.call(split, count=getattr(self._recipe.data, split), seed=self._recipe.seed)
            self._loaded[split] = checked(split, loaded, self._loader.text)
            self._store.remember("samples", self._key(split), {"digest": self._loaded[split].digest})
        return self._loaded[split]

    def digest(self, split: Split, *, load: bool = True) -> str | None:
        """The split's digest, from the note where there is one; None if it is unknown and must not be loaded."""
        if split in self._loaded:
            return self._loaded[split].digest
        noted = self._store.recall_as("samples", self._key(split), lambda note: checked_digest(note["digest"]))
        if noted is not None:
            return noted
        return self.samples(split).digest if load else None

    def manifest(self) -> Manifest:
        """Return what the data is; the schema is that of the golden samples.

        Raises:
            SourceError: as `samples`.
            ConfigError: a ``.dvc`` file cannot be read, or what it tracks is another file.
        """
        declared = self._recipe.data
        files = data_files(self._recipe.base, self._files)
        return Manifest(
            loader=self._loader.text,
            code=self._loader.digest,
            root=merkle_root([each.digest for each in files]),
            files=files,
            columns=columns_of(self.samples("golden")),
            rows={split: getattr(declared, split) for split in get_args(Split)},
            packages={name: _version(name) for name in declared.packages},
            seed=self._recipe.seed,
        )

    def _key(self, split: Split) -> str:
        return digest_bytes(canonical(self._fixed | {"split": split, "count": getattr(self._recipe.data, split)}))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise MissingError(
            f"no such distribution: {package}",
            where="data.packages",
            next_step="install it, or use the name that pip list shows",
        ) from error
