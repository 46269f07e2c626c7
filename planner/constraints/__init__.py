"""What the user takes out of the search's hands: values pinned and limited, techniques forbidden and allowed.

``keys`` is the table of what can be pinned, ``techniques`` of what has a name; ``read`` makes Constraints of words and
files, ``check`` holds them against everything else, ``rows`` applies them to a space. May import ``costmodel`` and
``planner.schedules``; ``check`` asks ``planner.search.space`` what degrees must divide.
"""

from planner.constraints.check import check_agreement, check_request, check_runtime, check_world
from planner.constraints.keys import KEYS, WORLD, Key
from planner.constraints.limits import LayerPin, Limit
from planner.constraints.pinned import Pinned
from planner.constraints.read import Constraints, read_constraints
from planner.constraints.techniques import ALLOWABLE, FORBIDDABLE
from planner.constraints.values import NAMED_ORDERS, SYNTHESIZED, schedule_name, shown

__all__ = [
    "ALLOWABLE",
    "FORBIDDABLE",
    "KEYS",
    "NAMED_ORDERS",
    "SYNTHESIZED",
    "WORLD",
    "Constraints",
    "Key",
    "LayerPin",
    "Limit",
    "Pinned",
    "check_agreement",
    "check_request",
    "check_runtime",
    "check_world",
    "read_constraints",
    "schedule_name",
    "shown",
]
