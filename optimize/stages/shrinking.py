"""Shrinking: one step of removal at a time, by heads and columns where there is attention, by channels elsewhere."""

import torch
from torch.nn import functional

from ..artifact import Artifact
from ..errors import StageError
from ..pruning.on_attention import Units, find_units, has_attention, prune_units
from ..pruning.on_channels import multiple_of, prune_channels, removable
from ..pruning.on_flow import Group
from ..pruning.widths import WidthReduction
from ..recipe.configs import PruneConfig
from ..samples import Samples
from ..sessions.on_torch import call, outputs_of

_TAYLOR_BATCH, _TAYLOR_BATCHES = 64, 8


class Shrinker:
    """Removes from `module`, in place, up to `ratio` in `steps`; a ratio of None stands for the configuration's own."""

    def __init__(
        self,
        config: PruneConfig,
        module: torch.nn.Module,
        parent: Artifact,
        samples: Samples,
        *,
        ratio: float | None,
        steps: int,
        groups: tuple[Group, ...] = (),
    ) -> None:
        self._config, self._module, self._samples, self._steps = config, module, samples, steps
        self._outputs = tuple(spec.name for spec in parent.outputs)
        self._tensors = {name: torch.from_numpy(array) for name, array in samples.take(2).inputs.items()}
        self._done = 0
        self._known = groups  # of the same module, found before: tracing takes longer than a cut
        self._by_units = config.heads is not None or config.ffn is not None or has_attention(module)
        self._heads = config.heads if config.heads is not None else ratio
        self._ffn = config.ffn if config.ffn is not None else ratio
        self._counts: dict[str, int] = {}
        for parameter in module.parameters():
            parameter.requires_grad_(True)

    def widths(self) -> list[tuple[int, int]]:
        """Width and multiple of everything that a ratio would change."""
        if not self._by_units:
            round_to = self._config.round_to
            return [(group.count, multiple_of(group, round_to)) for group in self._groups()]
        heads, columns = self._units()
        return [(unit.count, 1) for unit in heads] + [(unit.count, self._config.round_to) for unit in columns]

    def step(self) -> None:
        """Remove one step's share.

        Raises:
            StageError: the module has nothing of what was asked for, or cannot lose it.
        """
        self._done += 1
        if self._heads is None and self._ffn is None:
            return
        if self._config.importance == "taylor":
            self._gradients()
        if self._by_units:
            self._step_units()
        else:
            self._step_channels()
        self._known = ()
        self._module.zero_grad(set_to_none=True)

    def groups(self) -> tuple[Group, ...]:
        """Groups of channels that may go; none where units are heads and columns."""
        return () if self._by_units else self._groups()

    def _groups(self) -> tuple[Group, ...]:
        if not self._known:
            self._known = removable(self._module, self._tensors, self._outputs, self._config.keep)
        return self._known

    def _step_channels(self) -> None:
        groups = self._groups()
        for group in groups:
            self._counts.setdefault(group.name, group.count)
        prune_channels(
            self._module,
            groups,
            self._reduction(self._heads or 0.0, self._config.round_to),
            importance=self._config.importance,
            tensors=self._tensors,
            outputs=self._outputs,
        )

    def _reduction(self, share: float, multiple: int) -> WidthReduction:
        """The part of a whole share that is due after this step."""
        due = share * self._done / self._steps
        return WidthReduction(share=due, original=self._counts, multiple=multiple, scope=self._config.scope)

    def _units(self) -> tuple[tuple[Units, ...], tuple[Units, ...]]:
        heads = self._config.ffn is None or self._config.heads is not None
        return find_units(self._module, self._tensors, self._config.keep, heads=heads)

    def _step_units(self) -> None:
        config = self._config
        if config.importance == "bn":
            raise StageError(
                "importance bn does not apply to heads", next_step='use importance = "magnitude" or "taylor"'
            )
        heads, columns = self._units()
        for share, units, multiple in ((self._heads, heads, 1), (self._ffn, columns, config.round_to)):
            if share is None:
                continue
            for unit in units:
                self._counts.setdefault(unit.name, unit.count)
            prune_units(
                self._module,
                units,
                self._reduction(share, multiple),
                importance=config.importance,
                tensors=self._tensors,
                outputs=self._outputs,
            )
        if (config.heads and not heads) or (config.ffn and not columns) or not (heads or columns):
            raise StageError(
                f"found {len(heads)} attention blocks and {len(columns)} feed-forward pairs, fewer kinds than named",
                next_step="remove the key for the missing kind from this stage, or narrow keep",
            )

    def _gradients(self) -> None:
        """Gradients of the loss against labels, summed over training batches; the teacher's own answers give none.

        Raises:
            StageError: the labels are no classes of the first output.
        """
        labels = self._samples.labels
        self._module.eval()
        for batch in self._samples.take(_TAYLOR_BATCH * _TAYLOR_BATCHES).batches(_TAYLOR_BATCH):
            tensors = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
            result = outputs_of(call(self._module, tensors), self._outputs)[self._outputs[0]]
            if labels is None or labels.dtype.kind not in "iu" or labels.ndim != 1 or result.ndim != 2:
                raise StageError("importance taylor needs labels that are classes", next_step='use "magnitude"')
            assert batch.labels is not None
            functional.cross_entropy(result, torch.from_numpy(batch.labels.astype("int64"))).backward()  # type: ignore[no-untyped-call]
