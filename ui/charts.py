"""Every figure of the dashboard: pure functions from what the planner knows to a Plotly figure."""

from ui.figures.activations import activations
from ui.figures.calibration import calibrated_parameters, fitted_factors, residuals
from ui.figures.cluster import cluster
from ui.figures.layers import layers
from ui.figures.measured import errors_by_group, predicted_against_measured
from ui.figures.memory import memory
from ui.figures.step_time import step_time
from ui.figures.timeline import timeline
from ui.figures.traffic import traffic

__all__ = [
    "activations",
    "calibrated_parameters",
    "cluster",
    "errors_by_group",
    "fitted_factors",
    "layers",
    "memory",
    "predicted_against_measured",
    "residuals",
    "step_time",
    "timeline",
    "traffic",
]
