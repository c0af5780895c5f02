-- A keyed digest of a request's body (HalfSipHash-2-4 with 64 bits out), for the quarantine and for sticky assignment.
-- The key is this edge's own, so nobody outside can make two bodies of one digest, or pick users for a version.
local ffi, bit = require("ffi"), require("bit")
local bxor, rol, bor, lshift = bit.bxor, bit.rol, bit.bor, bit.lshift
local KEY0, KEY1 = @KEY0@, @KEY1@
local WHOLE = 1048576 -- of a longer body the first and the last half of so many bytes, and its length

local function words(p, from, to, a, b, c, d)
  local i = from
  while i + 4 <= to do
    local m = bor(p[i], lshift(p[i + 1], 8), lshift(p[i + 2], 16), lshift(p[i + 3], 24))
    d = bxor(d, m)
    for _ = 1, 2 do
      a = bit.tobit(a + b); b = bxor(rol(b, 5), a); a = rol(a, 16)
      c = bit.tobit(c + d); d = bxor(rol(d, 8), c)
      a = bit.tobit(a + d); d = bxor(rol(d, 7), a)
      c = bit.tobit(c + b); b = bxor(rol(b, 13), c); c = rol(c, 16)
    end
    a = bxor(a, m)
    i = i + 4
  end
  local rest = 0
  for at = i, to - 1 do
    rest = bor(rest, lshift(p[at], 8 * (at - i)))
  end
  return a, b, c, d, rest
end

local function word(m, a, b, c, d, rounds)
  d = bxor(d, m)
  for _ = 1, rounds do
    a = bit.tobit(a + b); b = bxor(rol(b, 5), a); a = rol(a, 16)
    c = bit.tobit(c + d); d = bxor(rol(d, 8), c)
    a = bit.tobit(a + d); d = bxor(rol(d, 7), a)
    c = bit.tobit(c + b); b = bxor(rol(b, 13), c); c = rol(c, 16)
  end
  return bxor(a, m), b, c, d
end

-- Two numbers of 32 bits (signed, as the bit library has them).
local function digest(bytes)
  local p, n = ffi.cast("const uint8_t*", bytes), #bytes
  local a, b, c, d = KEY0, bxor(KEY1, 0xee), bxor(0x6c796765, KEY0), bxor(0x74656462, KEY1)
  local rest
  if n <= WHOLE then
    a, b, c, d, rest = words(p, 0, n, a, b, c, d)
  else
    local half = WHOLE / 2
    a, b, c, d, rest = words(p, 0, half, a, b, c, d)
    a, b, c, d, rest = words(p, n - half, n, a, b, c, d)
  end
  a, b, c, d = word(rest, a, b, c, d, 2)
  a, b, c, d = word(bit.tobit(n), a, b, c, d, 2)
  c = bxor(c, 0xee)
  a, b, c, d = word(0, a, b, c, d, 4)
  local high = bxor(b, d)
  b = bxor(b, 0xdd)
  a, b, c, d = word(0, a, b, c, d, 4)
  return high, bxor(b, d)
end

local function hex(bytes)
  local high, low = digest(bytes)
  return bit.tohex(high) .. bit.tohex(low)
end
