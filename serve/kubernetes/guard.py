"""The Lua program at the gateway that refuses what ends a server, before it gets there.

Text only; Envoy runs it (an EnvoyExtensionPolicy carries it). It bounds what Envoy Gateway has no field for: the sum of
all headers (Envoy's own limit is 60 kB, Triton resets above about 8 kB), the length of the JSON part that a caller
announces, compressed bodies (their content could not be checked), and the nesting of a JSON body.

Refusals are local replies of the gateway: they have no upstream and are no evidence against a version.
"""

from .cluster import Limits

_GUARD = """\
local MOST_HEADERS, DEEPEST = @HEADERS@, @DEPTH@

local function refuse(h, status, text)
  h:respond({[":status"] = status, ["content-type"] = "application/json"}, '{"error":"' .. text .. '"}')
end

-- The nesting of a JSON text, without parsing it: brackets outside strings. It stops one level past the limit.
local function too_deep(raw)
  local at, depth = 1, 0
  while true do
    local found = string.find(raw, '[%[%]{}"]', at)
    if not found then return false end
    local byte = string.byte(raw, found)
    if byte == 34 then
      at = found + 1
      while true do
        local stop = string.find(raw, '["\\\\]', at)
        if not stop then return false end
        if string.byte(raw, stop) == 34 then at = stop + 1 break end
        at = stop + 2
      end
    else
      if byte == 91 or byte == 123 then
        depth = depth + 1
        if depth > DEEPEST then return true end
      else
        depth = depth - 1
      end
      at = found + 1
    end
  end
end

function envoy_on_request(h)
  local headers, size = h:headers(), 0
  for key, value in pairs(headers) do
    size = size + #key + #value + 4
  end
  if size > MOST_HEADERS then
    refuse(h, "431", "the headers are larger than this gateway allows")
    return
  end
  local kind = headers:get("content-type") or ""
  if string.sub(kind, 1, 16) == "application/grpc" then return end
  local coding = headers:get("content-encoding") or ""
  if coding ~= "" and coding ~= "identity" then
    refuse(h, "415", "compressed requests are not accepted")
    return
  end
  local announced = headers:get("inference-header-content-length")
  if announced and (#announced > 9 or not string.find(announced, "^%d+$")) then
    refuse(h, "400", "Inference-Header-Content-Length is not a length")
    return
  end
  local body = h:body()
  if not body or body:length() == 0 then return end
  local length = body:length()
  if announced then
    if tonumber(announced) > length then
      refuse(h, "400", "Inference-Header-Content-Length is larger than the body")
      return
    end
    length = tonumber(announced)
  end
  if length > 0 and too_deep(body:getBytes(0, length)) then
    refuse(h, "400", "the JSON is nested deeper than this gateway allows")
  end
end
"""


def lua(limits: Limits) -> str:
    """The program with these limits."""
    return _GUARD.replace("@HEADERS@", str(limits.header_bytes)).replace("@DEPTH@", str(limits.json_depth))
