"""The Lua program at the gateway that refuses what ends a server, before it gets there.

Text only; Envoy runs it (an EnvoyExtensionPolicy carries it). It bounds what Envoy Gateway has no field for: the sum of
all headers (Envoy's own limit is 60 kB, Triton resets above about 8 kB), the length of the JSON part that a caller
announces, compressed bodies (their content could not be checked), the nesting of a JSON body, and shapes of more
elements than the body has bytes (Triton 2.51 allocates for the shape, and ends where that is not to be had).

Refusals are local replies of the gateway: they have no upstream and are no evidence against a version. Nor is a
response that Triton gives the wrong status: it answers 500 to JSON that it cannot read, which becomes 400 here.
"""

from .cluster import Limits

_GUARD = """\
local MOST_HEADERS, DEEPEST = @HEADERS@, @DEPTH@

local function refuse(h, status, text)
  h:respond({[":status"] = status, ["content-type"] = "application/json"}, '{"error":"' .. text .. '"}')
end

-- The nesting of a JSON text, without parsing it: brackets outside strings. It stops one level past the limit. Bytes
-- one by one, since a loop is compiled and a pattern is not: a hundred times as fast.
local byte_at = string.byte
local function too_deep(raw)
  local at, size, depth = 1, #raw, 0
  while at <= size do
    local byte = byte_at(raw, at)
    if byte == 34 then
      at = at + 1
      byte = byte_at(raw, at)
      while byte and byte ~= 34 do
        at = at + (byte == 92 and 2 or 1)
        byte = byte_at(raw, at)
      end
    elseif byte == 91 or byte == 123 then
      depth = depth + 1
      if depth > DEEPEST then return true end
    elseif byte == 93 or byte == 125 then
      depth = depth - 1
    end
    at = at + 1
  end
  return false
end

-- A shape of more elements than there are bytes: whatever it is, the data for it was not sent.
local function too_large(raw, most)
  local at = 1
  while true do
    local found = string.find(raw, '"shape"', at, true)
    if not found then return false end
    local dims = string.match(raw, '^"shape"%s*:%s*%[([^%]]*)%]', found)
    local product = 1
    for dim in string.gmatch(dims or "", "[^,%s]+") do product = product * (tonumber(dim) or 1) end
    if product > most then return true end
    at = found + 7
  end
end

-- No library escapes letters; who writes a key so hides it from the checks above.
local function hidden(raw)
  local at = 1
  while true do
    local found = string.find(raw, "\\\\u00", at, true)
    if not found then return false end
    local byte = tonumber(string.match(raw, "^%x%x", found + 4) or "0", 16)
    local before = found - 1
    while byte_at(raw, before) == 92 do before = before - 1 end
    local escapes = (found - before) % 2 == 1  -- else it is an escaped backslash, and u0041 is text
    if escapes and ((byte > 64 and byte < 91) or (byte > 96 and byte < 123)) then return true end
    at = found + 4
  end
end

function envoy_on_request(h)
  local headers, size = h:headers(), 0
  for key, value in pairs(headers) do
    if type(value) == "string" then size = size + #key + #value + 4 end
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
  if length == 0 then return end
  local raw = body:getBytes(0, length)
  if too_deep(raw) then
    refuse(h, "400", "the JSON is nested deeper than this gateway allows")
  elseif hidden(raw) then
    refuse(h, "400", "the JSON escapes letters")
  elseif too_large(raw, body:length()) then
    refuse(h, "400", "a shape has more elements than the body has bytes")
  end
end

local UNREAD = {
  "failed to parse the request JSON", "Unable to parse '", "Unable to set '", "failed to get request params"}

function envoy_on_response(h)
  if h:headers():get(":status") ~= "500" then return end
  if string.sub(h:headers():get("content-type") or "", 1, 16) ~= "application/json" then return end
  local body = h:body()
  if not body or body:length() < 10 then return end
  local raw = body:getBytes(0, math.min(body:length(), 64))
  for _, text in ipairs(UNREAD) do
    if string.sub(raw, 1, 10 + #text) == '{"error":"' .. text then
      h:headers():replace(":status", "400")
      return
    end
  end
end
"""


def lua(limits: Limits) -> str:
    """The program with these limits."""
    return _GUARD.replace("@HEADERS@", str(limits.header_bytes)).replace("@DEPTH@", str(limits.json_depth))
