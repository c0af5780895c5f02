"""Fields that a release of Triton does not know: it refuses the whole configuration for one of them."""

from collections.abc import Iterator
from typing import Any

from ...deployment import Broken
from ...triton_releases import RELEASES, SINCE, known


def broken_rules(config: Any, release: str) -> Iterator[Broken]:
    """Every field of the message that the release does not know."""
    counts_as = known(release) or RELEASES[0]
    for path, message, name in _fields(config, ""):
        since = SINCE.get((message, name))
        if since is not None and RELEASES.index(since) > RELEASES.index(counts_as):
            yield Broken(
                field=path,
                rule=f"Triton {release} does not know this field and would refuse the whole file (known from {since})",
                fix="omit it, or give the release of the server that reads this file",
            )


def _fields(message: Any, path: str) -> Iterator[tuple[str, str, str]]:
    for field, value in message.ListFields():
        here = f"{path}.{field.name}".lstrip(".")
        yield here, message.DESCRIPTOR.name, field.name
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            values = [value[key] for key in value] if field.message_type.fields_by_name["value"].message_type else []
        else:
            values = [value] if hasattr(value, "ListFields") else list(value)
        for each in values:
            yield from _fields(each, here)
