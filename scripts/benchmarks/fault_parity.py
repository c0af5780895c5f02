"""Planted faults of outputs: what parity, golden replay and shadowing say of outputs that are wrong in known ways."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scripts.benchmarks.faults import Fault
from scripts.benchmarks.nets import DECIDED, KINDS, Array, Made, Net, drawn
from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.parity.parity import compare
from seatrial.optimize.recipe.configs import CAST, ENGINE, QUANTIZED, Tolerance
from seatrial.serve.traffic.shadow.differing import differing
from seatrial.serve.triton.proof.golden import compare as replayed

Spoil = Callable[[Array, np.random.Generator], Array]
_LOWEST = (-np.inf, np.inf, np.nan, -1e4, -65504.0, -1e9, float(np.finfo(np.float32).min))


def spoiled(net: Net, random: np.random.Generator) -> Callable[[Array], Array]:
    """One of the ways in which outputs of that kind are wrong, as a function of the right ones of a batch."""
    whole = net.float_(net.samples.inputs["x"])
    if net.kind in DECIDED:
        return _decisions(whole, random)
    rows = whole.reshape(len(whole), -1).astype(np.float64)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    ways: list[Callable[[Array], Array]] = [
        lambda y: np.broadcast_to(mean, y.shape),
        lambda y: np.broadcast_to(rows[0], y.shape),
        lambda y: np.repeat(y[:1], len(y), axis=0) if len(y) > 1 else y,
        lambda y: np.roll(y, 1, axis=0),
        lambda y: mean - (y - mean),
        lambda y: y + spread * shift,
    ]
    shift, factor = random.choice([-1, 1]) * random.uniform(0.5, 3), random.choice([random.uniform(0, 0.6), 1.6, 2, 10])
    ways.append(lambda y: y * factor)
    used = np.flatnonzero(spread >= 0.5 * np.sqrt((spread**2).mean()))
    if len(used) > 1:
        one, other = random.choice(used, 2, replace=False)
        ways.append(lambda y: _exchanged(y, one, other))
        ways.append(lambda y: _column(y, one, mean[one]))
        ways.append(lambda y: _column(y, one, y[:, other]))
    way = ways[int(random.integers(len(ways)))]
    return lambda y: (
        np.asarray(way(y.reshape(len(y), -1).astype(np.float64)), np.float64).reshape(y.shape).astype(y.dtype)
    )


def _exchanged(y: Array, one: int, other: int) -> Array:
    y = y.copy()
    y[:, [one, other]] = y[:, [other, one]]
    return y


def _column(y: Array, place: int, value: Any) -> Array:
    y = y.copy()
    y[:, place] = value
    return y


def _decisions(whole: Array, random: np.random.Generator) -> Callable[[Array], Array]:
    values, counts = np.unique(whole, return_counts=True)
    common = values[counts.argmax()]
    ways: list[Callable[[Array], Array]] = [
        lambda y: np.full_like(y, common),
        lambda y: np.roll(y, 1, axis=0),
        lambda y: np.where(y == values[0], values[-1], np.where(y == values[-1], values[0], y)).astype(y.dtype),
        lambda y: np.repeat(y[:1], len(y), axis=0) if len(y) > 1 else np.full_like(y, common),
    ]
    return ways[int(random.integers(len(ways)))]


def _answer(net: Net, random: np.random.Generator) -> tuple[Callable[[Array], Array], Mapping[str, Tolerance]]:
    """A lower precision of the network, and the contract of the stage that makes it."""
    if random.random() < 0.6:
        return net.int8, QUANTIZED
    return net.fp16, CAST if random.random() < 0.5 else ENGINE


def _refused(net: Net, candidate: Callable[[Array], Array], contract: Mapping[str, Tolerance]) -> bool:
    return any(row.broken for row in compare(Made(net.float_), Made(candidate), net.samples, contract))


def planted_output(random: np.random.Generator) -> bool:
    net = drawn(random)
    answer, contract = _answer(net, random)
    spoil = spoiled(net, random)
    return _refused(net, lambda x: spoil(answer(x)), contract)


def sound_output(random: np.random.Generator) -> bool:
    net = drawn(random)
    return _refused(net, *_answer(net, random))


def planted_contract(random: np.random.Generator) -> bool:
    """A constant output under a contract that only knows directions, or none at all."""
    net = drawn(random, str(random.choice(["score", "score of one column", "probability"])))
    constant = net.float_(net.samples.inputs["x"])[0]
    limits = [Tolerance(cosine=0.9), Tolerance(agreement=0.97), Tolerance(cosine=0.99, agreement=0.9), Tolerance()]
    contract = {str(random.choice(["*", "y"])): limits[int(random.integers(len(limits)))]}
    return _contract(net, lambda x: np.repeat(constant[None], len(x), axis=0), contract)


def sound_contract(random: np.random.Generator) -> bool:
    net = drawn(random, str(random.choice(["embedding", "logits", "classes", "tokens"])))
    limits = [Tolerance(cosine=0.9), Tolerance(spread_error=0.3), Tolerance(snr=10.0), Tolerance(cosine=0.9, snr=6.0)]
    return _contract(net, net.int8, {"*": limits[int(random.integers(len(limits)))]})


def _contract(net: Net, candidate: Callable[[Array], Array], contract: Mapping[str, Tolerance]) -> bool:
    try:
        return _refused(net, candidate, contract)
    except ConfigError:
        return True


def _masked(net: Net, random: np.random.Generator) -> Callable[[Array, Array], Array]:
    """Put values that are not finite, or stand for it, over some columns, or over some elements by the sample."""
    value = float(random.choice(_LOWEST))
    whole = net.float_(net.samples.inputs["x"])
    width = whole[0].size
    columns = random.permutation(width)[: max(1, width // 3)]
    by_sample = width < 3 or random.random() < 0.5
    added = bool(np.isfinite(value)) and random.random() < 0.5

    def mask(x: Array, y: Array) -> Array:
        flat = y.reshape(len(y), -1).copy()
        hidden = np.zeros(flat.shape, bool)
        hidden[:, columns] = True
        if by_sample:
            hidden &= (x[:, :1] > 0) | (np.arange(width) % 2 == 1)
        return np.where(hidden, flat + value if added else value, flat).astype(y.dtype).reshape(y.shape)

    return mask


def _beside(random: np.random.Generator) -> tuple[Net, Callable[[Array, Array], Array]]:
    net = drawn(random, str(random.choice(["logits", "tokens", "map", "classes", "score"])))
    return net, _masked(net, random)


def planted_beside(random: np.random.Generator) -> bool:
    """Fault among the numbers beside a mask, or a mask in the wrong place."""
    net, mask = _beside(random)
    reference = Net(**{name: getattr(net, name) for name in net.__dataclass_fields__})
    spoil = _off(net, random) if random.random() < 0.7 else None
    first = float(net.samples.inputs["x"][0, 0])

    def wrong(x: Array) -> Array:
        if spoil is None:
            return (
                mask(x - 2 * x[:, :1] * (np.arange(x.shape[1]) == 0), np.roll(net.int8(x), 1, axis=-1)) if first else x
            )
        return mask(x, spoil(net.int8(x)))

    right = Made(lambda x: mask(x, reference.float_(x)))
    return any(row.broken for row in compare(right, Made(wrong), net.samples, QUANTIZED))


def _off(net: Net, random: np.random.Generator) -> Callable[[Array], Array]:
    """All numbers 40 % of their spread off or more: other weights."""
    whole = net.float_(net.samples.inputs["x"]).astype(np.float64)
    spread = whole.reshape(len(whole), -1).std(axis=0).reshape(whole.shape[1:])
    noise = random.uniform(0.4, 2.0)
    seed = int(random.integers(2**31))
    return lambda y: (y + noise * spread * np.random.default_rng(seed).normal(size=y.shape)).astype(y.dtype)


def sound_beside(random: np.random.Generator) -> bool:
    net, mask = _beside(random)
    right, same = Made(lambda x: mask(x, net.float_(x))), Made(lambda x: mask(x, net.int8(x)))
    return any(row.broken for row in compare(right, same, net.samples, QUANTIZED))


def _replayed(random: np.random.Generator, spoil: Callable[[Net, Array, Array], Array]) -> bool:
    """Return whether golden replay finds a difference between a server and the artifact itself."""
    net = drawn(random)
    scale = 10.0 ** int(random.integers(-6, 3)) if net.kind in ("score", "logits", "map") else 1.0
    mask = _masked(net, random) if net.kind in KINDS and random.random() < 0.5 else lambda x, y: y
    inputs = (TensorSpec(name="x", dtype="float32", shape=("n", net.samples.inputs["x"].shape[1])),)

    def right(given: Mapping[str, Array]) -> dict[str, Array]:
        y = net.float_(given["x"])
        return {"y": mask(given["x"], (y * scale).astype(y.dtype) if scale != 1 else y)}

    def served(given: Mapping[str, Array]) -> dict[str, Array]:
        y = spoil(net, given["x"], net.float_(given["x"]))
        return {"y": mask(given["x"], (y * scale).astype(y.dtype) if scale != 1 else y)}

    samples = net.samples.take(16)
    return any(
        each.why for size in (1, 8) for _, found in replayed(served, right, samples, inputs, size) for each in found
    )


def planted_golden(random: np.random.Generator) -> bool:
    def spoil(net: Net, x: Array, y: Array) -> Array:
        if len(y) == 1:
            return y
        return np.asarray(np.roll(y, 1, axis=0) if turn < 0.5 else np.repeat(y[:1], len(y), axis=0))

    turn = random.random()
    return _replayed(random, spoil)


def sound_golden(random: np.random.Generator) -> bool:
    def spoil(net: Net, x: Array, y: Array) -> Array:
        if y.dtype.kind != "f" or net.kind == "mask":
            return y
        return np.asarray(y * (1 + np.random.default_rng(seed).normal(0, 3e-7, y.shape)), y.dtype)

    seed = int(random.integers(2**31))
    return _replayed(random, spoil)


def _shadowed(random: np.random.Generator, *, off: bool) -> bool:
    net, mask = _beside(random)
    x = net.samples.inputs["x"][:64]
    spoil = _off(net, random) if off else lambda y: y
    one, other = mask(x, net.float_(x)), mask(x, spoil(net.int8(x)))
    found = differing({"y": one}, {"y": other})[0]
    spread = float(np.std(net.float_(x), axis=0).max())
    return bool(found.broken) or found.largest > spread * 0.9


FAULTS = (
    Fault(
        name="A1-outputs",
        claim="wrong outputs of ten kinds under the default contracts, against int8 and fp16 of the same networks",
        planted=planted_output,
        sound=sound_output,
    ),
    Fault(
        name="A1-contracts",
        claim="one constant answer under contracts that say nothing of one number a row",
        planted=planted_contract,
        sound=sound_contract,
    ),
    Fault(
        name="A1-golden",
        claim="rows mixed up by a server, outputs from 1e-6 to 100 in size, beside masks or not",
        planted=planted_golden,
        sound=sound_golden,
    ),
    Fault(
        name="A2-parity",
        claim="numbers that are off, and misplaced values, beside NaN, infinities and finite stand-ins",
        planted=planted_beside,
        sound=sound_beside,
    ),
    Fault(
        name="A2-shadow",
        claim="the same between two served versions: the greatest difference beside masks",
        planted=lambda random: _shadowed(random, off=True),
        sound=lambda random: _shadowed(random, off=False),
    ),
)
