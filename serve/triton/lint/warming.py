"""Rules of warm-up and response cache in a configuration."""

from collections.abc import Iterator
from typing import Any

from ...deployment import Broken


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that warm-up and cache break."""
    for sample in config.model_warmup:
        yield from _sample(f"model_warmup.{sample.name}", sample, config)
    if config.response_cache.enable:
        yield from _cache(config)


def _sample(field: str, sample: Any, config: Any) -> Iterator[Broken]:
    if sample.batch_size > max(config.max_batch_size, 1):
        yield Broken(
            field=f"{field}.batch_size",
            rule=f"{sample.batch_size} is above max_batch_size = {config.max_batch_size}: it never becomes ready, and "
            "Triton 2.51 has crashed over it with every other model",
            mend="keep to max_batch_size; a model that does not batch warms up with 1",
        )
    if sample.batch_size < 1:
        yield Broken(
            field=f"{field}.batch_size",
            rule="below 1, so Triton skips the sample silently",
            mend="write the batch size to run",
            severity="warning",
        )
    inputs = {tensor.name: tensor for tensor in config.input}
    missing = sorted(name for name, tensor in inputs.items() if name not in sample.inputs and not tensor.optional)
    if missing:
        yield Broken(
            field=f"{field}.inputs",
            rule=f"{', '.join(missing)} missing: the sample fails and the model never becomes ready",
            mend="give every input",
        )
    for name in sorted(sample.inputs):
        if inputs and name not in inputs and not config.HasField("sequence_batching"):
            yield Broken(
                field=f"{field}.inputs.{name}", rule="no such input", mend=f"inputs are {', '.join(sorted(inputs))}"
            )
        else:
            yield from _tensor(f"{field}.inputs.{name}", sample.inputs[name], inputs.get(name))


def _tensor(field: str, tensor: Any, declared: Any) -> Iterator[Broken]:
    if any(size < 1 for size in tensor.dims):
        yield Broken(
            field=f"{field}.dims", rule=f"{list(tensor.dims)} is not concrete; refused", mend="write sizes from 1"
        )
    if tensor.WhichOneof("input_data_type") is None:
        yield Broken(field=field, rule="says no data; refused", mend="write zero_data: true, or input_data_file")
    if tensor.random_data:
        yield Broken(
            field=f"{field}.random_data",
            rule="raw random bytes: NaN and infinity in floats, ids out of range in integers",
            mend="write zero_data: true, or input_data_file",
            severity="warning",
        )
    if declared is None:
        return
    if tensor.data_type != declared.data_type:
        yield Broken(field=f"{field}.data_type", rule="differs from the input's", mend="write the input's data type")
    fits = len(tensor.dims) == len(declared.dims) and all(
        own in (-1, size) for own, size in zip(declared.dims, tensor.dims, strict=True)
    )
    if not fits:
        yield Broken(
            field=f"{field}.dims",
            rule=f"{list(tensor.dims)} does not fit {list(declared.dims)} (without the batch axis)",
            mend="keep the fixed sizes, fill in the others, leave the batch out",
        )


def _cache(config: Any) -> Iterator[Broken]:
    if config.HasField("sequence_batching") or config.model_transaction_policy.decoupled:
        yield Broken(
            field="response_cache",
            rule="Triton refuses the cache for sequences and for decoupled models",
            mend="drop one of the two",
        )
    free = [tensor.name for tensor in config.input if -1 in tensor.dims]
    if free:
        yield Broken(
            field="response_cache",
            rule=f"the shape of {', '.join(free)} may vary and the cache's key leaves shapes out: a request can get "
            "another's answer",
            mend="drop it, and cache under a full key before or inside the model",
        )
    if len(config.output) > 1:
        yield Broken(
            field="response_cache",
            rule=f"{len(config.output)} outputs, and the cache's key leaves out which were asked for",
            mend="drop it, and cache under a full key before or inside the model",
        )
    yield Broken(
        field="response_cache",
        rule="without effect unless the server is started with --cache-config; never load other bytes under the same "
        "version number, the old answers would stay",
        mend="start it so, as seatrial up does, and give every change a version of its own; whether it pays is told by "
        "seatrial switch MODEL",
        severity="warning",
    )
