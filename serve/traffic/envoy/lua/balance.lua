-- Keeps the load on a version on trial at its share. A caller knows from responses which users are served by which
-- version; one that sends much for users of the version on trial alone would fill that version's queue. Where the
-- trial's part of all load, in requests or in elements, exceeds its share by more than chance explains, users of the
-- clients with the greatest excess are served by the stable version for the rest of the step. A lone client is free.
local KEEP = 1 - 1 / 2000 -- weight of a request after the next one: sums reach back over some 2,000 requests
local SIGMAS, SLACK = 2, 0.05 -- excess that is borne: in standard deviations, and in parts of the load
local CLIENTS, USERS = 1024, 10000 -- that are remembered
local trials = {}

local function account() return {at = 0, excess = {0, 0}, load = {0, 0}, square = {0, 0}} end

local function age(a, now)
  local factor = KEEP ^ (now - a.at)
  a.at = now
  for m = 1, 2 do
    a.excess[m], a.load[m], a.square[m] = a.excess[m] * factor, a.load[m] * factor, a.square[m] * factor
  end
end

local function charge(a, m, load, excess)
  a.excess[m], a.load[m], a.square[m] = a.excess[m] + excess, a.load[m] + load, a.square[m] + load * load
end

local function exceeded(trial, own, share)
  for m = 1, 2 do
    local all, most = trial.all, trial.most[m]
    local borne = math.max(SIGMAS * math.sqrt(share * (1 - share) * all.square[m]), SLACK * all.load[m])
    if all.excess[m] > borne and own.excess[m] > 0 then
      age(most, trial.now)
      if own.excess[m] >= most.excess[m] / 2 then return true end
    end
  end
  return false
end

-- The place of a request's user, or 0, which is the stable version's. `parts` are the share, in millionths.
local function placed(model, parts, name, slot, size)
  local trial = trials[model]
  if not parts or parts <= 0 or parts >= 1000000 then
    if trial then trials[model] = nil end
    return slot
  end
  if not trial or trial.parts ~= parts then
    trial = {parts = parts, now = 0, all = account(), clients = {}, known = 0, moved = {}, users = 0, most = {}}
    trial.most[1], trial.most[2] = account(), account()
    trials[model] = trial
  end
  trial.now = trial.now + 1
  local own = trial.clients[name]
  if not own then
    if trial.known >= CLIENTS then trial.clients, trial.known = {}, 0 end
    own = account()
    own.at = trial.now
    trial.clients[name], trial.known = own, trial.known + 1
  end
  age(own, trial.now)
  age(trial.all, trial.now)
  local share, chosen = parts / 1000000, slot >= 1000000 - parts
  if chosen and trial.moved[slot] then
    chosen = false
  elseif chosen and trial.known > 1 and exceeded(trial, own, share) then
    if trial.users >= USERS then trial.moved, trial.users = {}, 0 end
    trial.moved[slot], trial.users = true, trial.users + 1
    chosen = false
  end
  for m = 1, 2 do
    local load = m == 1 and 1 or size
    local excess = load * ((chosen and 1 or 0) - share)
    charge(trial.all, m, load, excess)
    charge(own, m, load, excess)
    if own.excess[m] > 0 then
      age(trial.most[m], trial.now)
      if own.excess[m] > trial.most[m].excess[m] then trial.most[m] = own end
    end
  end
  return not chosen and slot >= 1000000 - parts and 0 or slot
end
