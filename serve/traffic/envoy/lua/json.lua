-- A strict reading of an inference request's JSON: its form, its depth, and what every server needs of an input.
-- Nothing is kept; functions give the place after what they read, or nothing and the reason.
local MOST_DEPTH, MOST_BYTES = @DEPTH@, @JSON@
local MOST_TENSORS, MOST_KEYS = 4096, 256
local KINDS = {BOOL = 1, UINT8 = 1, UINT16 = 1, UINT32 = 1, UINT64 = 1, INT8 = 1, INT16 = 1, INT32 = 1, INT64 = 1,
  FP16 = 1, FP32 = 1, FP64 = 1, BF16 = 1, BYTES = 1}
local SYNTAX = "its JSON is malformed"

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

-- What `skim` found in a value: its members that are no arrays, by kind.
local found = ffi.new("struct { double all, texts, truths, numbers, others; bool fraction, negative; }")
local stack = ffi.new("uint8_t[?]", MOST_DEPTH + 2)
local ARRAY, OBJECT = 1, 2
local VALUE, AFTER, FIRST, MEMBER, KEY, COLON, TEXT, KEYTEXT, ESCAPE, HEX = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
local MINUS, ZERO, WHOLE, POINT, FRACTION, E, SIGN, EXPONENT = 20, 21, 22, 23, 24, 25, 26, 27

-- Any value, to the place after it: one flat loop, a byte at a time, which LuaJIT compiles; recursion it does not.
local function skim(p, i, n, depth)
  local state, base, back, hex = VALUE, depth, TEXT, 0
  found.all, found.texts, found.truths, found.numbers, found.others = 0, 0, 0, 0, 0
  found.fraction, found.negative = false, false
  while i < n do
    local c = p[i]
    if state >= MINUS then
      if c >= 48 and c <= 57 then
        if state == ZERO then return nil, SYNTAX end
        if state == MINUS then
          state = c == 48 and ZERO or WHOLE
        elseif state == POINT then
          state = FRACTION
        elseif state == E or state == SIGN then
          state = EXPONENT
        end
      elseif c == 46 and (state == ZERO or state == WHOLE) then
        state = POINT
        found.fraction = true
      elseif (c == 101 or c == 69) and (state == ZERO or state == WHOLE or state == FRACTION) then
        state = E
        found.fraction = true
      elseif (c == 43 or c == 45) and state == E then
        state = SIGN
      elseif state == MINUS and c == 73 then
        local after = word(p, i, n, "Infinity") or word(p, i, n, "Inf")
        if not after then return nil, SYNTAX end
        found.fraction = true
        i, state = after - 1, AFTER
        if depth == base then return after end
      elseif state == MINUS or state == POINT or state == E or state == SIGN then
        return nil, SYNTAX
      else
        if depth == base then return i end
        state = AFTER
        i = i - 1
      end
    elseif state == TEXT or state == KEYTEXT then
      if c == 34 then
        if state == KEYTEXT then
          state = COLON
        else
          state = AFTER
          if depth == base then return i + 1 end
        end
      elseif c == 92 then
        back, state = state, ESCAPE
      elseif c < 32 then
        return nil, SYNTAX
      end
    elseif c == 32 or c == 10 or c == 13 or c == 9 then
      if state >= ESCAPE then return nil, SYNTAX end
    elseif state == AFTER then
      if c == 44 then
        state = stack[depth] == ARRAY and VALUE or KEY
      elseif (c == 93 and stack[depth] == ARRAY) or (c == 125 and stack[depth] == OBJECT) then
        depth = depth - 1
        if depth == base then return i + 1 end
      else
        return nil, SYNTAX
      end
    elseif state == VALUE or state == FIRST then
      if c == 91 or c == 123 then
        depth = depth + 1
        if depth > MOST_DEPTH then return nil, "its JSON is nested deeper than " .. MOST_DEPTH .. " levels", "depth" end
        stack[depth] = c == 91 and ARRAY or OBJECT
        state = c == 91 and FIRST or MEMBER
        if c == 123 then found.others = found.others + 1 end
      elseif c == 93 and state == FIRST then
        depth = depth - 1
        state = AFTER
        if depth == base then return i + 1 end
      else
        found.all = found.all + 1
        if c == 34 then
          found.texts = found.texts + 1
          state = TEXT
        elseif c == 45 then
          found.numbers, found.negative = found.numbers + 1, true
          state = MINUS
        elseif c >= 48 and c <= 57 then
          found.numbers = found.numbers + 1
          state = c == 48 and ZERO or WHOLE
        else
          local after
          if c == 116 or c == 102 then
            after = word(p, i, n, "true") or word(p, i, n, "false")
            found.truths = found.truths + 1
          elseif c == 110 then
            after = word(p, i, n, "null")
            found.others = found.others + 1
          else
            after = word(p, i, n, "NaN") or word(p, i, n, "Infinity") or word(p, i, n, "Inf")
            found.numbers, found.fraction = found.numbers + 1, true
          end
          if not after then return nil, SYNTAX end
          i, state = after - 1, AFTER
          if depth == base then return after end
        end
      end
    elseif state == MEMBER or state == KEY then
      if c == 34 then
        state = KEYTEXT
      elseif c == 125 and state == MEMBER then
        depth = depth - 1
        state = AFTER
        if depth == base then return i + 1 end
      else
        return nil, SYNTAX
      end
    elseif state == COLON then
      if c ~= 58 then return nil, SYNTAX end
      state = VALUE
    elseif state == ESCAPE then
      if c == 117 then
        state, hex = HEX, 0
      elseif c == 34 or c == 92 or c == 47 or c == 98 or c == 102 or c == 110 or c == 114 or c == 116 then
        state = back
      else
        return nil, SYNTAX
      end
    else
      if not is_hex(c) then return nil, SYNTAX end
      hex = hex + 1
      if hex == 4 then state = back end
    end
    i = i + 1
  end
  if depth == base and (state == ZERO or state == WHOLE or state == FRACTION or state == EXPONENT) then return i end
  return nil, SYNTAX
end

-- An array from after its bracket, whose members `each(p, i, n)` reads.
local function array(p, i, n, each)
  i = space(p, i, n)
  if i < n and p[i] == 93 then return i + 1 end
  while i < n do
    local why, kind
    i, why, kind = each(p, i, n)
    if not i then return nil, why, kind end
    i = space(p, i, n)
    if i >= n then break end
    local c = p[i]
    if c == 93 then return i + 1 end
    if c ~= 44 then return nil, SYNTAX end
    i = space(p, i + 1, n)
  end
  return nil, SYNTAX
end

local function escaped(p, from, to)
  for at = from, to - 1 do
    if p[at] == 92 then return true end
  end
  return false
end

-- An object from after its brace, of few keys; `member(p, from, to, i, n)` reads the value of the key between those
-- places.
local function object(p, i, n, member)
  i = space(p, i, n)
  if i < n and p[i] == 125 then return i + 1 end
  for _ = 1, MOST_KEYS do
    if i >= n or p[i] ~= 34 then return nil, SYNTAX end
    local from = i + 1
    local after, why, kind = text(p, from, n)
    if not after then return nil, why end
    i = space(p, after, n)
    if i >= n or p[i] ~= 58 then return nil, SYNTAX end
    i = space(p, i + 1, n)
    if escaped(p, from, after - 1) then return nil, "a key is written with escapes" end
    i, why, kind = member(p, from, after - 1, i, n)
    if not i then return nil, why, kind end
    i = space(p, i, n)
    if i >= n then return nil, SYNTAX end
    local c = p[i]
    if c == 125 then return i + 1 end
    if c ~= 44 then return nil, SYNTAX end
    i = space(p, i + 1, n)
  end
  return nil, "an object has more than " .. MOST_KEYS .. " keys"
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

-- Nothing where the data that were skimmed just now fit an input of that type and so many elements; else the reason.
local function misfit(members, kind, elements)
  if members.all ~= elements then return "an input's data are not as many as its shape says" end
  local fits = members.numbers
  if kind == "BYTES" then
    fits = members.texts
  elseif kind == "BOOL" then
    fits = members.truths + members.numbers
  elseif not FLOATS[kind] and (members.fraction or (string.byte(kind) == 85 and members.negative)) then
    fits = -1
  end
  if fits ~= members.all or members.others > 0 then return "an input's data are not of its datatype" end
end

local function scalars(what)
  return function(p, from, to, i, n)
    if i < n and (p[i] == 91 or p[i] == 123) then return nil, what .. " are no single values" end
    return skim(p, i, n, 3)
  end
end

local function parameters(p, i, n)
  if i >= n or p[i] ~= 123 then return nil, "parameters are no object" end
  return object(p, i + 1, n, scalars("parameters"))
end

local elements = 0 -- of the inputs of the request that was read last

-- One tensor of the request: `data` says whether it is an input.
local function tensor(data, whole)
  return function(p, i, n)
    if i >= n or p[i] ~= 123 then return nil, "a tensor is no object" end
    local name, kind, product, members
    local twice = "a tensor has a key twice"
    local after, why, code = object(p, i + 1, n, function(p, from, to, i, n)
      if is(p, from, to, "name") then
        if name then return nil, twice end
        local at, got = string_of(p, i, n, "a tensor's name")
        if not at then return nil, got end
        if #got == 0 or #got > 1024 then return nil, "a tensor's name has 1 to 1024 bytes" end
        name = true
        return at
      elseif data and is(p, from, to, "datatype") then
        if kind then return nil, twice end
        local at, got = string_of(p, i, n, "a datatype")
        if not at then return nil, got end
        if not KINDS[got] then return nil, "a datatype is not one of KServe v2" end
        kind = got
        return at
      elseif data and is(p, from, to, "shape") then
        if product then return nil, twice end
        if i >= n or p[i] ~= 91 then return nil, "a shape is no array" end
        product = {1}
        return array(p, i + 1, n, dimension(product))
      elseif data and is(p, from, to, "data") then
        if members then return nil, twice end
        if i >= n or p[i] ~= 91 then return nil, "an input's data are no array" end
        local at, got, why_not = skim(p, i, n, 3)
        if not at then return nil, got, why_not end
        members = {all = found.all, texts = found.texts, truths = found.truths, numbers = found.numbers,
          others = found.others, fraction = found.fraction, negative = found.negative}
        return at
      elseif is(p, from, to, "parameters") then
        return parameters(p, i, n)
      end
      return skim(p, i, n, 3)
    end)
    if not after then return nil, why, code end
    if not name then return nil, "a tensor has no name" end
    if data and not (kind and product) then return nil, "an input lacks its datatype or its shape" end
    if data and product[1] > whole then return nil, "an input's shape is larger than the request" end
    why = members and misfit(members, kind, product[1])
    if why then return nil, why end
    if data then elements = elements + product[1] end
    return after
  end
end

local function tensors(p, i, n, data, whole)
  local what = data and "inputs" or "outputs"
  if i >= n or p[i] ~= 91 then return nil, what .. " are no array" end
  local count = 0
  local read = tensor(data, whole)
  local after, why, code = array(p, i + 1, n, function(p, i, n)
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
  elements = 0
  if n > MOST_BYTES then return "more than " .. MOST_BYTES .. " bytes of JSON: send tensors as binary data", "json-size" end
  local whole = #bytes -- no element takes less than a byte, and a server makes room for all before it looks
  local p = ffi.cast("const uint8_t*", bytes)
  local i = space(p, 0, n)
  if i >= n or p[i] ~= 123 then return i < n and skim(p, i, n, 0) and "it is no JSON object" or SYNTAX, "json" end
  local inputs = false
  local after, why, code = object(p, i + 1, n, function(p, from, to, i, n)
    if is(p, from, to, "inputs") then
      if inputs then return nil, "it has inputs twice" end
      inputs = true
      return tensors(p, i, n, true, whole)
    elseif is(p, from, to, "outputs") then
      return tensors(p, i, n, false)
    elseif is(p, from, to, "parameters") then
      return parameters(p, i, n)
    elseif is(p, from, to, "id") then
      local at, got = string_of(p, i, n, "an id")
      if not at then return nil, got end
      return at
    end
    return skim(p, i, n, 1)
  end)
  if not after then return why or SYNTAX, code or "json" end
  if space(p, after, n) ~= n then return SYNTAX, "json" end
  if not inputs then return "it has no inputs", "json" end
end
