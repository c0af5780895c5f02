"""Deployments of every kind compile to what Triton's protocol reads, and each of their rules has its own refusal."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.config import load
from seatrial.optimize.recipe.configs import Shapes
from seatrial.serve.deployment import (
    Batching,
    Bucket,
    ControlInput,
    Deployment,
    Instances,
    LevelQueue,
    OnnxCpu,
    OnnxCuda,
    OnnxTensorrt,
    Priorities,
    Queue,
    Resource,
    ResponseCache,
    Sequence,
    State,
    TensorrtPlan,
    Warmup,
)
from seatrial.serve.errors import ConfigRuleError
from seatrial.serve.triton.compiler import config
from seatrial.serve.triton.compiler.flags import flags_for, server_flags
from seatrial.serve.triton.lint import lint
from tests.support.kinds import DEPLOYMENTS, ENGINE, EXAMPLES, IMAGES, PLANS, SCENES, TRACKER, artifact, spec
from tests.support.made_by import MADE_BY

GPU = Instances(kind="gpu", gpus=(0,))
RANGE = {"image": Shapes(min=(1, 3, 64, 64), opt=(8, 3, 64, 64), max=(32, 3, 64, 64))}


def compiled(name: str, model: Artifact, backend: Any = None) -> Any:
    return config.parse(config.render(load(DEPLOYMENTS / name, Deployment), model, versions=(3,), backend=backend))


@pytest.mark.experimental("GPU")
def test_cuda_options_stand_where_the_backend_keeps_them() -> None:
    made = compiled("detector-cuda.toml", IMAGES)
    assert {name: value.string_value for name, value in made.parameters.items()} == {
        "intra_op_thread_count": "1",
        "inter_op_thread_count": "1",
        "cudnn_conv_algo_search": "1",
        "arena_extend_strategy": "1",
        "do_copy_in_default_stream": "1",
        "gpu_mem_limit": "8589934592",
        "seatrial_resource_slot": "2",
    }
    (accelerator,) = made.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {})
    batching = made.dynamic_batching
    assert (batching.priority_levels, batching.default_priority_level) == (2, 2)
    assert batching.priority_queue_policy[2].default_timeout_microseconds == 5_000_000
    assert batching.priority_queue_policy[2].timeout_action == 1
    (group,) = made.instance_group
    assert (group.rate_limiter.priority, group.rate_limiter.resources[0].name) == (1, "slot")
    warm = [(each.batch_size, each.count, tuple(each.inputs["images"].dims)) for each in made.model_warmup]
    assert warm == [(size, 2, (3, height, 640)) for height in (480, 640) for size in (1, 8, 16)]
    assert len({each.name for each in made.model_warmup}) == 6


@pytest.mark.experimental("GPU")
def test_the_tensorrt_provider_gets_a_cache_of_its_own_and_whole_shapes() -> None:
    made = compiled("scenes-trt-provider.toml", SCENES)
    (accelerator,) = made.optimization.execution_accelerators.gpu_execution_accelerator
    options = dict(accelerator.parameters)
    digest = SCENES.digest.partition(":")[2]
    assert options["trt_engine_cache_path"] == f"/var/cache/seatrial/engines/{digest}/sm9.0-trt10.3"
    assert (options["trt_engine_cache_enable"], options["trt_timing_cache_enable"]) == ("1", "1")
    assert options["trt_profile_opt_shapes"] == "image:16x3x64x64"
    assert options["precision_mode"] == "FP16"
    other = compiled("scenes-trt-provider.toml", replace(SCENES, name="b"))
    paths = {
        each.optimization.execution_accelerators.gpu_execution_accelerator[0].parameters["trt_engine_cache_path"]
        for each in (made, other)
    }
    assert len(paths) == 2


@pytest.mark.experimental("GPU")
def test_an_engine_lists_all_profiles_and_a_file_per_gpu() -> None:
    made = compiled("scenes-engine.toml", ENGINE)
    assert (made.backend, made.platform, made.default_model_filename) == ("tensorrt", "tensorrt_plan", "")
    assert dict(made.cc_model_filenames) == {"8.0": "model_sm80.plan", "9.0": "model_sm90.plan"}
    assert list(made.instance_group[0].profile) == ["0", "1"]
    assert made.optimization.cuda.graphs


def test_controls_and_states_are_hidden_from_clients() -> None:
    made = compiled("tracker.toml", TRACKER)
    assert [each.name for each in made.input] == ["x"]
    assert [each.name for each in made.output] == ["y"]
    assert not made.HasField("dynamic_batching")
    part = made.sequence_batching
    assert (part.max_sequence_idle_microseconds, part.direct.minimum_slot_utilization) == (5_000_000, 0.5)
    assert list(part.control_input[0].control[0].fp32_false_true) == [0, 1]
    assert list(part.control_input[1].control[0].bool_false_true) == [False, True]
    (state,) = part.state
    assert (state.input_name, state.output_name, list(state.dims)) == ("memory_in", "memory_out", [8])
    assert state.initial_state[0].zero_data
    assert made.optimization.graph.level == 1


def test_oldest_and_ids_are_written_too() -> None:
    named = replace(TRACKER, inputs=(*TRACKER.inputs, spec("ID", "n", 1, dtype="uint64")))
    sequence = Sequence(
        strategy="oldest",
        idle_ms=10,
        max_candidates=4,
        preferred_sizes=(2,),
        controls=(ControlInput(name="START", control="start"), ControlInput(name="ID", control="id")),
        states=(State(input="memory_in", output="memory_out", initial="start.bin"),),
    )
    deployment = Deployment(schema=1, name="t", backend="native", max_batch_size=4, sequence=sequence)
    part = config.parse(config.render(deployment, named, versions=(1,))).sequence_batching
    assert (part.oldest.max_candidate_sequences, list(part.oldest.preferred_batch_size)) == (4, [2])
    assert part.state[0].initial_state[0].data_file == "start.bin"
    assert str(part.control_input[1]).count("TYPE_UINT64") == 1


def test_the_flags_that_deployments_need_are_a_value() -> None:
    def flags(*deployments: Deployment) -> tuple[str, ...]:
        return server_flags(config.parse(config.render(each, SCENES, versions=(1,))) for each in deployments)

    plain = Deployment(schema=1, name="a", max_batch_size=4)
    assert flags(plain) == ()
    limited = replace(plain, instances=Instances(resources=(Resource(name="R", available=2),)))
    cached = replace(plain, response_cache=ResponseCache(size_bytes=1 << 21))
    assert flags(plain, limited, cached) == (
        "--rate-limit=execution_count",
        "--rate-limit-resource=R:2",
        "--cache-config=local,size=2097152",
    )
    everywhere = replace(plain, instances=Instances(resources=(Resource(name="R", everywhere=True),)))
    with pytest.raises(ConfigRuleError, match="per device in one model and global in another"):
        flags(limited, everywhere)
    with pytest.raises(ConfigRuleError, match="more of R"):
        flags(limited, replace(plain, instances=Instances(resources=(Resource(name="R", count=3),))))
    ranked = replace(plain, instances=Instances(priority=2))
    assert flags(ranked) == ("--rate-limit=execution_count",)


def test_flags_are_read_from_the_models_to_be_served_and_what_an_ensemble_takes_along(tmp_path: Path) -> None:
    def put(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text(text)

    cached = Deployment(schema=1, name="cached", max_batch_size=4, response_cache=ResponseCache(size_bytes=1 << 21))
    plain = Deployment(schema=1, name="plain", max_batch_size=4)
    put("cached", config.render(cached, SCENES, versions=(1,)))
    put("plain", config.render(plain, SCENES, versions=(1,)))
    put("foreign", 'backend: "python" response_cache { enable: true }')
    put("damaged", "no configuration")
    put("pipeline", 'platform: "ensemble" ensemble_scheduling { step { model_name: "cached" } }')
    assert flags_for(tmp_path, ("plain", "damaged", "absent")) == ()
    assert flags_for(tmp_path, ("pipeline",)) == ("--cache-config=local,size=2097152",)
    assert flags_for(tmp_path) == ("--cache-config=local,size=67108864",), "any of them may be loaded"


@pytest.mark.experimental("GPU")
def test_the_python_backend_takes_tensors_where_they_are_on_a_gpu() -> None:
    """The text alone: no test has run it on a GPU."""
    on_gpu = Deployment(schema=1, name="a", max_batch_size=4, instances=GPU)
    for deployment, wanted in ((on_gpu, "no"), (replace(on_gpu, instances=Instances()), "")):
        made = config.parse(config.render(deployment, SCENES, versions=(1,)))
        assert made.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value == wanted
    native = replace(on_gpu, backend="native", engine=OnnxCuda(kind="onnx-cuda"))
    assert "FORCE_CPU" not in config.render(native, SCENES, versions=(1,))


SEQUENCE = load(DEPLOYMENTS / "tracker.toml", Deployment)
PROVIDER = OnnxTensorrt(kind="onnx-tensorrt", cache="/cache", gpu="9.0", tensorrt="10.3", profile=RANGE)
LEGAL = Deployment(schema=1, name="a", max_batch_size=32)


def sequence(**changes: Any) -> dict[str, Any]:
    assert SEQUENCE.sequence is not None
    return {"backend": "native", "max_batch_size": 8, "sequence": replace(SEQUENCE.sequence, **changes)}


def provider(**changes: Any) -> dict[str, Any]:
    return {"backend": "native", "instances": GPU, "engine": replace(PROVIDER, **changes)}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"triton": "1.0"}, "triton"),
        ({"triton": "new"}, "triton"),
        ({"priorities": Priorities(levels=0, default=0)}, "priorities.levels"),
        ({"priorities": Priorities(levels=2, default=3)}, "priorities.default"),
        ({"priorities": Priorities(levels=2, default=0)}, "priorities.default"),
        (
            {"priorities": Priorities(levels=2, default=1, queues=(LevelQueue(level=3, queue=Queue()),))},
            "priorities.queues.level",
        ),
        (
            {"priorities": Priorities(levels=1, default=1, queues=(LevelQueue(level=1, queue=Queue(timeout_ms=0)),))},
            "priorities.queues.queue.timeout_ms",
        ),
        (
            {"priorities": Priorities(levels=2, default=1), "batching": Batching(preserve_ordering=True)},
            "batching.preserve_ordering",
        ),
        ({"priorities": Priorities(levels=2, default=1), "max_batch_size": 0}, "priorities"),
        ({"queue": Queue(action="delay"), "batching": Batching(preserve_ordering=True)}, "queue.action"),
        ({"instances": Instances(priority=-1)}, "instances.priority"),
        ({"instances": Instances(resources=(Resource(name="R:1"),))}, "instances.resources.name"),
        ({"instances": Instances(resources=(Resource(name="R"), Resource(name="R")))}, "instances.resources.name"),
        ({"instances": Instances(resources=(Resource(name="R", count=0),))}, "instances.resources.count"),
        (
            {"instances": Instances(resources=(Resource(name="R", count=2, available=1),))},
            "instances.resources.available",
        ),
        ({"warmup": Warmup(batch_sizes=(1,), repeat=0)}, "warmup.repeat"),
        ({"warmup": Warmup(buckets=(Bucket(shapes={"a": (1,)}),))}, "warmup.buckets"),
        ({"warmup": Warmup(batch_sizes=(1,), buckets=(Bucket(shapes={"a": (0,)}),))}, "warmup.buckets.0.shapes.a"),
        ({"response_cache": ResponseCache(size_bytes=0)}, "response_cache.size_bytes"),
        ({"engine": OnnxCpu(kind="onnx-cpu"), "instances": GPU}, "instances.kind"),
        ({"engine": OnnxCuda(kind="onnx-cuda")}, "instances.kind"),
        ({"engine": OnnxCuda(kind="onnx-cuda", memory_bytes=4), "instances": GPU}, "engine.memory_bytes"),
        (provider(precision="int8", fallback="fp16"), "engine.fallback"),
        (provider(calibration_table="table"), "engine.calibration_table"),
        (provider(cache="engines"), "engine.cache"),
        (provider(cache="/a/../b"), "engine.cache"),
        (provider(workspace_bytes=4), "engine.workspace_bytes"),
        (provider(gpu="sm90"), "engine.gpu"),
        (provider(tensorrt="10"), "engine.tensorrt"),
        (provider(builder_level=6), "engine.builder_level"),
        (provider(cuda_graph=True), "engine.cuda_graph"),
        (provider(profile={}), "engine.profile"),
        (provider(profile={"image": Shapes(min=(4,), opt=(2,), max=(8,))}), "engine.profile.image"),
        ({"engine": TensorrtPlan(kind="tensorrt", by_gpu={"9.0": "a/b.plan"}), "instances": GPU}, "engine.by_gpu"),
        ({"engine": TensorrtPlan(kind="tensorrt", by_gpu={"sm90": "b.plan"}), "instances": GPU}, "engine.by_gpu"),
        (sequence() | {"backend": "python"}, "backend"),
        (sequence() | {"queue": Queue()}, "sequence"),
        (sequence() | {"batching": Batching(max_queue_delay_us=1)}, "sequence"),
        (sequence() | {"response_cache": ResponseCache()}, "response_cache"),
        (sequence() | {"warmup": Warmup(batch_sizes=(1,))}, "warmup.batch_sizes"),
        (sequence(idle_ms=0), "sequence.idle_ms"),
        (sequence(minimum_slot_utilization=0.0), "sequence.minimum_slot_utilization"),
        (sequence(minimum_slot_utilization=1.5), "sequence.minimum_slot_utilization"),
        (sequence(controls=()), "sequence.controls"),
        (sequence(max_candidates=3), "sequence.strategy"),
        (sequence(strategy="oldest", minimum_slot_utilization=0.0), "sequence.max_candidates"),
        (
            sequence(strategy="oldest", minimum_slot_utilization=0.0, max_candidates=1, preferred_sizes=(9,)),
            "sequence.preferred_sizes",
        ),
        (sequence(states=(State(input="m", output="n", initial=""),)), "sequence.states.initial"),
        (sequence(states=(State(input="m", output="n", initial="../x"),)), "sequence.states.initial"),
        (sequence(states=(State(input="START", output="n", initial="zero"),)), "sequence"),
    ],
)
def test_each_rule_of_a_kind_has_its_own_refusal(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigRuleError) as caught:
        replace(LEGAL, **changes)
    assert caught.value.where == field
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("changes", "model", "field"),
    [
        ({"response_cache": ResponseCache()}, artifact((spec("x", "n", "free"),), (spec("y", "n"),)), "response_cache"),
        (
            {"response_cache": ResponseCache()},
            artifact((spec("x", "n", 2),), (spec("y", "n"), spec("z", "n"))),
            "response_cache",
        ),
        ({"backend": "native", "engine": OnnxCpu(kind="onnx-cpu")}, ENGINE, "instances.kind"),
        (
            {"backend": "native", "instances": GPU, "engine": TensorrtPlan(kind="tensorrt", profiles=(RANGE,))},
            SCENES,
            "engine.kind",
        ),
        (
            {"backend": "native", "instances": GPU, "engine": TensorrtPlan(kind="tensorrt", by_gpu={"9.0": "x.plan"})},
            ENGINE,
            "engine.by_gpu",
        ),
        (provider(profile={"picture": RANGE["image"]}), SCENES, "engine.profile"),
        (
            provider(profile={"image": Shapes(min=(3, 64, 64), opt=(3, 64, 64), max=(3, 64, 64))}),
            SCENES,
            "engine.profile.image",
        ),
        (
            provider(profile={"image": Shapes(min=(1, 3, 32, 64), opt=(8, 3, 64, 64), max=(32, 3, 64, 64))}),
            SCENES,
            "engine.profile.image",
        ),
        (provider() | {"max_batch_size": 33}, SCENES, "engine.profile"),
        (
            provider(profile={"image": Shapes(min=(2, 3, 64, 64), opt=(8, 3, 64, 64), max=(32, 3, 64, 64))}),
            SCENES,
            "engine.profile",
        ),
        (sequence(), SCENES, "sequence.controls"),
        (sequence(), replace(TRACKER, outputs=(spec("y", "n", 2),)), "sequence.states"),
        (sequence(), replace(TRACKER, outputs=(spec("y", "n", 2), spec("memory_out", "n", 9))), "sequence.states"),
    ],
)
def test_each_rule_between_artifact_and_kind_has_its_own_refusal(
    changes: dict[str, Any], model: Artifact, field: str
) -> None:
    with pytest.raises(ConfigRuleError) as caught:
        config.render(replace(LEGAL, **changes), model, versions=(1,))
    assert caught.value.where == field
    assert caught.value.next_step


def test_an_engine_is_held_to_what_it_was_built_with() -> None:
    def built(**config: Any) -> Artifact:
        return replace(ENGINE, made_by=replace(MADE_BY, config={"kind": "compile", **config}))

    deployment = load(DEPLOYMENTS / "scenes-engine.toml", Deployment)
    assert config.render(deployment, built(profiles=[{}, {}], batch=None), versions=(1,))
    with pytest.raises(ConfigRuleError, match="built with 3 profiles, but 2 are listed"):
        config.render(deployment, built(profiles=[{}, {}, {}]), versions=(1,))
    with pytest.raises(ConfigRuleError, match="largest batch"):
        config.render(deployment, built(batch=[1, 8, 16]), versions=(1,))


@pytest.mark.parametrize(("name", "model"), EXAMPLES.items())
def test_what_is_compiled_has_no_finding_of_lint(tmp_path: Path, name: str, model: Artifact) -> None:
    deployment = load(DEPLOYMENTS / name, Deployment)
    folder = tmp_path / "models" / deployment.name / "3"
    folder.mkdir(parents=True)
    for file in (*(each.path for each in model.files), "model.py"):
        (folder / file).write_text("class TritonPythonModel:\n    pass\n" if file == "model.py" else "some model")
    (folder.parent / "config.pbtxt").write_text(config.render(deployment, model, versions=(3,)))
    findings = lint(tmp_path / "models", release="2.51")
    assert [each for each in findings if each.severity == "error"] == []
    told = {each.field for each in findings}  # deliberate: free image sizes, and a rate limit that needs its flag
    assert told == ({"input.images.dims", "instance_group.rate_limiter"} if model is IMAGES else set())


def test_a_gap_between_profiles_is_found() -> None:
    low = {"image": Shapes(min=(1, 3, 64, 64), opt=(2, 3, 64, 64), max=(4, 3, 64, 64))}
    high = {"image": Shapes(min=(6, 3, 64, 64), opt=(8, 3, 64, 64), max=(32, 3, 64, 64))}
    plan = TensorrtPlan(kind="tensorrt", profiles=(high, low), by_gpu={"9.0": PLANS[1]})
    with pytest.raises(ConfigRuleError, match="no profile accepts a batch of 5"):
        config.render(replace(LEGAL, backend="native", instances=GPU, engine=plan), ENGINE, versions=(1,))


def test_the_other_backend_drops_an_engine_that_it_does_not_have() -> None:
    made = compiled("scenes-trt-provider.toml", SCENES, "python")
    assert made.backend == "python"
    assert not made.HasField("optimization")
    told = load(DEPLOYMENTS / "scenes-trt-provider.toml", Deployment)
    with pytest.raises(ConfigRuleError, match='backend = "python" has no engine onnx-tensorrt'):
        replace(told, backend="python")
    kept = load(DEPLOYMENTS / "detector-cuda.toml", Deployment).with_backend("python").engine
    assert isinstance(kept, OnnxCuda)
