"""Timing: how fast a module of this stage will be, against the stage's parent, in the engine that will run it.

Both are exported by the export stage and opened in the engine that is named, on one thread; a candidate is a real
artifact in a store of its own inside the stage's folder, so measuring it also proves that it can be opened again.
"""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..artifact import Artifact, File
from ..recipe.configs import ExportConfig
from ..samples import Samples
from ..sessions.on_torch import Architecture, save_module
from ..sessions.session import open_onnx
from ..store import Store
from ..timing.pace import LatencyRatio, pace
from . import export
from .stage import Context


class Stopwatch:
    """Times candidates against one parent; `batch` rows of `samples` per call. `ran_on` says what both ran on."""

    def __init__(
        self,
        parent: Artifact,
        context: Context,
        samples: Samples,
        *,
        batch: int,
        engine: str = "",
        device: str = "",
    ) -> None:
        self._parent = parent
        self._context = replace(context, progress=lambda share, text: None)
        self._samples = samples
        self._batch = batch
        self._folder = context.folder / "timing"
        self._open = partial(open_onnx, threads=1, engine=engine, device=device)
        reference = self._open(self.export(parent, context.store, "parent"))
        self._reference, self.ran_on = reference.session, reference.ran_on

    def export(self, artifact: Artifact, store: Store, name: str) -> Path:
        """The artifact as an ONNX file in the stage's folder."""
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        export.run(ExportConfig(kind="export"), artifact, replace(self._context, store=store, folder=folder))
        return folder / export.FILE

    def time(
        self, module: torch.nn.Module, architecture: Architecture, source: Path | None, *, pairs: int
    ) -> LatencyRatio:
        """Export a candidate and time it in interleaved pairs."""
        session = self._open(self.candidate(module, architecture, source)).session
        return pace(self._reference, session, self._samples, batch=self._batch, pairs=pairs)

    def candidate(self, module: torch.nn.Module, architecture: Architecture, source: Path | None) -> Path:
        """A module as the ONNX file that exporting its artifact will give."""
        store = Store(self._folder / "store")
        files = self._folder / "files"
        files.mkdir(parents=True, exist_ok=True)
        names = save_module(module, architecture, source, files)
        made = replace(self._parent, files=tuple(File.of(files / name, name) for name in names))
        return self.export(store.put(made, files), store, "candidate")

    def close(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._folder, ignore_errors=True)
