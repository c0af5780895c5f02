"""The two Lua programs inside Envoy: one pins a request to a version, one reads a gRPC request's model.

Text only. Both protocols are covered because Envoy's own route and header features cannot change a path upstream, nor a
gRPC body: there the model's name and version are fields 1 and 2 of every message that has them, and the last occurrence
of a field wins, so appending them overrides whatever the caller asked for.
"""

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"
ASKED = ("ModelReady", "ModelMetadata")  # these carry name and version in the same two fields

_COMPRESSED = """\
  if string.byte(raw, 1) ~= 0 then
    h:respond({[":status"] = "200", ["content-type"] = "application/grpc", ["grpc-status"] = "12",
      ["grpc-message"] = "compressed requests are not accepted"}, "")
    return
  end
"""

_PIN = """\
local PATH, FIELDS = "/v2/models/@MODEL@/versions/@VERSION@", "@FIELDS@"
function envoy_on_request(h)
  local path = h:headers():get(":path")
  local rest = string.match(path, "^/v2/models/[^/?]+/versions/%d+(.*)$")
    or string.match(path, "^/v2/models/[^/?]+(.*)$")
  if rest then
    h:headers():replace(":path", PATH .. rest)
    return
  end
  if string.sub(path, 1, @PREFIX@) ~= "@SERVICE@" then return end
  local body = h:body()
  if not body or body:length() < 5 then return end
  local raw = body:getBytes(0, body:length())
@COMPRESSED@\
  local m = #raw - 5 + #FIELDS
  local high, low = math.floor(m / 65536), m % 65536
  local size = string.char(0, math.floor(high / 256) % 256, high % 256, math.floor(low / 256), low % 256)
  body:setBytes(size .. string.sub(raw, 6) .. FIELDS)
end
"""

_NAME = """\
local METHODS = {@METHODS@}
function envoy_on_request(h)
  if not METHODS[h:headers():get(":path")] then return end
  local body = h:body()
  if not body or body:length() < 7 then return end
  local raw = body:getBytes(0, math.min(body:length(), 1024))
@COMPRESSED@\
  local at = 6
  while at < #raw do
    local tag, size = string.byte(raw, at, at + 1)
    if size > 127 then return end
    if tag == 10 then
      h:headers():replace("x-edge-model", string.sub(raw, at + 2, at + 1 + size))
      return
    elseif tag ~= 18 and tag ~= 26 then return end
    at = at + 2 + size
  end
end
"""


def pin(model: str, version: int) -> str:
    """The upstream filter that makes every request one of that version, over HTTP and gRPC."""
    fields = b"".join(
        bytes((tag, len(value))) + value for tag, value in ((10, model.encode()), (18, str(version).encode()))
    )
    escaped = "".join(f"\\{byte:03d}" for byte in fields)  # Lua's decimal escapes: no byte can end the literal
    return (
        _PIN.replace("@COMPRESSED@", _COMPRESSED)
        .replace("@MODEL@", model)
        .replace("@VERSION@", str(version))
        .replace("@FIELDS@", escaped)
        .replace("@PREFIX@", str(len(SERVICE)))
        .replace("@SERVICE@", SERVICE)
    )


def model_of_grpc() -> str:
    """The edge's filter that puts a gRPC request's model into a header, so that routes can see it."""
    methods = ", ".join(f'["{SERVICE}{name}"] = true' for name in ("ModelInfer", *ASKED))
    return _NAME.replace("@COMPRESSED@", _COMPRESSED).replace("@METHODS@", methods)
