"""Options that several verbs of this floor have."""

from pathlib import Path
from typing import Annotated

import typer

Repository = Annotated[Path, typer.Option(help="The model repository that Triton mounts.")]
DEFAULT_REPOSITORY = Path("model_repository")
Roles = Annotated[
    Path, typer.Option("--roles", help="The file of roles (TOML): who may approve, and where that counts.")
]
DEFAULT_ROLES = Path("serve/roles.toml")
