"""Captured rows of a model as a table to learn from and to watch, in place of tables that something else writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seatrial.optimize.environment import home

from .captured.on_vault import Read, Vault, as_parquet
from .plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A Parquet file in memory with the captured rows, and what was skipped on the way."""

    path: Path
    read: Read
    where: Path

    def refuse_lossy(self) -> None:
        """Refuse to learn from what is not whole.

        Raises:
            IntegrityError: more than 1 % of the segments were skipped.
        """
        self.read.refuse_lossy(self.where)


@contextmanager
def captured(plan: Plan) -> Iterator[Rows]:
    """Read the captured rows of the plan's model: those that were kept by its present policy.

    Raises:
        MissingError: nothing was captured, or the key is missing.
    """
    vault = Vault(model=plan.model, home=home() / "watch" / plan.model)
    policy = "" if plan.capture is None else plan.capture.digest
    with vault.read(vault.secret(), policy=policy) as read, as_parquet(read) as path:
        yield Rows(path=path, read=read, where=vault.folder)
