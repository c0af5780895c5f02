"""A folder with one file, audited: the rules that it breaks and how gravely; and values with a part broken."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from seatrial.serve.security.audit import audit_folder
from seatrial.serve.security.finding import Audit


def rules(found: Audit) -> dict[str, str]:
    return {each.rule: each.severity for each in found.findings}


def audited(folder: Path, text: str, name: str = "envoy.yaml") -> dict[str, str]:
    (folder / name).write_text(text)
    return rules(audit_folder(folder, None))


def broken(data: st.DataObject, value: Any) -> Any:
    """The same value with something replaced or left out somewhere."""
    if data.draw(st.integers(0, 4)) == 0:
        return data.draw(st.sampled_from([None, {}, [], "text", 0, -1, 10**400, 1e999, True, [None], {"name": None}]))
    if isinstance(value, dict) and value:
        chosen = data.draw(st.sampled_from(sorted(value)))
        kept = {key: each for key, each in value.items() if key != chosen}
        return kept if data.draw(st.booleans()) else kept | {chosen: broken(data, value[chosen])}
    if isinstance(value, list) and value:
        return [broken(data, value[0]), *value[1:]]
    return value
