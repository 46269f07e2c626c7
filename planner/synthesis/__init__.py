"""Finding an order of passes for given stages, times and memory: candidates, local search, a bound, an exact reference.

May import ``planner.schedules``, ``planner.simulator``, ``costmodel.schema``, numpy and, in ``exact``, pulp.
"""

from planner.synthesis.problem import OrderProblem
from planner.synthesis.synthesize import Synthesis, synthesize

__all__ = ["OrderProblem", "Synthesis", "synthesize"]
