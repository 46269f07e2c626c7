"""What the certificate claims, checked: answers against exhaustive search, bounds against simulated layouts.

python benchmarks/proof.py                                         200 instances, 10,000 layouts
python benchmarks/proof.py --gap 0 --layouts 0                     every search to the end: all answers equal
python benchmarks/proof.py --instances 50 --layouts 0 --any-mix    also what any mix of policies would gain

Instances are small and drawn at random, every kind of choice among them (tests/planner/search/drawn_instances.py). The
answer is held against every layout, every split and every mix of policies (tests/planner/search/exhaustive.py). Exit
status 1 on any violation.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

OF_AN_INSTANCE = 50
"""Layouts that are drawn from one instance's space, at most."""

EQUAL = 1e-6
"""Times that differ by less are equal: a solver stops at such tolerances."""


def check_answers(count: int, seed: int, any_mix: bool, gap: float | None) -> list[Any]:
    """Instances one after another, those that are too large to try everything left out; each asks for ``gap``, or for
    one that was drawn."""
    from drawn_instances import draw_instance
    from exhaustive import TooLarge
    from proof_checks import check_answer

    found: list[Any] = []
    asked = {} if gap is None else {"gap": gap}
    for at in _numbers(seed):
        if len(found) == count:
            break
        try:
            found.append(check_answer(draw_instance(at, **asked), any_mix))
        except TooLarge:
            continue
        _show(f"instance {len(found)} of {count}")
    return found


def check_bounds(count: int, seed: int) -> list[Any]:
    from drawn_instances import draw_instance
    from proof_checks import check_layouts

    found: list[Any] = []
    for at in _numbers(seed):
        if len(found) >= count:
            break
        found += check_layouts(draw_instance(at, cut=False), min(OF_AN_INSTANCE, count - len(found)))
        _show(f"layout {len(found)} of {count}")
    return found


def _numbers(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1


def _show(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text} ", end="", file=sys.stderr, flush=True)


def print_answers(answers: Sequence[Any]) -> None:
    print(f"\n{'instances':<20}{'':>6}{'layouts':>9}{'no layout fits':>16}{'equal':>7}{'excess':>9}{'gap':>8}")
    for kind in dict.fromkeys(one.instance.kind for one in answers):
        _print_row(kind, [one for one in answers if one.instance.kind == kind])
    _print_row("all", answers)
    print("equal: to the optimum; excess: the largest over it; gap: the largest claimed")
    statuses = Counter(one.status for one in answers)
    print(f"status: {', '.join(f'{count} {status}' for status, count in statuses.most_common())}")
    exact = [one for one in answers if one.best_s < float("inf") and one.instance.request.gap == 0.0]
    proven = sum(one.status == "proven" for one in exact)
    print(f"--gap 0: {len(exact)}, proven {proven}, equal {sum(one.excess < EQUAL for one in exact)}")
    mixed = [one for one in answers if one.any_mix_s is not None and one.any_mix_s < float("inf")]
    if mixed:
        gains = [1.0 - one.any_mix_s / one.best_s for one in mixed]
        better = sum(gain > EQUAL for gain in gains)
        print(f"any mix of policies a stage: tried on {len(mixed)}, faster on {better}, by {max(gains):.2%} at most")


def _print_row(name: str, answers: Sequence[Any]) -> None:
    fits = [one for one in answers if one.best_s < float("inf")]
    print(
        f"{name:<20}{len(answers):>6}{sum(one.layouts for one in answers):>9}{len(answers) - len(fits):>16}"
        f"{sum(one.excess < EQUAL for one in fits):>7}{max((one.excess for one in fits), default=0.0):>9.2%}"
        f"{max((one.gap for one in fits), default=0.0):>8.2%}"
    )


def print_bounds(checked: Sequence[Any]) -> None:
    import numpy as np

    print(f"\n{'bounds':<20}{'layouts':>9}{'violations':>12}{'median':>9}{'10th':>8}  of bound / simulated")
    for name, part in (("time floor", "floor"), ("tight bound", "tight"), ("memory floor", "memory")):
        # Of stages whose lengths are given there is no tight bound.
        shares = np.array([getattr(one, part) for one in checked])
        shares = shares[shares > 0.0]
        wrong = sum(name in one.wrong for one in checked)
        median, tenth = np.quantile(shares, (0.5, 0.1))
        print(f"{name:<20}{len(shares):>9}{wrong:>12}{median:>9.1%}{tenth:>8.1%}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=200, help="searches held against trying everything")
    parser.add_argument("--layouts", type=int, default=10000, help="layouts whose bounds are held against simulation")
    parser.add_argument("--seed", type=int, default=0, help="of the first instance (default 0)")
    parser.add_argument("--gap", type=float, help="of every search (default: as drawn)")
    parser.add_argument("--any-mix", action="store_true", help="try slower mixes of policies on each stage, too")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT / "tests" / "planner" / "search"))
    began, wrong = time.perf_counter(), []
    if options.instances:
        answers = check_answers(options.instances, options.seed, options.any_mix, options.gap)
        print_answers(answers)
        wrong += [(one.instance, one.wrong, f"{one.step_s} s, best {one.best_s} s") for one in answers if one.wrong]
    if options.layouts:
        checked = check_bounds(options.layouts, options.seed)
        print_bounds(checked)
        wrong += [(one.instance, one.wrong, one.said) for one in checked if one.wrong]
    for instance, rules, said in wrong:
        print(f"seed {instance.seed}, {instance.kind}: {', '.join(rules)}; {said}")
    print(f"\n{len(wrong)} violations, {time.perf_counter() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
