"""The edge's capture: both arms' answers to the requests that its routes copy, for the shadow comparison.

Pure. Which request is copied the routes say, by its id alone; here its answers are only kept, so nothing is written
while no route copies. The parts are `capture`'s.
"""

from dataclasses import dataclass
from pathlib import Path

from .capture import FILES, Document, keeper, log_to
from .edge import Capturing
from .envoy_clusters import METADATA
from .envoy_routes import COPIED


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one listener has for its capture: HTTP filters and access logs, none where nothing is captured."""

    filters: tuple[Document, ...] = ()
    logs: tuple[Document, ...] = ()


def kept(capturing: Capturing | None, folder: Path) -> tuple[Kept, Kept]:
    """The parts of the live and of the shadow listener, which write into that folder."""
    if capturing is None:
        return Kept(), Kept()
    bounds = {"most_bytes": capturing.most_bytes, "bytes_per_minute": capturing.bytes_per_minute}
    live = _LIVE.replace("@COPIED@", COPIED).replace("@LENGTH@", str(len(COPIED)))
    return (
        Kept(filters=(keeper("live", live, **bounds),), logs=(_log(folder / FILES["stable"]),)),
        Kept(filters=(keeper("copy", _COPY, **bounds),), logs=(_log(folder / FILES["candidate"]),)),
    )


def _log(path: Path) -> Document:
    document = log_to(path)
    told = {key: f"%CLUSTER_METADATA({METADATA}:{key})%" for key in ("model", "version")}
    document["typed_config"]["log_format"]["json_format"] |= told
    return document


# The route may still change after this filter has seen the request; when the answer comes it is the one that was taken.
_LIVE = """
function envoy_on_request(handle)
  local id = handle:headers():get("x-request-id")
  if id then handle:streamInfo():dynamicMetadata():set(NAMESPACE, "asked", id) end
end

function envoy_on_response(handle)
  local info = handle:streamInfo()
  local mine = info:dynamicMetadata():get(NAMESPACE)
  if not mine or string.sub(info:routeName(), -@LENGTH@) ~= "@COPIED@" then return end
  info:dynamicMetadata():set(NAMESPACE, "id", mine["asked"])
  keep(handle)
end
"""

_COPY = """
function envoy_on_request(handle)
  local headers = handle:headers()
  local id = headers:get("x-request-id")
  if id then handle:streamInfo():dynamicMetadata():set(NAMESPACE, "id", id) end
  headers:remove("accept-encoding")
end
"""
