-- Makes every request that leaves for this cluster one of its version, over HTTP by the path, over gRPC by fields 1 and 2
-- appended to the message, of which the last occurrence wins. A message that does not end exactly is refused: what it
-- leaves open would swallow them.
local PATH, FIELDS, SERVICE = "/v2/models/@MODEL@/versions/@VERSION@", "@FIELDS@", "@SERVICE@"

function envoy_on_request(h)
  local path = h:headers():get(":path")
  local rest = string.match(path, "^/v2/models/[^/?]+/versions/%d+(.*)$")
    or string.match(path, "^/v2/models/[^/?]+(.*)$")
  if rest then
    h:headers():replace(":path", PATH .. rest)
  elseif string.sub(path, 1, #SERVICE) == SERVICE then
    local body = h:body(true)
    local raw = body and body:length() > 0 and body:getBytes(0, body:length()) or ""
    local name, why, status = model_in(raw)
    if not name then
      h:respond({[":status"] = "200", ["content-type"] = "application/grpc", ["grpc-status"] = tostring(status or 3),
        ["grpc-message"] = "refused by the edge: " .. why}, "")
      return
    end
    local m = #raw - 5 + #FIELDS
    local high, low = math.floor(m / 65536), m % 65536
    local size = string.char(0, math.floor(high / 256) % 256, high % 256, math.floor(low / 256), low % 256)
    body:setBytes(size .. string.sub(raw, 6) .. FIELDS)
  else
    h:respond({[":status"] = "404"}, "nothing of a version\n")
    return
  end
end
