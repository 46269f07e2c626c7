"""When each pass of a schedule runs, given the times of its stages: makespan, bubble, memory over time, trace.

May import ``costmodel.passes``, ``costmodel.schema`` and numpy.
"""

from planner.simulator.memory import RankMemory, StageMemory
from planner.simulator.side_times import FrozenTimes, VocabTimes
from planner.simulator.simulate import simulate, simulate_many
from planner.simulator.simulation import Simulation
from planner.simulator.step_end import StepEnd, WholeStep
from planner.simulator.times import StageTimes

__all__ = [
    "FrozenTimes",
    "RankMemory",
    "Simulation",
    "StageMemory",
    "StageTimes",
    "StepEnd",
    "VocabTimes",
    "WholeStep",
    "simulate",
    "simulate_many",
]
