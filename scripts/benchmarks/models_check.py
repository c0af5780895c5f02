"""The outside check: what the server answers against onnxruntime and torch themselves, without a line of seatrial.

Runs as a process of its own: ``python models_check.py URL MODEL SHOWN.json PLACED.onnx FLOAT.onnx SOURCE SAMPLES.py``
prints one JSON object. SOURCE is the user's ONNX file or ``file.py:factory``. Only numpy, onnxruntime, torch and
Triton's own client are imported.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tritonclient import http, utils

_CLOSE = 1e-3  # of an output's largest number: what the order of sums may change
Arrays = dict[str, Any]


def main() -> int:
    """Compare, and print what was found."""
    url, model, shown, placed, floats, source, loader = sys.argv[1:]
    tensors = json.loads(Path(shown).read_text())
    samples = _module(loader).samples("evaluation", 6, seed=99)[0]
    whole = any(samples[each["name"]].ndim == len(each["shape"]) + 1 for each in tensors["inputs"])
    client = http.InferenceServerClient(url)
    sessions = [_session(placed), _session(floats)]
    found: dict[str, Any] = {"requests": 0, "served": 0.0, "shapes": [], "lengths": []}
    for rows, length in ((1, 0), (1, 1)) if whole else ((1, 0), (3, 0), (2, 1)):
        given = _sized(samples, tensors["inputs"], length)
        if given is None or not (parts := _requests(sessions[0], given, rows, whole)):
            continue
        found["lengths"] += [length] if length else []
        for arrays, expected in parts:
            answer = _asked(client, model, arrays, expected)
            found["requests"] += 1
            for each in tensors["outputs"]:
                got, want = answer[each["name"]], expected[each["name"]]
                found["served"] = max(found["served"], _apart(got.reshape(want.shape), want))
                if not _fits(each["shape"], want.shape):
                    found["shapes"].append(f"{each['name']} {list(want.shape)} for {each['shape']}")
    found["reference"] = _against_source(sessions[1], source, samples, whole, tensors)
    found["kept"] = _kept(sessions, samples, whole)
    print(json.dumps(found))
    return 0


def _module(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"check_{abs(hash(path))}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _session(path: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run(session: Any, arrays: Arrays) -> Arrays:
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, arrays), strict=True))


def _sized(samples: Arrays, inputs: list[dict[str, Any]], longer: int) -> Arrays | None:
    """The samples, or samples twice as long along every free axis beside the batch; None where there is none."""
    if not longer:
        return samples
    made = dict(samples)
    for each in inputs:
        array = made[each["name"]]
        offset = array.ndim - len(each["shape"])
        for axis, size in enumerate(each["shape"]):
            if isinstance(size, str) and (axis or offset) and array.shape[axis + offset] > 1:
                wanted = 2 * array.shape[axis + offset]
                made[each["name"]] = np.take(made[each["name"]], np.arange(wanted), axis=axis + offset, mode="wrap")
    return None if all(made[name].shape == samples[name].shape for name in samples) else made


def _requests(session: Any, samples: Arrays, rows: int, whole: bool) -> list[tuple[Arrays, Arrays]]:
    """Requests with what onnxruntime says to each; none where it refuses the sizes."""
    fixed = not whole and all(isinstance(each.shape[0], int) for each in session.get_inputs())
    rows = session.get_inputs()[0].shape[0] if fixed else rows
    parts = []
    for start in range(0, 6 - rows + 1, rows):
        arrays = {
            name: np.asarray(array[start]) if whole else np.ascontiguousarray(array[start : start + rows])
            for name, array in samples.items()
        }
        try:
            parts.append((arrays, _run(session, arrays)))
        except Exception:  # noqa: BLE001  onnxruntime's exceptions share no base
            return []
    return parts


def _asked(client: Any, model: str, arrays: Arrays, expected: Arrays) -> Arrays:
    config = {each["name"]: each for each in client.get_model_config(model)["input"]}
    batching = client.get_model_config(model)["max_batch_size"] > 0
    inputs = []
    for name, array in arrays.items():
        rank = len(config[name]["dims"]) + batching
        sent = array if array.ndim == rank else array[..., None]
        inputs.append(http.InferInput(name, list(sent.shape), utils.np_to_triton_dtype(sent.dtype)))
        inputs[-1].set_data_from_numpy(np.ascontiguousarray(sent))
    reply = client.infer(model, inputs)
    return {name: reply.as_numpy(name) for name in expected}


def _apart(got: Any, want: Any) -> float:
    """The largest difference over the largest number; infinite where the kinds differ."""
    if got.dtype != want.dtype:
        return float("inf")
    one, other = np.asarray(got, np.float64), np.asarray(want, np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    distance = np.where(same, 0.0, np.nan_to_num(np.abs(one - other), nan=np.inf))
    peak = float(np.abs(other[np.isfinite(other)]).max(initial=0.0))
    return float(distance.max(initial=0.0)) / max(peak, 1e-6)


def _fits(declared: list[int | str], shape: tuple[int, ...]) -> bool:
    return len(declared) == len(shape) and all(
        isinstance(size, str) or size == real for size, real in zip(declared, shape, strict=True)
    )


def _all(session: Any, samples: Arrays, whole: bool) -> Arrays:
    """Outputs of all samples, one at a time, one below another."""
    rows = [
        _run(
            session,
            {name: np.asarray(array[row] if whole else array[row : row + 1]) for name, array in samples.items()},
        )
        for row in range(6)
    ]
    return {name: np.stack([each[name] for each in rows]) for name in rows[0]}


def _against_source(session: Any, source: str, samples: Arrays, whole: bool, tensors: dict[str, Any]) -> float:
    """Return how far the float reference is from the source itself."""
    got = _all(session, samples, whole)
    if source.endswith(".onnx"):
        want = _all(_session(source), samples, whole)
    else:
        path, _, factory = source.rpartition(":")
        want = _torch(getattr(_module(path), factory)(), samples, [each["name"] for each in tensors["outputs"]])
    apart = [0.0]
    for name, array in got.items():
        theirs = want[name]
        if isinstance(theirs.ravel()[0], dict):  # what ZipMap makes
            theirs = np.array([[row[key] for key in row] for row in theirs.ravel()], array.dtype)
        apart.append(_apart(array.reshape(theirs.shape), theirs))
    return max(apart)


def _torch(module: Any, samples: Arrays, names: list[str]) -> Arrays:
    import torch

    rows = []
    for row in range(6):
        tensors = {name: torch.from_numpy(array[row : row + 1]) for name, array in samples.items()}
        with torch.inference_mode():
            try:
                result = module(**tensors)
            except TypeError:
                result = module(*tensors.values())
        if isinstance(result, torch.Tensor):
            result = {names[0]: result}
        rows.append(
            {name: (result[name] if isinstance(result, dict) else getattr(result, name)).numpy() for name in names}
        )
    return {name: np.stack([each[name] for each in rows]) for name in names}


def _kept(sessions: list[Any], samples: Arrays, whole: bool) -> float:
    """The least share of an output's variance that the placed file keeps of the float reference's (of whole numbers: of
    equal ones); an output that does not vary does not count."""
    placed, floats = (_all(session, samples, whole) for session in sessions)
    shares = [1.0]
    for name, want in floats.items():
        got = placed[name]
        if want.dtype.kind in "iub":
            shares.append(float((got == want).mean()))
        elif float(want.astype(np.float64).var()) > 1e-12:
            one, other = got.astype(np.float64), want.astype(np.float64)
            shares.append(1 - float(np.square(one - other).mean() / other.var()))
    return min(shares)


if __name__ == "__main__":
    raise SystemExit(main())
