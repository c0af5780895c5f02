"""The sections of scripts/gpu in their order: module, the most seconds that each may take, and its subject."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section; `module` has a function ``run(place)`` that returns a `record.Found`."""

    name: str
    module: str
    seconds: float
    about: str

    @property
    def path(self) -> str:
        """The module's full name."""
        return f"scripts.gpu_sections.{self.module}"


SECTIONS = (
    Section(name="environment", module="machine", seconds=60, about="GPUs, driver, CUDA, cuDNN, libraries, settings"),
    Section(name="ceilings", module="ceilings", seconds=90, about="copy bandwidth and 8192 x 8192 x 8192 products"),
    Section(name="tests", module="suite", seconds=420, about="tests/gpu, each test by name"),
    Section(name="sessions", module="engines", seconds=240, about="every engine that opens, against float64"),
    Section(name="precision", module="precision", seconds=240, about="fp32 to fp8 and 2:4: time, error, fallbacks"),
    Section(name="latency", module="latency", seconds=420, about="batches 1 to 256, events and wall time, A/A first"),
    Section(name="memory", module="memory", seconds=60, about="the driver's bytes against the allocator's"),
    Section(name="energy", module="energy", seconds=150, about="the energy counter against the integral of power"),
    Section(
        name="training", module="training", seconds=240, about="distill and QAT on CPU and GPU, NCCL with one worker"
    ),
)
BY_NAME = {section.name: section for section in SECTIONS}
