"""Sends between pipeline stages: one message, and what its receivers gather."""

from __future__ import annotations

import numpy as np

from costmodel.collectives import Network, estimate_collective_s, estimate_level_bytes
from costmodel.layouts import Column, IntColumn, Layouts
from costmodel.ops import Setting
from costmodel.pipeline import edge_bytes


def estimate_send_s(setting: Setting, network: Network, layouts: Layouts, apart: Column | None = None) -> Column:
    """[n] seconds of one send between stages: each tensor rank's message - twice, where the two directions take turns -
    and, where shares of a whole activation were sent, the receivers' all-gather inside their node.

    ``apart``: ranks between sender and receiver, where that is not what the mesh order says.
    """
    pipelined = np.where(layouts.pp > 1, 2, 1)
    message = edge_bytes(setting, layouts)
    stride = layouts.stride("pp") if apart is None else apart
    send_s = estimate_collective_s(network, "p2p", message, pipelined, stride)
    if setting.runtime.one_way_sends:
        send_s = 2.0 * send_s
    ranks = _gathering_ranks(setting, layouts)
    if (ranks == 1).all():
        return send_s
    launch_s = setting.device.kernel_launch_s
    return send_s + estimate_collective_s(network, "all_gather", message * layouts.tp, ranks, 1, launch_s)


def estimate_received_level_bytes(setting: Setting, network: Network, layouts: Layouts) -> Column:
    """[n, L] bytes that one device sends by network level while receivers gather the shares of one activation."""
    whole = edge_bytes(setting, layouts) * layouts.tp
    ranks = _gathering_ranks(setting, layouts).astype(np.float64)
    return estimate_level_bytes(network, "all_gather", whole, ranks, np.ones_like(ranks))


def _gathering_ranks(setting: Setting, layouts: Layouts) -> IntColumn:
    """[n] tensor ranks that gather what stages send: 1 where each wants no more than its share."""
    apart = (layouts.sequence_parallel > 0) | (layouts.pp == 1) | (not setting.runtime.scatters_pipeline_sends)
    return np.where(apart, 1, layouts.tp)
