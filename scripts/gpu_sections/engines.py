"""Sessions: every engine of the table that opens here, against float64 on the processor, and what it really got."""

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from scripts.gpu_sections.place import MissingPartError, Place, refused
from scripts.gpu_sections.record import Claim, Found

LIMITS = {"openvino-bf16": 0.2}  # of the outputs' spread: 8 bits of mantissa
SLOW = ("torch-compile",)
LIMIT = 0.02  # float32, TF32 included


def run(place: Place) -> Found:
    """Open each engine on its own device, run once, compare."""
    try:
        import numpy as np
        import torch

        from scripts.gpu_sections import nets
        from seatrial.optimize.sessions.engine import ENGINES
    except ImportError as error:
        raise MissingPartError(str(error)) from error
    net = nets.small()
    image = np.random.default_rng(0).standard_normal((4, 3, 16, 16), np.float32)
    with torch.no_grad():
        reference = net.double()(torch.from_numpy(image).double()).numpy()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="seatrial-gpu-sessions-") as folder:
        files = _files(nets.small(), Path(folder))
        for name in dict.fromkeys(ENGINES.get(name).name for name in ENGINES.built_in):
            for device in _devices(ENGINES.get(name), place):
                about = {"engine": name, "asked_device": device}
                if name in SLOW and place.small:
                    rows.append(about | {"opened": False, "reason": "its code generator takes a minute on the CPU"})
                    continue
                found, why = refused(partial(_opened, name, device, files, image))
                if why:
                    rows.append(about | {"opened": False, "reason": why})
                    continue
                apart = nets.distance(found.pop("logits"), reference)
                rows.append(found | about | {"opened": True, "error": apart, "limit": LIMITS.get(name, LIMIT)})
    return Found(rows=tuple(rows), claims=claims(rows))


def _devices(engine: Any, place: Place) -> list[str]:
    """The engine's own device and, in a run on a GPU, that one too where the engine runs on it."""
    kinds = ["cuda"] if not place.small and "cuda" in engine.devices else []
    return list(dict.fromkeys((engine.device, *kinds)))


def _files(net: Any, folder: Path) -> dict[str, Path]:
    """The net in each format by name of the format: a folder each."""
    from safetensors.torch import save_file

    from scripts.gpu_sections import nets
    from seatrial.optimize.sessions.on_torch import ARCHITECTURE, WEIGHTS, Architecture

    made = {name: folder / name for name in ("onnx", "torch")}
    for path in made.values():
        path.mkdir()
    nets.small_onnx(net, made["onnx"] / "model.onnx")
    record = Architecture(factory="scripts.gpu_sections.nets:small", arguments={"width": 8})
    (made["torch"] / ARCHITECTURE).write_text(json.dumps(record.to_json()))
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, made["torch"] / WEIGHTS)
    return made


def _opened(name: str, device: str, files: dict[str, Path], image: Any) -> dict[str, Any]:
    from seatrial.optimize.artifact import TensorSpec
    from seatrial.optimize.sessions.engine import ENGINES, ModelFiles, opened

    engine = ENGINES.get(name)
    format_ = next((each for each in engine.formats if each in files), None)
    if format_ is None:
        raise MissingPartError(f"this section has no {' or '.join(engine.formats)} file; tests/gpu builds one")
    folder = files[format_]
    model = ModelFiles(
        format=format_,
        file=lambda part: folder / part,
        names=frozenset(path.name for path in folder.iterdir()),
        inputs=(TensorSpec(name="image", dtype="float32", shape=("batch", 3, 16, 16)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 10)),),
    )
    got = opened(engine, model, threads=1, device=device)
    told = {"provider": got.provider, "device": got.device, "on_cpu": list(got.on_cpu)}
    return told | {"logits": got.session.run({"image": image})["logits"]}


def claims(rows: list[dict[str, Any]]) -> tuple[Claim, ...]:
    """Engines that opened are right, and on the device that was asked for; at least one of them is on the GPU."""
    opened = [row for row in rows if row["opened"]]
    wrong = [row["engine"] for row in opened if not row["error"] <= row["limit"]]
    elsewhere = [row["engine"] for row in opened if row["device"].split(":")[0] != row["asked_device"].split(":")[0]]
    on_gpu = [row["engine"] for row in opened if row["device"].startswith("cuda")]
    told = ", ".join(row["engine"] for row in opened)
    right = Claim(
        claim="engines that opened agree with float64",
        bar="each within its limit",
        value=f"wrong: {', '.join(wrong)}" if wrong else told,
        met=not wrong if opened else None,
        why="" if opened else "no engine opened",
    )
    asked = Claim(
        claim="device asked for is the device got",
        bar="no other",
        value=f"elsewhere: {', '.join(elsewhere)}" if elsewhere else told,
        met=not elsewhere if opened else None,
        why="" if opened else "no engine opened",
    )
    gpu = Claim(
        claim="engines that run on the GPU",
        bar="at least one",
        value=", ".join(on_gpu),
        met=True if on_gpu else None,
        why="" if on_gpu else "no engine of this installation opened on the GPU",
    )
    return right, asked, gpu
