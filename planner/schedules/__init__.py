"""The order of passes on every pipeline rank: one small generator per published schedule.

``check_schedule`` is that of ``costmodel.passes``, handed on.

May import ``costmodel`` (sizes, placement and passes); ``report`` and ``block_search`` also ``planner.simulator``.
"""

from costmodel.passes import check_schedule
from planner.schedules.kind import ScheduleKind
from planner.schedules.names import PYTORCH_NAMES, canonical_name
from planner.schedules.registry import SCHEDULES, build_schedule, supports
from planner.schedules.times import EQUAL_TIMES, PassTimes

__all__ = [
    "EQUAL_TIMES",
    "PYTORCH_NAMES",
    "SCHEDULES",
    "PassTimes",
    "ScheduleKind",
    "build_schedule",
    "canonical_name",
    "check_schedule",
    "supports",
]
