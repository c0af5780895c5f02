"""Figures of one candidate that is compared whole: its outputs against fp32's, and its time beside fp32's.

Fp32 is the source in float32 in ONNX Runtime on the CPU; the candidate runs in its own engine. Every figure is
remembered under what it depends on, so that a search that is run again measures only what is new.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..artifact import Artifact, canonical, digest_bytes
from ..environment import environment
from ..parity.signal import SignalToNoise
from ..quality import metric
from ..reading import decode
from ..recipe.data import Data
from ..recipe.recipe import Recipe
from ..record import as_json
from ..samples import Samples
from ..sessions.answers import part_of, parts
from ..sessions.choice import OWN, EngineChoice
from ..sessions.engine import Opened, RanOn
from ..sessions.session import Session, open_artifact, open_session
from ..store import Store
from ..timing.pace import LatencyRatio, pace

PAIRS, PAIRS_AGAIN = 12, 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Mean quality of fp32 and of a candidate over the evaluation samples, and signal to noise of their outputs, dB."""

    reference: float
    quality: float
    snr: float
    ran_on: RanOn


@dataclass(slots=True, kw_only=True)
class Comparison:
    """The reference of a search, open, and what is measured against it at `batch` samples."""

    recipe: Recipe
    store: Store
    data: Data
    reference: Artifact
    batch: int
    _single: Opened | None = field(default=None, init=False)
    _whole: Session | None = field(default=None, init=False)

    def kept(self, artifact: Artifact, choice: EngineChoice) -> Kept:
        """Return what a candidate keeps of fp32's outputs in its engine.

        Raises:
            ContractError, StageError: it does not run here, or gives other outputs.
        """
        key = self._key(artifact, choice, metric=self._metric())
        if (known := self.store.recall_as("candidates", key, lambda note: decode(Kept, note, where=""))) is not None:
            return known
        opened = open_artifact(artifact, self.store, threads=environment().cores, choice=choice)
        found = self._held(artifact, opened)
        self.store.remember("candidates", key, as_json(found))
        return found

    def time(self, artifact: Artifact, choice: EngineChoice, *, pairs: int = PAIRS) -> LatencyRatio:
        """Return a candidate's time over fp32's, one thread each, interleaved.

        Raises:
            ContractError, StageError: it does not run here.
        """
        key = self._key(artifact, choice, batch=self.batch, pairs=pairs)
        if (known := self.store.recall_as("pace", key, lambda note: decode(LatencyRatio, note, where=""))) is not None:
            return known
        candidate = open_session(artifact, self.store, threads=1, choice=choice)
        found = pace(self.single.session, candidate, self._samples(), batch=self.batch, pairs=pairs)
        self.store.remember("pace", key, as_json(found))
        return found

    @property
    def single(self) -> Opened:
        """Fp32 on one thread, opened once."""
        if self._single is None:
            self._single = open_artifact(self.reference, self.store, threads=1, choice=OWN)
        return self._single

    def _held(self, artifact: Artifact, opened: Opened) -> Kept:
        if self._whole is None:
            self._whole = open_session(self.reference, self.store, threads=environment().cores, choice=OWN)
        samples, score, signal = self._samples(), metric(self.recipe), SignalToNoise()
        before, after = [], []
        one = parts(self._whole, self.reference.inputs, samples.inputs, outputs=self.reference.outputs)
        other = parts(opened.session, artifact.inputs, samples.inputs, outputs=self.reference.outputs)
        for (which, expected), (_, got) in zip(one, other, strict=True):
            signal.add(expected, got)
            labels = part_of(samples, which)
            before.append(score(expected, labels))
            after.append(score(got, labels))
        return Kept(
            reference=float(np.concatenate(before).mean()),
            quality=float(np.concatenate(after).mean()),
            snr=signal.decibels,
            ran_on=opened.ran_on,
        )

    def _samples(self) -> Samples:
        return self.data.samples("evaluation")

    def _metric(self) -> dict[str, Any]:
        name = self.recipe.metric.name
        code = self.recipe.reference(name).digest if ":" in name else ""
        return {"metric": as_json(self.recipe.metric), "code": code}

    def _key(self, artifact: Artifact, choice: EngineChoice, **more: Any) -> str:
        chosen = choice.of(artifact.format)
        whole = {
            "schema": 1,
            "reference": self.reference.digest,
            "candidate": artifact.digest,
            "engine": [chosen.engine, chosen.device],
            "samples": self.data.digest("evaluation"),
            "machine": environment().fingerprint,
        }
        return digest_bytes(canonical(whole | more))
