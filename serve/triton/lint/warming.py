"""Rules of warm-up and response cache in a configuration."""

from collections.abc import Iterator
from typing import Any

from ...caching import shapes_that_bytes_leave_open
from ...deployment import Broken
from .sizes import LARGEST, bytes_of

_RUNS = 10_000


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that warm-up and cache break."""
    for sample in config.model_warmup:
        if sample.batch_size < 1:
            yield Broken(
                field=f"model_warmup.{sample.name}.batch_size",
                rule="below 1, so Triton skips the sample silently",
                fix="write the batch size to run",
                severity="warning",
            )
        else:
            yield from _sample(f"model_warmup.{sample.name}", sample, config)
    if config.response_cache.enable:
        yield from _cache(config)


def _sample(field: str, sample: Any, config: Any) -> Iterator[Broken]:
    if sample.batch_size > max(config.max_batch_size, 1):
        yield Broken(
            field=f"{field}.batch_size",
            rule=(
                f"{sample.batch_size} is above max_batch_size = {config.max_batch_size}: the model never "
                "becomes ready, and Triton 2.51 has crashed on it with every other model"
            ),
            fix="use at most max_batch_size; a model without batching warms up with 1",
            effect="ends",
        )
    if sample.count > _RUNS:
        yield Broken(
            field=f"{field}.count",
            rule=f"{sample.count} runs before the model is ready may never finish",
            fix="two or three runs are enough",
            effect="hangs",
        )
    inputs = {tensor.name: tensor for tensor in config.input}
    missing = sorted(name for name, tensor in inputs.items() if name not in sample.inputs and not tensor.optional)
    counted = len(inputs.keys() & sample.inputs.keys()) < sum(not tensor.optional for tensor in config.input)
    if missing or counted:
        missed = f"{', '.join(missing)} missing" if missing else "an input is listed twice"
        yield Broken(
            field=f"{field}.inputs",
            rule=f"{missed}: "
            + (
                "the sample fails and the model never becomes ready"
                if counted
                else "Triton counts only the inputs, and the model runs without the missing one"
            ),
            fix="give every input once",
            effect="refused" if counted else "loads",
        )
    for name in sorted(sample.inputs):
        yield from _tensor(f"{field}.inputs.{name}", sample.inputs[name], inputs.get(name))
        if inputs and name not in inputs and not config.HasField("sequence_batching"):
            yield Broken(
                field=f"{field}.inputs.{name}",
                rule="there is no such input: the model gets a tensor that no request has",
                fix=f"available inputs: {', '.join(sorted(inputs))}",
                severity="warning",
            )


def _tensor(field: str, tensor: Any, declared: Any) -> Iterator[Broken]:
    dims = list(tensor.dims)
    if any(size < 0 for size in dims):
        yield Broken(
            field=f"{field}.dims",
            rule=f"{dims} is not concrete; Triton refuses the model",
            fix="use sizes of at least 1",
        )
    elif bytes_of(tensor.data_type, dims) > LARGEST:
        yield Broken(
            field=f"{field}.dims",
            rule=f"{dims} exceeds any memory: the server crashes, with every other model",
            fix="write the sizes of a real request",
            effect="ends",
        )
    if tensor.WhichOneof("input_data_type") is None:
        yield Broken(
            field=field,
            rule="no data is given; Triton refuses the model",
            fix="write zero_data: true, or input_data_file",
        )
    if tensor.random_data:
        yield Broken(
            field=f"{field}.random_data",
            rule="raw random bytes: NaN and infinity in floats, ids out of range in integers",
            fix="write zero_data: true, or input_data_file",
            severity="warning",
        )
    if declared is None:
        return
    if tensor.data_type != declared.data_type:
        yield Broken(field=f"{field}.data_type", rule="differs from the input's", fix="write the input's data type")
    fits = len(dims) == len(declared.dims) and all(
        own in (-1, size) for own, size in zip(declared.dims, dims, strict=True)
    )
    if not fits:
        yield Broken(
            field=f"{field}.dims",
            rule=f"{dims} does not fit {list(declared.dims)} (without the batch axis)",
            fix="keep the fixed sizes, fill in the others, omit the batch axis",
        )


def _cache(config: Any) -> Iterator[Broken]:
    if config.HasField("sequence_batching") or config.model_transaction_policy.decoupled:
        yield Broken(
            field="response_cache",
            rule="Triton refuses the cache for sequences and for decoupled models",
            fix="remove one of the two",
        )
    batch = [-1] if config.max_batch_size > 0 else []
    open_ = shapes_that_bytes_leave_open(
        {tensor.name: [*batch, *tensor.dims] for tensor in config.input}, batching=bool(batch)
    )
    if open_:
        yield Broken(
            field="response_cache",
            rule=(
                f"equal bytes of {', '.join(open_)} can have several shapes, and the cache's key omits "
                "shapes: a request can get another's answer"
            ),
            fix="remove it, and cache under a full key before or inside the model",
            effect="loads",
        )
    if len(config.output) > 1:
        yield Broken(
            field="response_cache",
            rule=f"{len(config.output)} outputs, and the cache's key omits which of them were requested",
            fix="remove it, and cache under a full key before or inside the model",
            effect="loads",
        )
    yield Broken(
        field="response_cache",
        rule=(
            "no effect unless the server is started with --cache-config; never load other bytes under "
            "the same version number, or old answers would remain"
        ),
        fix=(
            "start the server with it, as seatrial up does, and give every change its own version; "
            "seatrial switch MODEL reports whether the cache pays"
        ),
        severity="warning",
    )
