"""What README shows, printed afresh; with --write also put between README's markers.

python benchmarks/readme.py                        the plan on its first screen, a few seconds
python benchmarks/readme.py plan measured --write  the table of benchmarks/run.py too, minutes

A block stands between `<!-- block: NAME -->` and `<!-- end of block -->`, and nothing between them is written by hand.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from blocks import END, read_block, start_of, write_block

__all__ = ["END", "plan_block", "read_block", "shorten", "write_block"]

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

MODEL, GPUS = "llama-70b", 64
"""What `make plan` plans."""

SHOWN = ("Layout", "Step time", "Where the time goes", "How sure")
"""Sections of the report that README keeps, by how they start; the rest is one line of dots."""

DROPPED = ("  plan predict ", "  (the command ")
"""Lines inside them that it leaves out: the layout as one long command."""


def plan_block() -> str:
    """The report of ``plan --model llama-70b --gpus 64`` from the catalog alone, shortened to SHOWN."""
    from planner.report.console import WIDTH, ReportConsole
    from planner.report.plan import print_plan
    from planner.request import build_request
    from planner.search import find_plan

    page = io.StringIO()
    console = ReportConsole(file=page, width=WIDTH, highlight=False, emoji=False, soft_wrap=False)
    print_plan(find_plan(build_request(MODEL, GPUS, calibration="none")), console)
    return shorten(page.getvalue())


def shorten(report: str) -> str:
    """The question, then the sections that SHOWN names; a line of dots for each run of others."""
    question, *sections = report.rstrip().split("\n\n")
    kept = [question]
    for section in sections:
        if section.startswith(SHOWN):
            kept.append("\n".join(line.rstrip() for line in section.splitlines() if not line.startswith(DROPPED)))
        elif kept[-1] != "…":
            kept.append("…")
    return "\n\n".join(kept)


def measured_block(calibration: str | None) -> str:
    """The table of ``benchmarks/run.py``."""
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py")]
    chosen = ["--calibration", calibration] if calibration else []
    done = subprocess.run([*command, *chosen], stdout=subprocess.PIPE, text=True, check=True)
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("blocks", nargs="*", metavar="BLOCK", help="plan (default), measured")
    parser.add_argument("--write", action="store_true", help="put them into README.md")
    parser.add_argument("--calibration", metavar="FILE|none", help="for measured; default: the one in the cache")
    options = parser.parse_args(arguments)
    makers: dict[str, Callable[[], str]] = {
        "plan": plan_block,
        "measured": lambda: measured_block(options.calibration),
    }
    for name in options.blocks:
        if name not in makers:
            parser.error(f"{name}: no block has that name; there are {', '.join(makers)}")

    text = README.read_text(encoding="utf-8") if options.write else ""
    for name in options.blocks or ["plan"]:
        block = makers[name]()
        print(f"{start_of(name)}\n{block}\n")
        if options.write:
            text = write_block(text, name, block)
    if options.write:
        from planner.cli.files import write_file

        write_file(README, text)


if __name__ == "__main__":
    main()
