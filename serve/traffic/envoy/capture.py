"""The edge's capture: both arms' answers to the requests that its routes copy, for the shadow comparison.

Pure. Which request is copied the routes say, by its id alone; here its answers are only kept, each listener's in an
access log of its own, and nothing is written while no route copies. Answers are users' data, so capture is off unless
an edge asks for it; requests are never written. `on_capture` reads, rotates and forgets the files.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..edge import Capturing
from ..headers import CLIENT
from ..shadow.joining import Arm
from .clusters import METADATA, Document
from .routes import COPIED

FILES: Mapping[Arm, str] = {"stable": "stable.log", "candidate": "candidate.log"}

_NAMESPACE = "seatrial.shadow"  # of the dynamic metadata that the log reads
_LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
_FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Capture parts of one listener: HTTP filters and access logs, empty if nothing is captured."""

    filters: tuple[Document, ...] = ()
    logs: tuple[Document, ...] = ()


def kept(capturing: Capturing | None, folder: Path) -> tuple[Kept, Kept]:
    """The parts of the live and of the shadow listener, which write into that folder."""
    if capturing is None:
        return Kept(), Kept()
    live = _LIVE.replace("@COPIED@", COPIED).replace("@LENGTH@", str(len(COPIED)))
    return (
        Kept(filters=(_keeper("live", live, capturing),), logs=(_log(folder / FILES["stable"]),)),
        Kept(filters=(_keeper("copy", _COPY, capturing),), logs=(_log(folder / FILES["candidate"]),)),
    )


def _keeper(name: str, source: str, capturing: Capturing) -> Document:
    """A filter of that Lua source, which may call ``keep(handle)`` once it has set ``id`` in the metadata."""
    constants = {
        "NAMESPACE": json.dumps(_NAMESPACE),
        "MOST": str(capturing.most_bytes),
        "BUDGET": str(capturing.bytes_per_minute),
    }
    head = "".join(f"local {key} = {value}\n" for key, value in constants.items())
    return {
        "name": f"seatrial.shadow.{name}",
        "typed_config": {"@type": _LUA, "default_source_code": {"inline_string": head + _KEEPING + source}},
    }


def _log(path: Path) -> Document:
    """An access log of the requests that a filter here gave an id, one JSON document a line."""
    present = {"filter": _NAMESPACE, "path": [{"key": "id"}], "value": {"present_match": True}}
    return {
        "name": "envoy.access_loggers.file",
        "filter": {"metadata_filter": {"matcher": present, "match_if_key_not_found": False}},
        "typed_config": {"@type": _FILE_LOG, "path": str(path), "log_format": {"json_format": dict(_FORMAT)}},
    }


_FORMAT = {
    "id": f"%DYNAMIC_METADATA({_NAMESPACE}:id)%",
    "at": "%START_TIME(%s.%6f)%",
    "seconds": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "client": f"%REQ({CLIENT.upper()})%",
    "model": f"%CLUSTER_METADATA({METADATA}:model)%",
    "version": f"%CLUSTER_METADATA({METADATA}:version)%",
    "content_type": "%RESP(CONTENT-TYPE)%",
    "content_encoding": "%RESP(CONTENT-ENCODING)%",
    "grpc_encoding": "%RESP(GRPC-ENCODING)%",
    "header_length": "%RESP(INFERENCE-HEADER-CONTENT-LENGTH)%",
    "kept": f"%DYNAMIC_METADATA({_NAMESPACE}:kept)%",
    "body": f"%DYNAMIC_METADATA({_NAMESPACE}:body)%",
}

# `kept` is "whole", or why there is no body. Chunks pass on as they come: an answer is never held back for this.
_KEEPING = """
local minute, spent = 0, 0

local function keep(handle)
  if not handle:streamInfo():dynamicMetadata():get(NAMESPACE) then return end
  local parts, size = {}, 0
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    size = size + length
    if size <= MOST then parts[#parts + 1] = chunk:getBytes(0, length) else parts = {} end
  end
  local metadata = handle:streamInfo():dynamicMetadata()  -- what was fetched before a chunk is no longer valid
  local now = math.floor(os.time() / 60)
  if now ~= minute then minute, spent = now, 0 end
  if size > MOST then
    metadata:set(NAMESPACE, "kept", "too large")
  elseif spent + size > BUDGET then
    metadata:set(NAMESPACE, "kept", "over budget")
  else
    spent = spent + size
    metadata:set(NAMESPACE, "kept", "whole")
    metadata:set(NAMESPACE, "body", handle:base64Escape(table.concat(parts)))
  end
end
"""

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
function envoy_on_response(handle) keep(handle) end

function envoy_on_request(handle)
  local headers = handle:headers()
  local id = headers:get("x-request-id")
  if id then handle:streamInfo():dynamicMetadata():set(NAMESPACE, "id", id) end
  headers:remove("accept-encoding")
end
"""
