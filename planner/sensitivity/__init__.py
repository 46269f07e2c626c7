"""What a plan's step would be on other hardware: one figure changed, the same plan priced again, and who wins then.

May import ``costmodel`` and ``planner.*`` outside the command line.
"""

from planner.sensitivity.figures import FIGURES, Figure, figure_named
from planner.sensitivity.reprice import Changed, Repriced, estimate_elasticities, reprice_changed
from planner.sensitivity.sweep import CHANGES, Outcome, Sensitivity, sweep

__all__ = [
    "CHANGES",
    "FIGURES",
    "Changed",
    "Figure",
    "Outcome",
    "Repriced",
    "Sensitivity",
    "estimate_elasticities",
    "figure_named",
    "reprice_changed",
    "sweep",
]
