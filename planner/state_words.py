"""What a layout does with parameters, gradients and optimizer state beyond its ZeRO stage, in words."""

from __future__ import annotations

from costmodel.schema.layout import Layout

FORMATS = {"int8": "8-bit optimizer", "fp8": "FP8 optimizer", "low-rank": "low-rank optimizer", "bf16": "bf16 moments"}


def state_words(layout: Layout) -> list[str]:
    """``parameters over 2 ranks``, ``optimizer state over 384 ranks``, …: empty where the stage says it all."""
    groups = {
        "parameters": layout.shard_params,
        "backward gathers": layout.reshard_after_forward,
        "gradients": layout.shard_grads,
        "optimizer state": layout.shard_optim,
    }
    said = [f"{what} over {size} ranks" for what, size in groups.items() if size]
    if layout.optimizer_format in FORMATS:
        said.append(FORMATS[layout.optimizer_format])
    if layout.optimizer_offload == 1.0:
        said.append("optimizer on the host")
    elif layout.optimizer_offload:
        said.append(f"{layout.optimizer_offload:.0%} of the optimizer on the host")
    return said
