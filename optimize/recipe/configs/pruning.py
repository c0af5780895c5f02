"""Configuration of the prune stage: what to remove, and by which criterion."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from ...artifact import Format
from ...config import renamed
from ...environment import Environment
from ...errors import ConfigError
from ...samples import Split
from .teaching import Training
from .terms import OnnxEngine, Positive, Share, StageConfig

_PRUNING = (
    "ratio",
    "target_latency_ratio",
    "heads",
    "ffn",
    "layers",
    "sparsity",
)  # the kinds of units that a prune stage can remove
_APART = {
    "ratio": ("target_latency_ratio", "heads", "ffn"),
    "target_latency_ratio": ("heads", "ffn"),
    "sparsity": ("ratio", "target_latency_ratio", "heads", "ffn", "layers"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneConfig(StageConfig):
    """Make the model physically smaller in `steps`, each followed by fine-tuning on the source's outputs.

    What goes, by one of: `ratio`, a share of the channels (in a model with attention: of the heads and of the
    feed-forward columns); `target_latency_ratio`, for which the ratio is searched so that the model runs in that
    fraction of the parent's time (exported, in `engine` on `device`, one thread, batches of `latency_batch`); `heads`
    and `ffn`, shares of their own.
    `layers` drops that share of the blocks, those with the least effect, alone or before any of these.
    `sparsity` "2:4" removes nothing but sets two of four neighbouring weights to zero, for sparse tensor cores; it
    stands alone, in one step, and gains nothing on a CPU.

    `importance` ranks by weights' `magnitude`, by first-order `taylor` on labelled training batches, or by the `bn`
    scale; `scope` ranks within each layer or across all. `round_to` is the multiple that remaining channels keep,
    `keep` name globs of modules that stay as they are (the output layer is found by itself).
    """

    takes: ClassVar[Format] = "torch"
    makes: ClassVar[Format] = "torch"
    uses: ClassVar[tuple[Split, ...]] = ("train",)
    libraries: ClassVar[tuple[str, ...]] = (
        "torch",
        "numpy",
        "onnx",
        "onnxscript",
        "onnxruntime-gpu",
    )

    kind: Literal["prune"]
    ratio: Share | None = None
    target_latency_ratio: Annotated[Share | None, renamed("target_latency_ratio", old="latency")] = None
    latency_batch: Positive = 1
    engine: OnnxEngine = "onnxruntime"
    device: str = ""
    heads: Share | None = None
    ffn: Share | None = None
    layers: Share | None = None
    sparsity: Annotated[Literal["2:4"] | None, renamed("sparsity", old="pattern")] = None
    importance: Literal["magnitude", "taylor", "bn"] = "magnitude"
    scope: Literal["layer", "global"] = "layer"
    round_to: Positive = 8
    steps: Positive = 1
    keep: tuple[str, ...] = ()
    training: Training = field(default_factory=lambda: Training(epochs=2, learning_rate=2e-3))

    def depends_on(self, environment: Environment, metric: Callable[[], str]) -> str:
        """Return the machine that times, where a latency is the aim."""
        return environment.fingerprint if self.target_latency_ratio is not None else ""

    def __post_init__(self) -> None:
        given = [name for name in _PRUNING if getattr(self, name) is not None]
        if not given:
            raise ConfigError(
                "the prune stage removes nothing",
                where="prune",
                next_step=f"give one of {', '.join(_PRUNING)}",
            )
        for name, others in _APART.items():
            if name in given and (clash := [other for other in given if other in others]):
                raise ConfigError(
                    f"{name} cannot be combined with {', '.join(clash)}",
                    where=f"prune.{name}",
                    next_step="keep one of them; another prune stage may follow with the other",
                )
        if self.sparsity is not None and (self.steps > 1 or self.importance != "magnitude" or self.scope != "layer"):
            raise ConfigError(
                'sparsity allows only one step, importance "magnitude" and scope "layer"',
                where="prune.sparsity",
                next_step="remove steps, importance and scope",
            )
        if self.importance == "bn" and (self.heads is not None or self.ffn is not None):
            raise ConfigError(
                "importance bn does not apply to heads and feed-forward columns",
                where="prune.importance",
                next_step="use magnitude or taylor",
            )
        timing = {"latency_batch": self.latency_batch != 1, "engine": self.engine != "onnxruntime"}
        timing["device"] = bool(self.device)
        if self.target_latency_ratio is None and (needless := [name for name, given in timing.items() if given]):
            raise ConfigError(
                f"{needless[0]} needs target_latency_ratio",
                where=f"prune.{needless[0]}",
                next_step="give target_latency_ratio as well",
            )

    @property
    def engines(self) -> tuple[tuple[str, str], ...]:
        """The engine that times, where a latency is the aim."""
        return ((self.engine, self.device),) if self.target_latency_ratio is not None else ()
