-- Bounds what one client may have unfinished: bodies, and the bytes that they announce. It looks at headers alone and
-- passes bodies on as they come. A body that was given up is forgotten after the time that a body may take.
local MOST, MOST_BYTES, LARGEST, UNKNOWN, SECONDS = @REQUESTS@, @BYTES@, @LARGEST@, @UNKNOWN@, @SECONDS@
local clients = {}

local function refuse(h, status, code, why)
  local headers = {[":status"] = status, ["x-refused"] = code}
  if string.find(h:headers():get("content-type") or "", "^application/grpc") then
    headers[":status"], headers["content-type"] = "200", "application/grpc"
    headers["grpc-status"], headers["grpc-message"] = status == "429" and "8" or "3", "refused by the edge: " .. why
    h:respond(headers, "")
  else
    headers["content-type"] = "application/json"
    h:respond(headers, '{"error":"refused by the edge: ' .. why .. '"}\n')
  end
end

local function forget(client, now)
  while client.first <= client.last do
    local each = client[client.first]
    if not each.done and now - each.at <= SECONDS then return end
    if not each.done then
      each.done = true
      client.count, client.bytes = client.count - 1, client.bytes - each.bytes
    end
    client[client.first] = nil
    client.first = client.first + 1
  end
end

function envoy_on_request(h)
  local headers = h:headers()
  local encoding = headers:get("content-encoding")
  if encoding and encoding ~= "" and string.lower(encoding) ~= "identity" then
    return refuse(h, "415", "encoding", "compressed requests are not accepted")
  end
  local announced = headers:get("content-length")
  if headers:get(":method") ~= "POST" or announced == "0" then return end
  local name = headers:get("x-client") or string.match(h:streamInfo():downstreamRemoteAddress(), "^(.*):%d+$") or ""
  local now, client = os.time(), clients[name]
  if not client then
    client = {count = 0, bytes = 0, first = 1, last = 0}
    clients[name] = client
  end
  forget(client, now)
  local bytes = tonumber(announced or "") or UNKNOWN
  if bytes > LARGEST then
    return refuse(h, "413", "body-size", "the body is larger than " .. LARGEST .. " bytes")
  end
  if client.count >= MOST then
    return refuse(h, "429", "client-requests", "too many unfinished requests of one client")
  end
  if client.count > 0 and client.bytes + bytes > MOST_BYTES then
    return refuse(h, "429", "client-bytes", "too many unfinished bytes of one client")
  end
  local mine = {at = now, bytes = bytes, done = false}
  client.last = client.last + 1
  client[client.last] = mine
  client.count, client.bytes = client.count + 1, client.bytes + bytes
  for _ in h:bodyChunks() do end
  if not mine.done then
    mine.done = true
    client.count, client.bytes = client.count - 1, client.bytes - bytes
  end
  forget(client, os.time())
  if client.count == 0 and clients[name] == client then clients[name] = nil end
end
