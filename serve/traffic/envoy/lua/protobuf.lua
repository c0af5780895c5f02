-- The top-level fields of a gRPC message, walked to its very end: what is appended after it can then be swallowed by
-- nothing. Fields that this edge does not know are let through; groups, which end nowhere by themselves, are not.
local MOST_FIELDS = 65536

-- The number at a place, as far as 32 bits go, and the place after it; nothing where it does not end.
local function varint(p, i, n, most)
  local found, shift = 0, 1
  for at = 0, most - 1 do
    if i + at >= n then return nil end
    local c = p[i + at]
    if shift <= 268435456 then found = found + (c % 128) * shift end
    if c < 128 then return found, i + at + 1 end
    shift = shift * 128
  end
  return nil
end

-- Elements of the input tensor between two places, by its shape (field 3, packed or not); 0 where that cannot be told.
local function elements_in(p, i, n)
  local product, there = 1, false
  local function dimension(size)
    product, there = product * size, true
  end
  while i < n do
    local tag, length
    tag, i = varint(p, i, n, 5)
    if not tag then return 0 end
    local kind = tag % 8
    if kind == 2 then
      length, i = varint(p, i, n, 5)
      if not length or length > n - i then return 0 end
      if tag == 26 then
        local at = i
        while at < i + length do
          local size
          size, at = varint(p, at, i + length, 10)
          if not size then return 0 end
          dimension(size)
        end
      end
      i = i + length
    elseif kind == 0 then
      length, i = varint(p, i, n, 10)
      if not length then return 0 end
      if tag == 24 then dimension(length) end
    elseif kind == 1 then
      i = i + 8
    elseif kind == 5 then
      i = i + 4
    else
      return 0
    end
  end
  return there and product < 1e15 and product or 0
end

-- The model that a message of one frame names, and the elements of its inputs; or nothing and the reason.
local function model_in(bytes)
  local p, n = ffi.cast("const uint8_t*", bytes), #bytes
  if n < 5 then return nil, "no message" end
  if p[0] ~= 0 then return nil, "compressed requests are not accepted", 12 end
  if p[1] * 16777216 + p[2] * 65536 + p[3] * 256 + p[4] ~= n - 5 then return nil, "not exactly one message" end
  local i, name, count, elements = 5, "", 0, 0
  while i < n do
    local tag, length
    tag, i = varint(p, i, n, 5)
    count = count + 1
    if not tag or tag < 8 or tag > 4294967295 or count > MOST_FIELDS then return nil, "the message is malformed" end
    local kind = tag % 8
    if kind == 2 then
      length, i = varint(p, i, n, 5)
      if not length or length > n - i then return nil, "a field ends beyond the message" end
      if tag == 10 then name = ffi.string(p + i, length) end
      if tag == 42 then elements = elements + elements_in(p, i, i + length) end
      i = i + length
    elseif kind == 0 then
      length, i = varint(p, i, n, 10)
      if not length then return nil, "the message is malformed" end
    elseif kind == 1 then
      i = i + 8
    elseif kind == 5 then
      i = i + 4
    else
      return nil, "the message holds a group"
    end
  end
  if i ~= n then return nil, "a field ends beyond the message" end
  return name, elements
end
