-- Looks at a whole request before it is routed: refuses what no version could answer, and notes in headers of the edge's
-- own what routes and the log go by: the model of a gRPC message, a digest and the size of the body, and the place of
-- its user between 0 and a million.
local SERVICE, METHODS = "@SERVICE@", {@METHODS@}
local STICKY_HEADER, STICKY_COOKIE = "@HEADER@", "@COOKIE@"

local function refuse(h, status, code, why)
  h:respond({[":status"] = status, ["content-type"] = "application/json", ["x-refused"] = code},
    '{"error":"refused by the edge: ' .. why .. '"}\n')
end

local function refuse_grpc(h, code, why)
  h:respond({[":status"] = "200", ["content-type"] = "application/grpc", ["grpc-status"] = tostring(code),
    ["grpc-message"] = "refused by the edge: " .. why, ["x-refused"] = "grpc"}, "")
end

local function user(headers)
  local found = STICKY_HEADER ~= "" and headers:get(STICKY_HEADER)
  if found and found ~= "" then return found end
  if STICKY_COOKIE ~= "" then
    for each in string.gmatch(headers:get("cookie") or "", "[^;]+") do
      local name, held = string.match(each, "^%s*(.-)%s*=%s*(.-)%s*$")
      if name == STICKY_COOKIE and held ~= "" then return held end
    end
  end
  return headers:get("x-request-id") or ""
end

local function client(h, headers)
  return headers:get("x-client") or string.match(h:streamInfo():downstreamRemoteAddress(), "^(.*):%d+$") or ""
end

local function note(h, headers, model, kind, bytes, size)
  size = size > 0 and size or #bytes
  headers:replace("x-edge-kind", kind)
  headers:replace("x-edge-size", string.format("%.0f", size))
  headers:replace("x-edge-digest", hex(bytes))
  local slot = digest(user(headers)) % 4294967296 % 1000000
  local place = placed(model, h:virtualHost():metadata():get(model), client(h, headers), slot, size)
  if place ~= slot then headers:replace("x-edge-moved", "1") end
  headers:replace("x-edge-slot", tostring(place))
end

local function grpc(h, headers)
  if headers:get(":method") ~= "POST" or not string.find(headers:get("content-type") or "", "^application/grpc") then
    return refuse_grpc(h, 3, "no gRPC call")
  end
  local body = h:body(true)
  local bytes = body and body:length() > 0 and body:getBytes(0, body:length()) or ""
  local name, why, status = model_in(bytes) -- `why` is the number of elements where there is a name
  if not name then return refuse_grpc(h, status or 3, why) end
  headers = h:headers()
  if not string.find(name, "^[%w][%w_.-]*$") or #name > 128 then return refuse_grpc(h, 5, "no such model") end
  headers:replace("x-edge-model", name)
  note(h, headers, name, "grpc", bytes, why)
end

local function http(h, headers, model)
  local announced = headers:get("inference-header-content-length")
  if headers:getNumValues("inference-header-content-length") > 1 then
    return refuse(h, "400", "length", "Inference-Header-Content-Length is given twice")
  end
  local body = h:body(true)
  local bytes = body and body:length() > 0 and body:getBytes(0, body:length()) or ""
  local length, kind = #bytes, "json"
  if announced then
    if not string.find(announced, "^%d+$") or #announced > 10 or tonumber(announced) > #bytes then
      return refuse(h, "400", "length", "Inference-Header-Content-Length is no length of this body")
    end
    length, kind = tonumber(announced), "binary"
  end
  if length > 0 or not announced then
    local why, code = unfit(bytes, length)
    if why then return refuse(h, "400", code or "json", why) end
  end
  note(h, h:headers(), model, kind, bytes, length > 0 and elements or 0)
end

function envoy_on_request(h)
  local headers = h:headers()
  local path = headers:get(":path")
  if METHODS[path] then
    grpc(h, headers)
  else
    local model = string.match(string.match(path, "^[^?]*"), "^/v2/models/([^/]+)/.*infer$")
    if model then http(h, headers, model) end
  end
end
