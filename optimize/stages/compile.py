"""Compile: a typed ONNX graph to a TensorRT engine, or, where TensorRT is not at hand, to the plan of building it.

The graph and the profiles are checked by `legality` on either machine. A planned artifact holds the graph and the plan
and no engine; it says so itself (`Artifact.planned`) and nothing opens it. Experimental
(`optimize.experimental.TENSORRT`).
"""

import json
import shutil
from typing import Any

from .. import experimental
from ..artifact import Artifact, digest_file
from ..errors import StageError
from ..recipe.configs import CompileConfig
from ..sessions import on_tensorrt_builder
from ..tensorrt.legality import check, enforce
from ..tensorrt.on_onnx import describe
from ..tensorrt.plan import MODEL, PLAN, EnginePlan, plan_engine
from .stage import Context, Made

VERSIONS = ">=10.16,<12"


def run(config: CompileConfig, parent: Artifact, context: Context) -> Made:
    """Make ``model.onnx`` and ``plan.json``, and with TensorRT ``model.plan``, ``timing.cache`` and ``layers.json``.

    Raises:
        ConfigError: a dynamic axis without a range.
        StageError: the linter's breaches, each with rule, node, reason and fix; or TensorRT itself refused.
    """
    experimental.used(experimental.TENSORRT)
    files = _copied(parent, context)
    model = context.folder / MODEL
    plan = plan_engine(config, parent.inputs, digest_file(model))
    context.progress(0.1, "checking legality")
    serves = config.serves or tuple(config.batch or ())
    description = describe(model)
    enforce(check(description, plan.profiles, serves), f"compile of {parent.short}")
    (context.folder / PLAN).write_text(json.dumps(plan.to_json(), indent=1) + "\n")
    notes: dict[str, Any] = {"planned": True}
    requires: dict[str, Any] = {"tensorrt": VERSIONS}
    made = (*files, PLAN)
    if on_tensorrt_builder.at_hand():
        context.progress(0.2, "building the engine")
        carried = on_tensorrt_builder.carry_out(plan, model, context.folder)
        made = (*made, *carried.files)
        notes, requires = {"planned": False, "tensorrt": carried.version}, _requires(plan, carried.version, context)
    return Made(
        format="tensorrt", files=made, inputs=parent.inputs, outputs=parent.outputs, requires=requires, notes=notes
    )


def _copied(parent: Artifact, context: Context) -> tuple[str, ...]:
    """The parent's files, weights beside the graph included."""
    if not any(file.path == MODEL for file in parent.files):
        raise StageError(f"{parent.short} has no {MODEL}", next_step="export it again")
    for file in parent.files:
        target = context.folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(context.store.path(parent, file.path), target)
    return tuple(file.path for file in parent.files)


def _requires(plan: EnginePlan, version: str, context: Context) -> dict[str, Any]:
    """An engine runs on the version that built it (or later ones, if compatible) and, unless compatible, on its GPU."""
    operator = ">=" if "VERSION_COMPATIBLE" in plan.set else "=="
    requires: dict[str, Any] = {"tensorrt": f"{operator}{version}"}
    capabilities = sorted({each.compute_capability for each in context.environment.gpu_settings} - {""})
    level = plan.hardware_compatibility_level
    if level == "AMPERE_PLUS":
        requires["compute_capability_least"] = "8.0"
    elif capabilities:
        requires["compute_capability_any"] = capabilities
    if level == "NONE":
        requires["gpu_any"] = sorted({gpu.split(",")[1].strip() for gpu in context.environment.gpus if "," in gpu})
    return requires
