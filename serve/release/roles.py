"""Roles: who may approve a release, how many of them it takes, and which environments ask for it.

Read from TOML (`load_roles`); public keys are files beside it. A key stands for one person in one role.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.names import checked

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """`needs` of the `members` must approve; a member is a name and the path of a public key.

    An approval of this role holds for `days`; 0 without end. `contact` is written into CODEOWNERS.
    """

    members: Mapping[str, str]
    needs: Annotated[int, Field(ge=1)] = 1
    days: Annotated[int, Field(ge=0)] = 0
    contact: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Model repositories of one environment; where it is protected, a release needs the approval of all `roles`.

    `rehearsal` says that faults may be planted there on purpose.
    """

    repositories: tuple[str, ...]
    protected: bool = False
    roles: tuple[str, ...] = ()
    rehearsal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Roles and environments by name; `revoked` are fingerprints of keys that no longer count, in any role.

    Paths are relative to the file. `codeowners` are patterns of files that a role's contacts own.
    """

    schema: int
    roles: Mapping[str, Role]
    environments: Mapping[str, Environment] = field(default_factory=dict)
    revoked: tuple[str, ...] = ()
    codeowners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ConfigError(f"schema {self.schema}", where="schema", next_step=f"use schema {SCHEMA}")
        for name, role in self.roles.items():
            checked(name, "role", where=f"roles.{name}")
            if role.needs > len(role.members):
                raise ConfigError(
                    f"{role.needs} approvals are needed, but the role has {len(role.members)} members",
                    where=f"roles.{name}.needs",
                    next_step=f"use at most {len(role.members)}, or name more members",
                )
            for member in role.members:
                checked(member, "name of a member", where=f"roles.{name}.members")
        for name, environment in self.environments.items():
            self._check_environment(name, environment)
        for pattern, names in self.codeowners.items():
            self._check_known(names, f"codeowners.{pattern}")

    def _check_environment(self, name: str, environment: Environment) -> None:
        self._check_known(environment.roles, f"environments.{name}.roles")
        if environment.protected and not environment.roles:
            raise ConfigError(
                "a protected environment names no role",
                where=f"environments.{name}.roles",
                next_step=f"name one of {', '.join(self.roles) or 'the roles'}, or remove protected",
            )

    def _check_known(self, names: tuple[str, ...], where: str) -> None:
        for each in names:
            self.role(each, where)

    def role(self, name: str, where: str = "--as") -> Role:
        """Return the role of that name.

        Raises:
            ConfigError: there is none.
        """
        found = self.roles.get(name)
        if found is None:
            known = ", ".join(self.roles) or "none"
            raise ConfigError(f"there is no role {name!r}", where=where, next_step=f"use one of: {known}")
        return found

    def environment_of(self, repository: Path, base: Path) -> tuple[str, Environment] | None:
        """Return the environment that a model repository belongs to; `base` is the folder of the file."""
        wanted = repository.resolve()
        for name, environment in self.environments.items():
            if any((base / each).resolve() == wanted for each in environment.repositories):
                return name, environment
        return None

    def codeowners_text(self) -> str:
        """Return the file CODEOWNERS that these roles make."""
        lines = []
        for pattern, names in self.codeowners.items():
            owners = dict.fromkeys(contact for name in names for contact in self.roles[name].contact)
            lines.append(f"{pattern} {' '.join(owners)}".rstrip())
        return "".join(f"{line}\n" for line in lines)


def load_roles(path: Path) -> Roles:
    """Read a file of roles.

    Raises:
        MissingError: no such file.
        ConfigError: not TOML, an unknown key or role, or more approvals than members.
    """
    return config.load(path, Roles)
