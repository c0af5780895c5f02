-- Leaves a server the headers that it needs, each of a form that it takes: a header that makes it reset a stream takes
-- the connection of other callers with it. What the edge notes for its log stays.
local KEPT = {@KEPT@}
local FORMS = {
  ["grpc-timeout"] = "^%d%d?%d?%d?%d?%d?%d?%d?[HMSmun]$",
  ["traceparent"] = "^%x%x%-%x+%-%x+%-%x%x$",
  ["accept-encoding"] = "^[%w,;=%.%* -]*$",
  ["grpc-accept-encoding"] = "^[%w, -]*$",
  ["content-type"] = "^[%w/;=%.%+ -]*$",
  ["inference-header-content-length"] = "^%d+$",
  ["x-client"] = "^[%w%p ]+$",
}

local function clean(h)
  local headers, gone = h:headers(), {}
  for name, held in pairs(headers) do
    local form = FORMS[name]
    if string.sub(name, 1, 1) ~= ":" and string.sub(name, 1, 7) ~= "x-edge-"
        and (not KEPT[name] or (form and (#held > 200 or not string.find(held, form)))) then
      gone[#gone + 1] = name
    end
  end
  for _, name in ipairs(gone) do headers:remove(name) end
  headers:replace(":authority", "edge")
  if string.sub(headers:get(":path"), 1, @PREFIX@) == "@SERVICE@" then
    headers:replace("content-type", "application/grpc")
    headers:replace("te", "trailers")
    headers:remove("grpc-encoding")
  end
end

-- What a caller sent after its body.
local function cut(h)
  local trailers, gone = h:trailers(), {}
  if not trailers then return end
  for name in pairs(trailers) do gone[#gone + 1] = name end
  for _, name in ipairs(gone) do trailers:remove(name) end
end
