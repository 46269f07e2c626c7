"""The order of passes on every pipeline rank: one small generator per published schedule, and one validator for any.

May import ``costmodel.schema``; ``report`` also ``planner.simulator``.
"""

from planner.schedules.kind import ScheduleKind
from planner.schedules.names import PYTORCH_NAMES, canonical_name
from planner.schedules.registry import SCHEDULES, build_schedule, supports
from planner.schedules.validator import check_schedule

__all__ = [
    "PYTORCH_NAMES",
    "SCHEDULES",
    "ScheduleKind",
    "build_schedule",
    "canonical_name",
    "check_schedule",
    "supports",
]
