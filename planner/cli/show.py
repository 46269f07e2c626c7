"""``plan show``: read a plan."""

from __future__ import annotations

from planner.cli import options


def show(plan: options.PlanFile, explain: options.Explain = False, json: options.Json = False) -> None:
    """Read a plan file, or what plan --lengths wrote, and print its report."""
    from planner.cli.answer import deliver
    from planner.cli.files import plan_from, read_json
    from planner.cli.lengths import deliver_lengths, lengths_from

    data = read_json(plan)
    lengths = lengths_from(data, plan)
    if lengths is not None:
        deliver_lengths(lengths, out=None, json=json)
        return
    deliver(plan_from(data, plan), explain=explain, out=None, json=json)
