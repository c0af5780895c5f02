"""The deployment's rules and the configuration made from it: what is legal reads back equal, what is not is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.config import load, parse
from seatrial.optimize.errors import ConfigError
from seatrial.serve.deployment import Backend, Batching, Deployment, Instances, Queue, Warmup, default_deployment
from seatrial.serve.errors import ConfigRuleError
from seatrial.serve.triton.compiler import config
from seatrial.serve.triton.compiler.rules import DATA_TYPES, model_file
from tests.support.made_by import MADE_BY

ROOT = Path(__file__).resolve().parents[3]
IMAGE = TensorSpec(name="image", dtype="float32", shape=("batch", 3, 64, 64))
SCORES = TensorSpec(name="scores", dtype="float32", shape=("batch", 10))
LEGAL = Deployment(schema=1, name="scenes", max_batch_size=32)


def artifact(**changes: Any) -> Artifact:
    kind = changes.get("format", "onnx")
    file = {"onnx": "model.onnx", "tensorrt": "model.plan", "torch": "model.pt2"}[kind]
    values: dict[str, Any] = {
        "name": "scenes",
        "format": kind,
        "files": (File(path=file, digest="sha256:" + "0" * 64, size=1),),
        "inputs": (IMAGE,),
        "outputs": (SCORES,),
        "requires": {},
        "made_by": MADE_BY,
    }
    return Artifact(**values | changes)


def test_the_example_deployment_is_legal_in_both_backends() -> None:
    deployment = load(ROOT / "serve" / "deployments" / "scenes.toml", Deployment)
    python = config.parse(config.render(deployment, artifact(), versions=(1,)))
    native = config.parse(config.render(deployment, artifact(), versions=(1,), backend="native"))
    assert (python.backend, python.platform) == ("python", "")
    assert (native.backend, native.platform) == ("onnxruntime", "onnxruntime_onnx")
    assert native.parameters["intra_op_thread_count"].string_value == "1"
    assert python.parameters["threads"].string_value == "1"
    assert [warmup.batch_size for warmup in python.model_warmup] == [1, 32]
    assert list(python.model_warmup[0].inputs["image"].dims) == [3, 64, 64]
    for rendered in (python, native):
        assert rendered.HasField("dynamic_batching")
        assert not rendered.dynamic_batching.HasField("default_queue_policy")
    assert deployment.release == "scenes"


def test_deployments_that_say_flavour_for_backend_are_read() -> None:
    text = 'schema = 1\nname = "a"\nmax_batch_size = 4\nflavour = "native"\n'
    assert parse(text, Deployment, Path("some.toml")).backend == "native"


def test_a_broken_rule_in_a_file_names_the_file() -> None:
    text = 'schema = 1\nname = "a"\nmax_batch_size = 4\n[warmup]\nbatch_sizes = [8]\n'
    with pytest.raises(ConfigRuleError) as caught:
        parse(text, Deployment, Path("some.toml"))
    assert "some.toml" in caught.value.where
    assert "warmup.batch_sizes" in str(caught.value)


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(ConfigError, match="max_delay"):
        parse('schema = 1\nname = "a"\nmax_batch_size = 4\n[batching]\nmax_delay = 8\n', Deployment, Path("some.toml"))


def test_a_tensor_is_written_without_its_batch_axis() -> None:
    one = TensorSpec(name="winner", dtype="int64", shape=("batch",))
    free = TensorSpec(name="boxes", dtype="float16", shape=("batch", "count", 4))
    made = config.parse(config.render(LEGAL, artifact(outputs=(SCORES, one, free)), versions=(1,)))
    assert [list(tensor.dims) for tensor in made.output] == [[10], [1], [-1, 4]]
    assert [tensor.HasField("reshape") for tensor in made.output] == [False, True, False]
    assert list(made.output[1].reshape.shape) == []


def test_a_model_that_does_not_batch_keeps_its_first_axis_and_says_zero() -> None:
    fixed = artifact(inputs=(replace(IMAGE, shape=(1, 3, 64, 64)),), outputs=(replace(SCORES, shape=("count", 6)),))
    text = config.render(replace(LEGAL, max_batch_size=0), fixed, versions=(1,))
    assert "max_batch_size: 0\n" in text
    made = config.parse(text)
    assert list(made.input[0].dims) == [1, 3, 64, 64]
    assert list(made.output[0].dims) == [-1, 6]
    assert config.parse(config.with_versions(text, (2,))).version_policy.specific.versions == [2]


def test_a_scalar_of_a_model_that_does_not_batch_is_one_number_outside_and_python_alone() -> None:
    rate = TensorSpec(name="rate", dtype="int64", shape=())
    whole = replace(artifact(), inputs=(TensorSpec(name="x", dtype="float32", shape=("x.0", 512)), rate))
    deployment = default_deployment(whole, "vad")
    assert deployment.max_batch_size == 0
    made = config.parse(config.render(deployment, whole, versions=(1,)))
    assert [list(tensor.dims) for tensor in made.input] == [[-1, 512], [1]]
    assert not any(tensor.HasField("reshape") for tensor in made.input)
    with pytest.raises(ConfigRuleError, match="rank-0") as refused:
        config.render(deployment, whole, versions=(1,), backend="native")
    assert "python" in refused.value.next_step


def test_a_first_axis_that_is_no_batch_is_not_taken_for_one() -> None:
    mixed = replace(
        artifact(),
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("y.0", 4)),),
    )
    assert default_deployment(mixed, "m").max_batch_size == 0
    with pytest.raises(ConfigRuleError, match="batch"):
        config.render(Deployment(schema=1, name="m", max_batch_size=8), mixed, versions=(1,))


def test_an_engine_needs_a_gpu_and_the_native_backend() -> None:
    engine = artifact(format="tensorrt")
    on_gpus = replace(LEGAL, backend="native", instances=Instances(kind="gpu", gpus=(0, 1), count=2))
    made = config.parse(config.render(on_gpus, engine, versions=(1,)))
    assert (made.backend, made.platform, made.default_model_filename) == ("tensorrt", "tensorrt_plan", "model.plan")
    assert (made.instance_group[0].count, list(made.instance_group[0].gpus)) == (2, [0, 1])
    with pytest.raises(ConfigRuleError, match=r"instances\.kind"):
        config.render(replace(LEGAL, backend="native"), engine, versions=(1,))
    with pytest.raises(ConfigRuleError, match="backend"):
        config.render(replace(on_gpus, backend="python"), engine, versions=(1,))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schema": 2}, "schema"),
        ({"name": "../up"}, "name"),
        ({"name": ".hidden"}, "name"),
        ({"release": "a/b"}, "release"),
        ({"threads": 0}, "threads"),
        ({"max_batch_size": -1}, "max_batch_size"),
        ({"batching": Batching(preferred_sizes=(33,))}, "batching.preferred_sizes"),
        ({"batching": Batching(preferred_sizes=(0,))}, "batching.preferred_sizes"),
        ({"batching": Batching(preferred_sizes=(4, 4))}, "batching.preferred_sizes"),
        ({"batching": Batching(preferred_sizes=(4,), max_queue_delay_us=1)}, "batching.preferred_sizes"),
        ({"batching": Batching(max_queue_delay_us=-1)}, "batching.max_queue_delay_us"),
        ({"batching": Batching(max_queue_delay_us=2_000_000), "queue": Queue()}, "batching.max_queue_delay_us"),
        ({"batching": Batching(max_queue_delay_us=5), "max_batch_size": 0}, "batching.max_queue_delay_us"),
        ({"queue": Queue(max_size=0)}, "queue.max_size"),
        ({"queue": Queue(timeout_ms=0)}, "queue.timeout_ms"),
        ({"instances": Instances(count=0)}, "instances.count"),
        ({"instances": Instances(gpus=(0,))}, "instances.gpus"),
        ({"instances": Instances(kind="gpu", gpus=(0, 0))}, "instances.gpus"),
        ({"warmup": Warmup(batch_sizes=(0,))}, "warmup.batch_sizes"),
        ({"warmup": Warmup(batch_sizes=(33,))}, "warmup.batch_sizes"),
        ({"warmup": Warmup(batch_sizes=(2,)), "max_batch_size": 0}, "warmup.batch_sizes"),
    ],
)
def test_each_rule_of_a_deployment_has_its_own_refusal(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigRuleError) as caught:
        replace(LEGAL, **changes)
    assert caught.value.where == field
    assert caught.value.next_step
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"inputs": (replace(IMAGE, shape=(1, 3, 64, 64)),)}, "artifact.inputs.image"),
        ({"outputs": (replace(SCORES, shape=(1, 10)),)}, "artifact.outputs.scores"),
        ({"outputs": (replace(SCORES, shape=()),)}, "artifact.outputs.scores"),
        ({"inputs": (replace(IMAGE, shape=("batch", 0)),)}, "artifact.inputs.image"),
        ({"inputs": (replace(IMAGE, dtype="complex64"),)}, "artifact.inputs.image"),
        ({"inputs": (replace(IMAGE, dtype="bfloat16"),)}, "artifact.inputs.image"),
        ({"inputs": ()}, "artifact.inputs"),
        ({"outputs": (SCORES, SCORES)}, "artifact.outputs"),
        ({"format": "torch"}, "backend"),
        ({"files": ()}, "artifact.files"),
        ({"files": (File(path="model.py", digest="sha256:" + "0" * 64, size=1),)}, "artifact.files"),
    ],
)
def test_each_rule_between_artifact_and_deployment_has_its_own_refusal(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigRuleError) as caught:
        config.render(LEGAL, artifact(**changes), versions=(1,))
    assert caught.value.where == field
    assert caught.value.next_step


@pytest.mark.parametrize("versions", [(), (0,), (1, 1), (2**63,)])
def test_versions_are_positive_and_distinct(versions: tuple[int, ...]) -> None:
    with pytest.raises(ConfigRuleError, match="versions"):
        config.render(LEGAL, artifact(), versions=versions)


def test_warming_up_symbolic_axes_needs_their_sizes() -> None:
    free = artifact(inputs=(replace(IMAGE, shape=("batch", 3, "height", "width")),))
    warm = replace(LEGAL, warmup=Warmup(batch_sizes=(1,)))
    with pytest.raises(ConfigRuleError, match=r"warmup\.shapes\.image"):
        config.render(warm, free, versions=(1,))
    for shape in ((3, 64), (4, 64, 64)):
        with pytest.raises(ConfigRuleError, match="does not fit"):
            config.render(replace(LEGAL, warmup=Warmup(batch_sizes=(1,), shapes={"image": shape})), free, versions=(1,))
    with pytest.raises(ConfigRuleError, match="no such input"):
        config.render(
            replace(LEGAL, warmup=Warmup(batch_sizes=(1,), shapes={"picture": (3, 8, 8)})), free, versions=(1,)
        )
    shaped = replace(LEGAL, warmup=Warmup(batch_sizes=(1,), shapes={"image": (3, 48, 32)}))
    made = config.parse(config.render(shaped, free, versions=(1,)))
    assert list(made.model_warmup[0].inputs["image"].dims) == [3, 48, 32]


def test_the_digest_stands_in_a_comment_only() -> None:
    """A field with the digest would make Triton initialize every version again when another is placed."""
    one = config.render(LEGAL, artifact(), versions=(1, 2))
    two = config.render(LEGAL, artifact(name="other"), versions=(1, 2))
    assert artifact().digest in one
    assert one != two
    assert config.parse(one) == config.parse(two)


def test_what_is_no_configuration_is_said_to_be_none() -> None:
    with pytest.raises(ConfigRuleError, match="not a Triton model configuration"):
        config.parse("name: 'a' preferred: 3")


def test_the_model_file_is_the_one_of_the_format() -> None:
    blob = "sha256:" + "0" * 64
    weights = (File(path="net.onnx", digest=blob, size=1), File(path="net.onnx.data", digest=blob, size=1))
    assert model_file(artifact(files=weights)) == "net.onnx"
    with pytest.raises(ConfigRuleError):
        model_file(artifact(files=(*weights, File(path="second.onnx", digest=blob, size=1))))


SIZES = st.integers(1, 4096)
AXES = st.integers(1, 512)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(lambda name: ".." not in name)
DTYPES = st.sampled_from([name for name in DATA_TYPES if name not in ("object", "bfloat16")])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Deployment, Artifact, Backend]:
    """A legal deployment and an artifact that fits it."""
    limit = draw(st.integers(0, 4096))
    fitting = st.integers(1, max(limit, 1))
    delay = draw(st.integers(0, 10_000)) if limit else 0
    preferred = draw(st.lists(fitting, unique=True, max_size=3)) if limit and delay == 0 else []
    sizes = draw(st.lists(fitting, unique=True, max_size=3))

    def tensor(name: str, symbolic: bool) -> TensorSpec:
        axes = st.one_of(AXES, st.just("free")) if symbolic else AXES
        inner = draw(st.lists(axes, max_size=4))
        return TensorSpec(name=name, dtype=draw(DTYPES), shape=("n", *inner) if limit else tuple(inner) or (1,))

    names = draw(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=3, unique=True))
    inputs = tuple(tensor(name, symbolic=not sizes) for name in names)
    kinds: list[Literal["cpu", "gpu"]] = ["cpu", "gpu"]
    kind = draw(st.sampled_from(kinds))
    deployment = Deployment(
        schema=1,
        name=draw(NAMES),
        backend=draw(st.sampled_from(["python", "native"])),
        max_batch_size=limit,
        threads=draw(st.integers(1, 64)),
        batching=Batching(max_queue_delay_us=delay, preferred_sizes=tuple(preferred)),
        queue=draw(st.none() | st.builds(Queue, max_size=SIZES, timeout_ms=st.integers(11, 100_000))),
        instances=Instances(
            count=draw(st.integers(1, 8)),
            kind=kind,
            gpus=tuple(draw(st.lists(st.integers(0, 15), unique=True, max_size=3))) if kind == "gpu" else (),
        ),
        warmup=Warmup(batch_sizes=tuple(sizes)),
    )
    return deployment, artifact(inputs=inputs, outputs=(tensor("result", symbolic=True),)), deployment.backend


@settings(max_examples=150, deadline=None)
@given(pairs(), st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=4, unique=True))
@pytest.mark.slow
def test_whatever_is_legal_reads_back_equal(pair: tuple[Deployment, Artifact, Backend], versions: list[int]) -> None:
    deployment, made, backend = pair
    text = config.render(deployment, made, versions=tuple(versions))
    read = config.parse(text)
    assert config.parse(str(read)) == read
    assert read.name == deployment.name
    assert read.max_batch_size == deployment.max_batch_size
    assert list(read.version_policy.specific.versions) == sorted(versions)
    assert [tensor.name for tensor in read.input] == [spec.name for spec in made.inputs]
    assert all(len(tensor.dims) >= 1 and all(dim >= 1 or dim == -1 for dim in tensor.dims) for tensor in read.input)
    assert all(0 < size <= max(1, read.max_batch_size) for size in read.dynamic_batching.preferred_batch_size)
    assert all(1 <= each.batch_size <= max(1, read.max_batch_size) for each in read.model_warmup)
    assert all(set(each.inputs) == {spec.name for spec in made.inputs} for each in read.model_warmup)
    policy = read.dynamic_batching.default_queue_policy
    assert read.dynamic_batching.HasField("default_queue_policy") == (deployment.queue is not None)
    assert deployment.queue is None or policy.default_timeout_microseconds == deployment.queue.timeout_ms * 1000
    assert read.HasField("dynamic_batching") == (deployment.max_batch_size > 0 or deployment.queue is not None)
    assert (read.backend == "python") == (backend == "python")


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "max_batch_size": st.integers(-2, 64),
            "threads": st.integers(-1, 4),
            "batching": st.builds(
                Batching,
                max_queue_delay_us=st.integers(-1, 100),
                preferred_sizes=st.lists(st.integers(-1, 70), max_size=2).map(tuple),
            ),
            "queue": st.none() | st.builds(Queue, max_size=st.integers(-1, 8), timeout_ms=st.integers(-1, 8)),
            "instances": st.builds(
                Instances, count=st.integers(-1, 3), kind=st.just("cpu"), gpus=st.sampled_from([(), (0,)])
            ),
            "warmup": st.builds(Warmup, batch_sizes=st.lists(st.integers(-1, 70), max_size=2).map(tuple)),
        }
    )
)
@pytest.mark.slow
def test_whatever_is_illegal_is_refused_with_a_rule(values: dict[str, Any]) -> None:
    """The rules restated in one expression: exactly those deployments are refused that break it."""
    limit, batching, queue = values["max_batch_size"], values["batching"], values["queue"]
    preferred, warm, delay = batching.preferred_sizes, values["warmup"].batch_sizes, batching.max_queue_delay_us
    legal = (
        limit >= 0
        and values["threads"] >= 1
        and all(1 <= size <= limit for size in preferred)
        and len(set(preferred)) == len(preferred)
        and delay >= 0
        and not (delay and (preferred or limit == 0))
        and (queue is None or (queue.max_size >= 1 and queue.timeout_ms >= 1 and delay < queue.timeout_ms * 1000))
        and values["instances"].count >= 1
        and not values["instances"].gpus
        and all(1 <= size <= max(1, limit) for size in warm)
        and len(set(warm)) == len(warm)
    )
    if legal:
        deployment = Deployment(schema=1, name="a", **values)
        assume(limit > 0)
        assert config.parse(config.render(deployment, artifact(), versions=(1,))).name == "a"
    else:
        with pytest.raises(ConfigRuleError) as caught:
            Deployment(schema=1, name="a", **values)
        assert caught.value.next_step
