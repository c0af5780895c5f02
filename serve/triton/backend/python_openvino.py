"""OpenVINO inside the Python backend, on the CPU.

Copied beside model.py into each placed version and run inside the server's stub process.

The precision is always stated: left alone, OpenVINO computes in bfloat16 where the processor can. Threads are not
pinned, since every process would pin its own to the same cores. With `buckets` there is one compiled model for each of
those batch sizes, and a batch is filled up to the next; without, one model takes every size. Each size runs once while
loading, because a new one costs up to a tenth of a second. Outputs are copies: OpenVINO's own are overwritten by the
next run. Inputs are held against the model first, since OpenVINO computes on some that do not fit; `axes` in the
version's record names those that inputs share.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .python_session import Array, Opening, Session, Unusable, plain

_GROUP = 128  # values that share a scale where activations are quantized at run time; as in `sessions.on_openvino`
_BF16 = ("amx_bf16", "avx512_bf16")
_WARM_SECONDS = 30.0  # at most, of running each batch size once
_INSTALL = "pip install 'seatrial[openvino]'"


class WrongInput(ValueError):
    """An input does not fit the model."""


class OpenVino(Session):
    """One ONNX file, compiled for the CPU."""

    def __init__(self, opening: Opening) -> None:
        """Compile the file, for every bucket, and run each batch size once.

        Raises:
            Unusable: openvino is missing here, the processor lacks the precision, or the model is refused.
        """
        super().__init__()
        self._largest = opening.largest
        precision = str(opening.options.get("precision", "f32"))
        openvino = _imported()
        _check_processor(precision)
        self._settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP,
            "INFERENCE_NUM_THREADS": opening.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        buckets = sorted(opening.options.get("buckets") or ())
        try:
            core = openvino.Core()
            model = core.read_model(opening.path)
            self._ports(model, opening)
            if buckets and buckets[-1] < opening.largest:  # the configuration is that of all versions of the model
                buckets.append(opening.largest)
            self._requests = {size: self._compiled(core, opening.path, size) for size in buckets or (0,)}
        except Unusable:
            raise
        except Exception as error:  # OpenVINO raises RuntimeError and types of its own that share no base
            raise Unusable(f"{opening.file} cannot be loaded by OpenVINO: {plain(_told(error))}") from error
        self._warm(opening)

    def infer(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Array]:
        """Run once, in the smallest bucket that holds the rows; returns copies."""
        rows = self._checked(feed)
        size = next((bucket for bucket in self._requests if bucket >= rows), 0)
        request = self._requests[size]
        given = {self._inputs[name]: _filled(array, size) if size > rows else array for name, array in feed.items()}
        try:
            request.infer(given, share_inputs=True, share_outputs=True)
        except Exception as error:  # see above
            raise RuntimeError(str(_told(error))) from error
        found = (request.get_output_tensor(self._outputs[name]).data for name in names)
        return [np.array(array[:rows] if size > rows else array) for array in found]

    def caused_by_input(self, error: Exception) -> bool:
        """Return whether an input did not fit."""
        return isinstance(error, WrongInput) or super().caused_by_input(error)

    def _ports(self, model: Any, opening: Opening) -> None:
        """Note the model's tensors: names, places, types, and axes that must be of one size."""
        self.inputs = [_name(port, opening.inputs) for port in model.inputs]
        self.outputs = [_name(port, opening.outputs) for port in model.outputs]
        self._inputs = {name: place for place, name in enumerate(self.inputs)}
        self._outputs = {name: place for place, name in enumerate(self.outputs)}
        self._types = {
            name: np.dtype(port.get_element_type().to_dtype())
            for name, port in zip(self.inputs, model.inputs, strict=True)
        }
        self._named: Mapping[str, Sequence[str | None]] = opening.options.get("axes") or {}
        self._axes = {name: list(port.partial_shape) for name, port in zip(self.inputs, model.inputs, strict=True)}
        self.scalars = {name for name, axes in self._axes.items() if not axes}

    def _compiled(self, core: Any, path: str, size: int) -> Any:
        """Return a request of the model for batches of `size`; 0 leaves the batch free."""
        model = core.read_model(path)
        if size:
            shapes = [port.partial_shape for port in model.inputs]
            for each in shapes:
                each[0] = size
            model.reshape(dict(zip(range(len(shapes)), shapes, strict=True)))
        compiled = core.compile_model(model, "CPU", self._settings)
        wanted = self._settings["INFERENCE_PRECISION_HINT"]
        got = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if got != wanted:
            raise Unusable(f"OpenVINO computes in {got} here, not in {wanted} as the version asks for")
        return compiled.create_infer_request()

    def _checked(self, feed: Mapping[str, Any]) -> int:
        """Hold the arrays against the model; returns the rows of the batch."""
        sizes: dict[str, int] = {}
        for name, axes in self._axes.items():
            array = feed[name]
            fits = array.dtype == self._types[name] and array.ndim == len(axes)
            named = self._named.get(name) or [None] * len(axes)
            for axis, size, same in zip(axes, array.shape, named, strict=False):
                fits = fits and (not axis.is_static or axis.get_length() == size)
                if same is not None and sizes.setdefault(same, size) != size:
                    raise WrongInput(f"input {name} has {size} along {same}, another input has {sizes[same]}")
            if not fits:
                wanted = f"{self._types[name]}[{', '.join(str(axis) for axis in axes)}]"
                raise WrongInput(f"input {name} is {array.dtype}{list(array.shape)}, not {wanted}")
        first = next(iter(feed.values()))
        return int(first.shape[0]) if first.ndim else 1

    def _warm(self, opening: Opening) -> None:
        """Run each batch size once on zeros, largest first, as long as that takes no more than the limit."""
        if not opening.largest:
            return
        buckets = [size for size in self._requests if size]
        sizes = buckets or list(range(1, opening.largest + 1))
        began, done = time.monotonic(), 0
        for size in reversed(sizes):
            if time.monotonic() - began > _WARM_SECONDS:
                break
            for feed in self._zeros(size, opening.shapes):
                self.infer(self.outputs[:1], feed)
            done += 1
        if done < len(sizes):
            self.notes.append(
                f"only {done} of {len(sizes)} batch sizes ran once within {_WARM_SECONDS:.0f} s: the first request of "
                "each other size is slower; set buckets in the deployment's [engine], or a smaller max_batch_size"
            )

    def _zeros(self, rows: int, shapes: Sequence[Mapping[str, Sequence[int]]]) -> Iterator[dict[str, Array]]:
        """Yield inputs of zeros, for each set of warm-up shapes; none where a free axis has no size to warm with."""
        for given in shapes or ({},):
            feed = {}
            for name, axes in self._axes.items():
                own = [axis.get_length() if axis.is_static else -1 for axis in axes[1:]]
                items = [size if size >= 0 else wanted for size, wanted in zip(own, given.get(name, own), strict=True)]
                if min(items, default=0) < 0:
                    return
                feed[name] = np.zeros((rows, *items), self._types[name])
            yield feed


def _imported() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise Unusable(
            f"the server's Python cannot import openvino ({plain(error)}); install it there: {_INSTALL}"
        ) from error
    return openvino


def _check_processor(precision: str) -> None:
    """Refuse bfloat16 where the processor has no instructions for it: OpenVINO would be many times slower."""
    if precision != "bf16":
        return
    try:
        with open("/proc/cpuinfo") as stream:
            flags = next((line for line in stream if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        flags = []
    if not set(_BF16) & set(flags):
        raise Unusable(f"precision bf16 needs a processor with {' or '.join(_BF16)}, which this one lacks")


def _name(port: Any, wanted: Sequence[str]) -> str:
    """Return a tensor's name: of several, the one that the configuration has."""
    names: set[str] = port.get_names()
    return next((name for name in wanted if name in names), "") or str(port.get_any_name())


def _filled(array: Array, size: int) -> Array:
    """Return the rows with the last one repeated up to `size`."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _told(error: Exception) -> Exception:
    """Return the error with the line that says what is wrong: those before it name OpenVINO's own files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ValueError(next((line for line in lines if not line.startswith(("Exception from", "Check "))), "refused"))
