"""Cases of servers, load and statistics that once went wrong: the tests that hold the right value of each, run by case.

A case's folder has a name beginning with its number; a case without an entry here counts as wrong.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as Xml
from collections.abc import Iterator, Mapping
from pathlib import Path

_ENSEMBLES, _SERVER = "tests/serve/triton/test_lint_ensemble_rules.py", "tests/serve/triton/test_lint_server_rules.py"
TESTS: Mapping[str, tuple[str, ...]] = {
    "01": (f"{_ENSEMBLES}::test_a_join_without_the_batch_axis_is_warned_of",),
    "02": (
        f"{_ENSEMBLES}::test_a_step_fits_by_its_dims_or_with_the_batch_axis",
        f"{_ENSEMBLES}::test_the_ensemble_s_own_tensors_count_with_their_reshape",
        f"{_ENSEMBLES}::test_the_dims_of_a_step_count_without_its_reshape",
        f"{_ENSEMBLES}::test_tensors_have_one_source_and_a_reader",
    ),
    "04": (f"{_SERVER}::test_what_the_server_refuses_is_an_error",),
    "06": (
        f"{_ENSEMBLES}::test_branches_of_different_decoupled_models_are_not_joined",
        f"{_ENSEMBLES}::test_tensors_have_one_source_and_a_reader",
    ),
    "07": (
        f"{_SERVER}::test_files_that_keep_a_model_from_loading_are_errors",
        f"{_SERVER}::test_files_that_the_server_takes_are_no_errors",
        f"{_SERVER}::test_what_the_server_loads_is_no_error",
        f"{_SERVER}::test_a_name_that_the_shell_reads_is_an_error",
    ),
    "10": ("tests/bench/load/test_payload.py::test_bfloat16_travels_as_rounded_bits",),
    "11": (
        "tests/bench/load/test_payload.py::"
        "test_large_samples_make_fewer_requests_and_too_large_ones_are_refused_before_anything_is_made",
    ),
    "12": (
        "tests/system/test_interrupts.py::test_a_load_over_shared_memory_that_is_ended_leaves_no_region_for_the_next",
    ),
    "13": (
        "tests/bench/verbs/test_schedules_verb.py::test_arrivals_at_one_time_are_a_schedule_of_a_second",
        "tests/bench/verbs/test_schedules_verb.py::test_a_log_of_whole_seconds_can_be_spread",
        "tests/bench/verbs/test_schedules_verb.py::test_an_option_that_belongs_to_a_law_implies_it",
        "tests/bench/load/test_validity.py::test_a_burst_is_sent_one_after_the_other_and_that_is_no_lag",
    ),
    "14": ("tests/scripts/test_closed_loop.py", "tests/bench/load/test_grpc_wire.py"),
    "15": ("tests/bench/gating/test_rounds.py::test_one_round_that_is_no_time_is_invalid",),
    "16": ("tests/bench/gating/test_exercised.py::test_batch_sizes",),
    "17": ("tests/bench/gating/test_exercised.py::test_the_class_that_lost_is_named_with_a_bound",),
    "18": ("tests/bench/gating/test_judge.py::test_false_failures_are_rare_and_regressions_do_not_slip_through",),
    "19": (
        "tests/bench/load/test_wire.py::test_replies_may_come_in_any_pieces",
        "tests/bench/load/test_wire.py::test_a_200_without_a_result_is_no_success",
        "tests/bench/load/test_wire.py::test_what_is_no_whole_reply_is_an_error",
    ),
    "20": ("tests/serve/kubernetes/test_kubernetes_render.py", "tests/serve/test_shipped.py"),
}


def run(folder: Path, only: str) -> Iterator[tuple[str, int, str]]:
    """Yield each case of the folder, how many tests of it passed, and what is wrong (empty: nothing)."""
    for case in sorted(path.parent.name for path in folder.glob("*/CASE.md")):
        if only not in f"{folder.name}/{case}":
            continue
        wanted = TESTS.get(case.partition("-")[0], ())
        yield (case, *_passed(wanted)) if wanted else (case, 0, "no test holds it")


def _passed(wanted: tuple[str, ...]) -> tuple[int, str]:
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *wanted]
        subprocess.run(call, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, capture_output=True, check=False)
        if not report.is_file():
            return 0, "pytest wrote no report"
        found = list(Xml.parse(report).getroot().iter("testcase"))
    bad = [each.get("name", "") for each in found if any(part.tag in ("failure", "error") for part in each)]
    skipped = sum(any(part.tag == "skipped" for part in each) for each in found)
    passed = len(found) - len(bad) - skipped
    missing = [name for name in wanted if not any(_belongs(each, name) for each in found)]
    fault = f"failed: {', '.join(bad)}" if bad else f"no such test: {', '.join(missing)}" if missing else ""
    return passed, fault or ("" if passed else "every test was skipped")


def _belongs(case: Xml.Element, wanted: str) -> bool:
    """Return whether a result is of the wanted file, and of the wanted function where one is named."""
    path, _, name = wanted.partition("::")
    return case.get("classname", "") == path.removesuffix(".py").replace("/", ".") and (
        not name or case.get("name", "").partition("[")[0] == name
    )
