"""Every figure of the dashboard: pure functions from what the planner knows to a Plotly figure."""

from ui.figures.activations import activations
from ui.figures.calibration import calibrated_parameters, fitted_factors, residuals
from ui.figures.cluster import cluster
from ui.figures.difference import difference
from ui.figures.layers import layers
from ui.figures.measured import errors_by_group, predicted_against_measured
from ui.figures.memory import memory
from ui.figures.parallel import parallel
from ui.figures.scaling import run_cost, scaling
from ui.figures.sensitivity import sensitivity
from ui.figures.space import space
from ui.figures.step_time import step_time
from ui.figures.timeline import timeline
from ui.figures.traffic import traffic

__all__ = [
    "activations",
    "calibrated_parameters",
    "cluster",
    "difference",
    "errors_by_group",
    "fitted_factors",
    "layers",
    "memory",
    "parallel",
    "predicted_against_measured",
    "residuals",
    "run_cost",
    "scaling",
    "sensitivity",
    "space",
    "step_time",
    "timeline",
    "traffic",
]
