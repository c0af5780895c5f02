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

local function word(p, i, n, expected)
  if i + #expected > n then return nil end
  for at = 1, #expected do
    if p[i + at - 1] ~= string.byte(expected, at) then return nil end
  end
  return i + #expected
end

-- A number, also one of the three that JSON has no word for and servers take: to the place after it, and true where it
-- is no whole one.
local function number(p, i, n)
  local there, fraction
  if p[i] == 45 then i = i + 1 end
  if i < n and (p[i] == 78 or p[i] == 73) then
    local after = word(p, i, n, "NaN") or word(p, i, n, "Infinity") or word(p, i, n, "Inf")
    if not after then return nil, SYNTAX end
    return after, true
  end
  if i < n and p[i] == 48 then
    i = i + 1
  else
    i, there = digits(p, i, n)
    if not there then return nil, SYNTAX end
  end
  if i < n and p[i] == 46 then
    fraction = true
    i, there = digits(p, i + 1, n)
    if not there then return nil, SYNTAX end
  end
  if i < n and (p[i] == 101 or p[i] == 69) then
    fraction = true
    i = i + 1
    if i < n and (p[i] == 43 or p[i] == 45) then i = i + 1 end
    i, there = digits(p, i, n)
    if not there then return nil, SYNTAX end
  end
  return i, fraction
end

local WORDS = {[116] = "true", [102] = "false", [110] = "null"}

local function literal(p, i, n)
  local after = word(p, i, n, WORDS[p[i]])
  if not after then return nil, SYNTAX end
  return after
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
  if c == 45 or (c >= 48 and c <= 57) or c == 78 or c == 73 then
    local after, why = number(p, i, n)
    return after, not after and why or nil
  end
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

local FLOATS = {FP16 = 1, FP32 = 1, FP64 = 1, BF16 = 1}

-- Counts the members of a tensor's data, however they are nested.
local function leaves(found, depth)
  return function(p, i, n)
    if i >= n then return nil, SYNTAX end
    local c = p[i]
    if c == 91 then return array(p, i + 1, n, depth + 1, leaves(found, depth + 1)) end
    found.all = found.all + 1
    if c == 34 then
      found.texts = found.texts + 1
    elseif c == 116 or c == 102 then
      found.truths = found.truths + 1
    elseif c == 45 or (c >= 48 and c <= 57) or c == 78 or c == 73 then
      local after, fraction = number(p, i, n)
      if not after then return nil, fraction end
      found.numbers = found.numbers + 1
      if fraction then found.fractions = found.fractions + 1 end
      if c == 45 then found.negatives = found.negatives + 1 end
      return after
    end
    return value(p, i, n, depth)
  end
end

-- Nothing where data of these members fit an input of that type and so many elements; else the reason.
local function misfit(found, kind, elements)
  if found.all ~= elements then return "an input's data are not as many as its shape says" end
  local fits = found.numbers
  if kind == "BYTES" then
    fits = found.texts
  elseif kind == "BOOL" then
    fits = found.truths + found.numbers
  elseif not FLOATS[kind] then
    fits = found.numbers - found.fractions
    if string.byte(kind) == 85 then fits = fits - found.negatives end
  end
  if fits ~= found.all then return "an input's data are not of its datatype" end
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
    local name, kind, product, members
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
        kind = got
        return at
      elseif data and is(p, from, to, "shape") then
        if i >= n or p[i] ~= 91 then return nil, "a shape is no array" end
        product = {1}
        return array(p, i + 1, n, 4, dimension(product))
      elseif data and is(p, from, to, "data") then
        if i >= n or p[i] ~= 91 then return nil, "an input's data are no array" end
        members = {all = 0, numbers = 0, fractions = 0, negatives = 0, texts = 0, truths = 0}
        return array(p, i + 1, n, 4, leaves(members, 4))
      elseif is(p, from, to, "parameters") then
        return parameters(p, i, n)
      end
      return value(p, i, n, 3)
    end)
    if not after then return nil, why, code end
    if not name then return nil, "a tensor has no name" end
    if data and not (kind and product) then return nil, "an input lacks its datatype or its shape" end
    why = members and misfit(members, kind, product[1])
    if why then return nil, why end
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
