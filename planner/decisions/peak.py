"""What a run takes at the datasheet's peak: no plan is faster."""

from __future__ import annotations

from costmodel.flops import estimate_model_flops
from costmodel.gemm import peak_flops_per_s
from planner.request import Request


def estimate_least_device_s(request: Request, tokens: float) -> float:
    """Device seconds of a run: model FLOPs a token · tokens ÷ the mean device's dense peak at the workload's precision,
    the mean over the cluster's groups by their numbers of devices."""
    workload, groups = request.workload, request.cluster.unlike_groups
    devices = (request.device, *request.other_devices)
    peaks = (peak_flops_per_s(device, workload.precision) for device in devices)
    total = sum(group.num_devices * peak for group, peak in zip(groups, peaks, strict=True))
    flops_per_token = estimate_model_flops(request.model, workload) / workload.tokens_per_step
    return tokens * flops_per_token * request.cluster.num_devices / total
