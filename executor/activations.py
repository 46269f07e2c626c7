"""What one layer keeps for its backward pass, as the plan says: everything or less, on the device or on the host, as it
was computed or in 8 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from costmodel.schema.layout import OffloadTarget, RecomputePolicy
from costmodel.schema.model import AttentionBlock
from costmodel.schema.plan import Plan, PlanLayer
from executor.offload import Chain, Keep
from executor.recompute import recompute


def keep_activations(
    layer: nn.Module,
    policy: RecomputePolicy,
    offload: float,
    device: torch.device,
    chain: Chain | None = None,
    narrow_from: int = 0,
    to: OffloadTarget = "host",
) -> None:
    """Make ``layer`` (hidden -> hidden) save what ``policy`` keeps, a share ``offload`` of those bytes in ``to``.

    ``chain``: the layers of its stage so far; None: it stands alone. Tensors of ``narrow_from`` elements and more are
    kept in 8 bits; 0: none.
    """
    if policy == "none" and not offload and not narrow_from:
        return
    forward = layer.forward
    chain = chain or Chain()
    position = chain.add_layer()

    def keeping(hidden: Tensor) -> Tensor:
        keep = Keep(offload, device, layer.parameters(), chain.before(position), narrow_from, to)
        chain.append(keep)
        if policy != "none":
            return recompute(forward, hidden, policy, keep)
        with torch.autograd.graph.saved_tensors_hooks(keep.pack, keep.unpack):
            return forward(hidden)

    layer.forward = keeping


def narrow_from(layer: PlanLayer, plan: Plan) -> int:
    """Elements that this rank's keys of one micro-batch have: no activation has fewer, and a row's statistics have.

    0 where the layer keeps what was computed.
    """
    if layer.saved_dtype != "int8":
        return 0
    kind = next(kind for kind in plan.model.kinds if kind.name == layer.kind)
    attention = next(block for block in kind.blocks if isinstance(block, AttentionBlock))
    tokens = plan.layout.micro_batch_size * plan.workload.seq_len
    return tokens * attention.num_key_value_heads * attention.head_dim // plan.layout.tp
