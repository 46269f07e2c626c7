"""What one layer keeps for its backward pass, as the plan says: everything or less, on the device or on the host."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from costmodel.schema.layout import RecomputePolicy
from executor.offload import Chain, Keep
from executor.recompute import recompute


def keep_activations(
    layer: nn.Module, policy: RecomputePolicy, offload: float, device: torch.device, chain: Chain | None = None
) -> None:
    """Make ``layer`` (hidden -> hidden) save what ``policy`` keeps, a share ``offload`` of those bytes on the host.

    ``chain``: the layers of its stage so far; None: it stands alone.
    """
    if policy == "none" and not offload:
        return
    forward = layer.forward
    chain = chain or Chain()
    position = chain.add_layer()

    def keeping(hidden: Tensor) -> Tensor:
        keep = Keep(offload, device, layer.parameters(), chain.before(position))
        chain.append(keep)
        if policy != "none":
            return recompute(forward, hidden, policy, keep)
        with torch.autograd.graph.saved_tensors_hooks(keep.pack, keep.unpack):
            return forward(hidden)

    layer.forward = keeping
