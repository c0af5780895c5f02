"""Every row of floor 1's benchmark, from all topics. Measures nothing itself."""

import sys

from scripts.benchmarks import (
    bench_capacity,
    bench_gate,
    bench_load,
    bench_measure,
    bench_quality,
    bench_reports,
)
from scripts.benchmarks.rows import Rows, main

ROWS: Rows = {
    **bench_gate.ROWS,
    **bench_load.ROWS,
    **bench_measure.ROWS,
    **bench_capacity.ROWS,
    **bench_quality.ROWS,
    **bench_reports.ROWS,
}

if __name__ == "__main__":
    sys.exit(main("Measure the claims of the measuring floor.", ROWS))
