"""The folder of generated rules: what a plan becomes, and how it replaces what was generated before.

Edited files are never overwritten unasked: the folder keeps the digest of each file as it was generated, and a file
that differs from both that and the new text stops the whole write. Files of other names stay where they are.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.reading import damage, read_bytes, read_object

from ...generated import swapped, yaml_text
from ..plan import Plan
from . import cases, dashboard, objectives, routes, runbooks, watching
from .alert import Alert, Recorded

MARK = ".seatrial-rules.json"
_STEP = "keep what you changed elsewhere (a file of another name stays), or let it go: --force"


def contents(plan: Plan) -> tuple[dict[str, str], list[Alert]]:
    """Return the text of every file by its path, and the alerts.

    Raises:
        ConfigError: an objective that the plan's source of figures does not show.
    """
    indicators = objectives.indicators(plan)
    series = [each for indicator in indicators for each in objectives.recorded(indicator)]
    alerts = [each for indicator in indicators for each in objectives.alerts(indicator, plan)]
    alerts += watching.alerts(plan)
    base = plan.service.runbooks
    rules = f"{plan.model}.rules.yml"
    files = {
        rules: yaml_text(_rules(plan, series, alerts, base)),
        f"{plan.model}.tests.yml": yaml_text(cases.documents(plan, rules, series, alerts, base)),
        f"{plan.model}.alertmanager.yml": yaml_text(routes.documents(plan)),
        f"{plan.model}.dashboard.json": dashboard.dashboard(plan, indicators),
    }
    return files | {f"runbooks/{each.name}.md": runbooks.runbook(plan, each) for each in alerts}, alerts


def _rules(
    plan: Plan, series: Sequence[Recorded], alerts: Sequence[Alert], base: str
) -> list[dict[str, list[dict[str, object]]]]:
    rules: list[object] = [{"record": each.name, "expr": each.expr} for each in series]
    for each in alerts:
        wait = {"for": f"{each.wait}s"} if each.wait else {}
        rules.append(
            {"alert": each.name, "expr": each.expr}
            | wait
            | {"labels": cases.labels(plan, each), "annotations": cases.annotations(each, base)}
        )
    return [{"groups": [{"name": f"seatrial-{plan.model}", "rules": rules}]}]


def write(files: Mapping[str, str], folder: Path, *, model: str, force: bool = False) -> None:
    """Put the files of a model into a folder of its own in one step: all of them or none.

    Raises:
        ConfigError: the folder is another model's; a file was edited since it was generated, or is not of our making,
            and `force` is not set.
        IntegrityError: the record of digests is damaged.
        MachineError: the disk refused.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError("a file is in the place of the folder", where=str(folder), next_step="name a folder")
    before = _generated(folder, model)
    edited = [] if force else [each for each in files if _edited(folder / each, files[each], before.get(each))]
    if edited:
        raise ConfigError(f"{', '.join(edited)} differ from what was generated", where=str(folder), next_step=_STEP)
    digests = {name: _digest(text.encode()) for name, text in files.items()}
    mark = json.dumps({"schema": 1, "model": model, "files": digests}, indent=1) + "\n"
    with swapped({**files, MARK: mark}, folder, "rules") as staged:
        for path in (each for each in sorted(folder.rglob("*")) if each.is_file()):
            name = path.relative_to(folder)
            generated = str(name) in before and _digest(read_bytes(path)) == before[str(name)]
            if not generated and not (staged / name).exists():
                (staged / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, staged / name)


def _generated(folder: Path, model: str) -> dict[str, str]:
    """Return the digests of the files that were generated into a folder before."""
    path, step = folder / MARK, f"remove {MARK}, and write with --force"
    if not path.exists():
        return {}
    found = read_object(path, schema=1, next_step=step)
    with damage(path, step):
        owner, digests = str(found["model"]), {str(name): str(each) for name, each in found["files"].items()}
    if owner != model:
        raise ConfigError(
            f"the folder has the rules of the model {owner}",
            where=str(folder),
            next_step="name a folder for each model",
        )
    return digests


def _edited(path: Path, text: str, before: str | None) -> bool:
    """Tell whether a file holds something that is neither the new text nor what was generated before."""
    if not path.exists():
        return False
    content = read_bytes(path)
    return content != text.encode() and _digest(content) != before


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
