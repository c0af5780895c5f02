-- Keeps the bodies of sampled requests and of their answers in the dynamic metadata, from where the access log streams
-- them to the recorder. Chunks pass on as they come: neither request nor answer waits for this. Which request is sampled
-- a keyed digest of its id decides, and so nothing that a client chooses.
local FACTS, BODIES, INFER = "@FACTS@", "@BODIES@", "@INFER@"
local MOST, BUDGET, BELOW = @MOST@, @BUDGET@, @BELOW@
local HEADERS = {"content-type", "content-encoding", "grpc-encoding", "inference-header-content-length"}
local worker, sequence = string.format("%.0f", os.time()) .. (string.match(tostring({}), "0x%x+") or ""), 0
local minute, spent = 0, 0

local function keep(h, side)
  local parts, size = {}, 0
  for chunk in h:bodyChunks() do
    local length = chunk:length()
    size = size + length
    if size <= MOST then parts[#parts + 1] = chunk:getBytes(0, length) else parts = {} end
  end
  local metadata = h:streamInfo():dynamicMetadata() -- what was fetched before a chunk is no longer valid
  local now = math.floor(os.time() / 60)
  if now ~= minute then minute, spent = now, 0 end
  if size > MOST then
    metadata:set(FACTS, side, "too large")
  elseif spent + size > BUDGET then
    metadata:set(FACTS, side, "over budget")
  else
    spent = spent + size
    metadata:set(FACTS, side, "whole")
    metadata:set(BODIES, side, h:base64Escape(table.concat(parts)))
  end
end

function envoy_on_request(h)
  local headers = h:headers()
  local path, id, model = headers:get(":path"), headers:get("x-request-id"), nil
  if path == INFER then
    model = headers:get("x-edge-model")
  else
    model = string.match(string.match(path, "^[^?]*"), "^/v2/models/([^/]+)/.*infer$")
  end
  if not id or not model then return end
  local _, low = digest("record " .. id)
  if low % 4294967296 >= BELOW then return end
  sequence = sequence + 1
  local metadata = h:streamInfo():dynamicMetadata()
  metadata:set(FACTS, "id", id)
  metadata:set(FACTS, "model", model)
  metadata:set(FACTS, "worker", worker)
  metadata:set(FACTS, "sequence", string.format("%.0f", sequence))
  for _, name in ipairs(HEADERS) do
    local value = headers:get(name)
    if value then metadata:set(FACTS, name, value) end
  end
  keep(h, "request")
end

function envoy_on_response(h)
  if h:streamInfo():dynamicMetadata():get(FACTS) then keep(h, "answer") end
end
