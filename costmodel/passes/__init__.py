"""What a schedule's passes take in and give out, and what follows from it: the check of any schedule, and its lowering
to sends and receives. The planner, the simulator and the executor share it.

May import ``costmodel.schema`` and the standard library.
"""

from costmodel.passes.actions import COLLECTIVES, NOBODY, RECEIVES, SENDS, Action, ActionKind
from costmodel.passes.check import check_schedule
from costmodel.passes.check_lowered import check_lowered
from costmodel.passes.gathers import add_gathers
from costmodel.passes.in_flight import peak_in_flight
from costmodel.passes.lower import lower
from costmodel.passes.pytorch_csv import Losses, csv_losses, from_csv, to_csv
from costmodel.passes.rules import Product, Rules

__all__ = [
    "COLLECTIVES",
    "NOBODY",
    "RECEIVES",
    "SENDS",
    "Action",
    "ActionKind",
    "Losses",
    "Product",
    "Rules",
    "add_gathers",
    "check_lowered",
    "check_schedule",
    "csv_losses",
    "from_csv",
    "lower",
    "peak_in_flight",
    "to_csv",
]
