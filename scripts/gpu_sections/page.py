"""The section "On a GPU" of docs/benchmarks.md, written from a record: no figure there is typed by hand.

Standard library alone. Without a record in docs/records it says that nothing ran.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.gpu_sections.record import read

ROOT = Path(__file__).parents[2]
RECORDS, PAGE = ROOT / "docs" / "records", ROOT / "docs" / "benchmarks.md"
HEAD = "## On a GPU\n"
_SECTION = re.compile(r"^## On a GPU\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
NOTHING = """\
Nothing here has been run on a GPU or against a real TensorRT yet. `scripts/gpu --out FILE` runs all that needs one, by
one command and without a network; `scripts/benchmark-gpu --from FILE --markdown` writes this section from its record.
"""
_SIGNS = {True: "met", False: "missed", None: "could not tell"}


def main(words: list[str] | None = None) -> int:
    """Print the section, or write it into the page; 2 where the record cannot be used."""
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark-gpu", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--from", dest="file", type=Path, metavar="FILE", help="a record (default: the newest)")
    parser.add_argument("--markdown", action="store_true", help="write the section into docs/benchmarks.md")
    given = parser.parse_args(words)
    file = given.file or newest(RECORDS)
    try:
        text = section(read(file), file.name) if file is not None else f"{HEAD}\n{NOTHING}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        print(
            f"{file}: the record cannot be used: {error}. Next: make one with scripts/gpu --out FILE.", file=sys.stderr
        )
        return 2
    if given.markdown:
        PAGE.write_text(put(PAGE.read_text(), text))
    else:
        print(text, end="")
    return 0


def newest(folder: Path) -> Path | None:
    """The record that was made last; None where there is none."""
    files = sorted(folder.glob("gpu-*.json"), key=lambda path: (read(path)["at"], path.name))
    return files[-1] if files else None


def put(page: str, text: str) -> str:
    """Return the page with this section in the place of the one that it has, or at its end."""
    if not _SECTION.search(page):
        return f"{page.rstrip()}\n\n{text}"
    return _SECTION.sub(lambda found: text + ("\n" if found.end() < len(page) else ""), page)


def section(record: Mapping[str, Any], name: str) -> str:
    """The section of one record whose file is called `name`."""
    environment = record["environment"]
    gpu, torch = environment["gpus"][0], environment["torch"]
    count = f"{len(environment['gpus'])} × " if len(environment["gpus"]) > 1 else ""
    lines = [
        HEAD,
        f"`scripts/gpu`, {record['at'][:10]}, {count}{gpu['name']}, driver {gpu['driver_version']}, compute capability "
        f"{gpu['compute_cap']}, power limit {gpu['enforced.power.limit']} W; Python {environment['python']}, torch "
        f"{torch['version']} (CUDA {torch['cuda']}, cuDNN {torch['cudnn']}); commit "
        f"{environment['commit'] or 'unknown'}. Written from docs/records/{name}. {_ended(record)}\n",
        "| section | claim | measured | bar | |",
        "|---|---|---|---|---|",
    ]
    for title, found in record["sections"].items():
        lines += [
            f"| {title} | {_cell(claim['claim'])} | {_cell(claim['value'] or claim['why'])} | {_cell(claim['bar'])} | "
            f"{_SIGNS[claim['met']]} |"
            for claim in found["claims"]
        ]
        if found["status"] != "done":
            lines.append(f"| {title} | | {found['status']}: {_cell(found['reason'])[:200]} | | could not tell |")
    lines += ["", *_latencies(record["sections"].get("latency", {}).get("rows", ()))]
    return "\n".join(lines).rstrip() + "\n"


def _ended(record: Mapping[str, Any]) -> str:
    if not record["finished"]:
        return "The run was broken off."
    return {0: "Every bar was met.", 1: "Bars were missed.", 3: "Some could not be told."}.get(record["exit_code"], "")


def _latencies(rows: Any) -> list[str]:
    """A table of device and wall times by batch, where they were measured."""
    known = [row for row in rows if "device_seconds" in row]
    if not known:
        return []
    table = ["| network | way | batch | device | wall |", "|---|---|---|---|---|"]
    return table + [
        f"| {row['what']} | {row['way']} | {row['batch']} | {row['device_seconds'] * 1e3:.3f} ms | "
        f"{row['wall_seconds'] * 1e3:.3f} ms |"
        for row in known
    ]


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "/").split())


if __name__ == "__main__":
    sys.exit(main())
