-- A strict reading of an inference request's JSON: its form, its depth, and what every server needs of an input.
-- Nothing is kept; functions give the place after what they read, or nothing and the reason.
local MOST_DEPTH = @DEPTH@
local MOST_TENSORS = 4096
local KINDS = {BOOL = 1, UINT8 = 1, UINT16 = 1, UINT32 = 1, UINT64 = 1, INT8 = 1, INT16 = 1, INT32 = 1, INT64 = 1,
  FP16 = 1, FP32 = 1, FP64 = 1, BF16 = 1, BYTES = 1}
local SYNTAX = "its JSON is malformed"
local value

local function space(p, i, n)
  while i < n do
    local c = p[i]
    if c ~= 32 and c ~= 10 and c ~= 13 and c ~= 9 then return i end
    i = i + 1
  end
  return i
end

local function is_hex(c)
  return (c >= 48 and c <= 57) or (c >= 65 and c <= 70) or (c >= 97 and c <= 102)
end

-- From after the opening quote to after the closing one.
local function text(p, i, n)
  while i < n do
    local c = p[i]
    if c == 34 then return i + 1 end
    if c < 32 then return nil, SYNTAX end
    if c == 92 then
      i = i + 1
      if i >= n then return nil, SYNTAX end
      c = p[i]
      if c == 117 then
        if i + 4 >= n then return nil, SYNTAX end
        if not (is_hex(p[i + 1]) and is_hex(p[i + 2]) and is_hex(p[i + 3]) and is_hex(p[i + 4])) then
          return nil, SYNTAX
        end
        i = i + 4
      elseif not (c == 34 or c == 92 or c == 47 or c == 98 or c == 102 or c == 110 or c == 114 or c == 116) then
        return nil, SYNTAX
      end
    end
    i = i + 1
  end
  return nil, SYNTAX
end

local function digits(p, i, n)
  local from = i
  while i < n and p[i] >= 48 and p[i] <= 57 do i = i + 1 end
  return i, i > from
end

local function number(p, i, n)
  local there
  if p[i] == 45 then i = i + 1 end
  if i < n and p[i] == 48 then
    i = i + 1
  else
    i, there = digits(p, i, n)
    if not there then return nil, SYNTAX end
  end
  if i < n and p[i] == 46 then
    i, there = digits(p, i + 1, n)
    if not there then return nil, SYNTAX end
  end
  if i < n and (p[i] == 101 or p[i] == 69) then
    i = i + 1
    if i < n and (p[i] == 43 or p[i] == 45) then i = i + 1 end
    i, there = digits(p, i, n)
    if not there then return nil, SYNTAX end
  end
  return i
end

local WORDS = {[116] = "true", [102] = "false", [110] = "null"}

local function literal(p, i, n)
  local expected = WORDS[p[i]]
  if i + #expected > n then return nil, SYNTAX end
  for at = 1, #expected do
    if p[i + at - 1] ~= string.byte(expected, at) then return nil, SYNTAX end
  end
  return i + #expected
end

-- An array from after its bracket; `each(p, i, n)` reads a member instead of `value` where it is given.
local function array(p, i, n, depth, each)
  if depth > MOST_DEPTH then return nil, "its JSON is nested deeper than " .. MOST_DEPTH .. " levels", "depth" end
  i = space(p, i, n)
  if i < n and p[i] == 93 then return i + 1, 0 end
  local count = 0
  while i < n do
    local why, kind
    if each then i, why, kind = each(p, i, n) else i, why, kind = value(p, i, n, depth) end
    if not i then return nil, why, kind end
    count = count + 1
    i = space(p, i, n)
    if i >= n then break end
    local c = p[i]
    if c == 93 then return i + 1, count end
    if c ~= 44 then return nil, SYNTAX end
    i = space(p, i + 1, n)
  end
  return nil, SYNTAX
end

-- An object from after its brace; `member(p, from, to, i, n)` reads the value of the key between those places.
local function object(p, i, n, depth, member)
  if depth > MOST_DEPTH then return nil, "its JSON is nested deeper than " .. MOST_DEPTH .. " levels", "depth" end
  i = space(p, i, n)
  if i < n and p[i] == 125 then return i + 1 end
  while i < n do
    if p[i] ~= 34 then return nil, SYNTAX end
    local from = i + 1
    local after, why, kind = text(p, from, n)
    if not after then return nil, why end
    i = space(p, after, n)
    if i >= n or p[i] ~= 58 then return nil, SYNTAX end
    i = space(p, i + 1, n)
    if member then i, why, kind = member(p, from, after - 1, i, n) else i, why, kind = value(p, i, n, depth) end
    if not i then return nil, why, kind end
    i = space(p, i, n)
    if i >= n then break end
    local c = p[i]
    if c == 125 then return i + 1 end
    if c ~= 44 then return nil, SYNTAX end
    i = space(p, i + 1, n)
  end
  return nil, SYNTAX
end

function value(p, i, n, depth)
  if i >= n then return nil, SYNTAX end
  local c = p[i]
  if c == 45 or (c >= 48 and c <= 57) then return number(p, i, n) end
  if c == 34 then return text(p, i + 1, n) end
  if c == 91 then return array(p, i + 1, n, depth + 1) end
  if c == 123 then return object(p, i + 1, n, depth + 1) end
  if WORDS[c] then return literal(p, i, n) end
  return nil, SYNTAX
end

local function is(p, from, to, name)
  if to - from ~= #name then return false end
  for at = 1, #name do
    if p[from + at - 1] ~= string.byte(name, at) then return false end
  end
  return true
end

local function string_of(p, i, n, what)
  if i >= n or p[i] ~= 34 then return nil, what .. " is no string" end
  local after, why = text(p, i + 1, n)
  if not after then return nil, why end
  return after, ffi.string(p + i + 1, after - i - 2)
end

local function dimension(product)
  return function(p, i, n)
    local after, there = digits(p, i, n)
    if not there or after - i > 15 then return nil, "a shape holds whole numbers from 0" end
    product[1] = product[1] * tonumber(ffi.string(p + i, after - i))
    if product[1] > 1e12 then return nil, "a shape is too large" end
    return after
  end
end

local function scalars(what)
  return function(p, from, to, i, n)
    if i < n and (p[i] == 91 or p[i] == 123) then return nil, what .. " are no single values" end
    return value(p, i, n, 4)
  end
end

local function parameters(p, i, n)
  if i >= n or p[i] ~= 123 then return nil, "parameters are no object" end
  return object(p, i + 1, n, 3, scalars("parameters"))
end

-- One tensor of the request: `data` says whether it is an input.
local function tensor(data)
  return function(p, i, n)
    if i >= n or p[i] ~= 123 then return nil, "a tensor is no object" end
    local name, kind, shape
    local after, why, code = object(p, i + 1, n, 3, function(p, from, to, i, n)
      if is(p, from, to, "name") then
        local at, got = string_of(p, i, n, "a tensor's name")
        if not at then return nil, got end
        if #got == 0 or #got > 1024 then return nil, "a tensor's name has 1 to 1024 bytes" end
        name = true
        return at
      elseif data and is(p, from, to, "datatype") then
        local at, got = string_of(p, i, n, "a datatype")
        if not at then return nil, got end
        if not KINDS[got] then return nil, "a datatype is not one of KServe v2" end
        kind = true
        return at
      elseif data and is(p, from, to, "shape") then
        if i >= n or p[i] ~= 91 then return nil, "a shape is no array" end
        shape = true
        return array(p, i + 1, n, 4, dimension({1}))
      elseif is(p, from, to, "parameters") then
        return parameters(p, i, n)
      end
      return value(p, i, n, 3)
    end)
    if not after then return nil, why, code end
    if not name then return nil, "a tensor has no name" end
    if data and not (kind and shape) then return nil, "an input lacks its datatype or its shape" end
    return after
  end
end

local function tensors(p, i, n, data)
  local what = data and "inputs" or "outputs"
  if i >= n or p[i] ~= 91 then return nil, what .. " are no array" end
  local count = 0
  local read = tensor(data)
  local after, why, code = array(p, i + 1, n, 2, function(p, i, n)
    count = count + 1
    if count > MOST_TENSORS then return nil, "more than " .. MOST_TENSORS .. " " .. what end
    return read(p, i, n)
  end)
  if not after then return nil, why, code end
  if data and count == 0 then return nil, "it has no inputs" end
  return after
end

-- Nothing where the bytes are a request's JSON; else the reason for people, and a word for counting.
local function unfit(bytes, n)
  local p = ffi.cast("const uint8_t*", bytes)
  local i = space(p, 0, n)
  if i >= n or p[i] ~= 123 then return i < n and value(p, i, n, 0) and "it is no JSON object" or SYNTAX, "json" end
  local inputs = false
  local after, why, code = object(p, i + 1, n, 1, function(p, from, to, i, n)
    if is(p, from, to, "inputs") then
      inputs = true
      return tensors(p, i, n, true)
    elseif is(p, from, to, "outputs") then
      return tensors(p, i, n, false)
    elseif is(p, from, to, "parameters") then
      return parameters(p, i, n)
    elseif is(p, from, to, "id") then
      local at, got = string_of(p, i, n, "an id")
      if not at then return nil, got end
      return at
    end
    return value(p, i, n, 1)
  end)
  if not after then return why or SYNTAX, code or "json" end
  if space(p, after, n) ~= n then return SYNTAX, "json" end
  if not inputs then return "it has no inputs", "json" end
end
