"""Saving a run and taking it up again, in any layout: parameters and optimizer state under the whole model's names.

Moments are written as wide as parameters, whatever the optimizer keeps, so that its format, too, may change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from executor.apply import ParallelModel
from executor.eight_bit import EightBitAdamW


def save_checkpoint(folder: str | Path, parallel: ParallelModel, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write the state after ``step`` into ``folder``; all ranks call it together."""
    dcp.save(_state(parallel, optimizer, step), checkpoint_id=str(folder))


def load_checkpoint(folder: str | Path, parallel: ParallelModel, optimizer: torch.optim.Optimizer) -> int:
    """Read what ``save_checkpoint`` wrote, by whatever layout, into this one; return the step it was taken after."""
    _create_optimizer_state(parallel, optimizer)
    state = _state(parallel, optimizer, 0)
    dcp.load(state, checkpoint_id=str(folder))
    first_of: dict[str, torch.nn.Parameter] = {}
    for name, parameter in parallel.named_parameters():
        if isinstance(optimizer, EightBitAdamW):
            kept = {key: state[f"optimizer.{name}.{key}"] for key in optimizer.wide_state(parameter)}
            optimizer.take_wide_state(parameter, kept)
        for key, value in optimizer.state[parameter].items():
            if not torch.is_tensor(value):
                optimizer.state[parameter][key] = state[f"optimizer.{name}.{key}"]
        if (first := first_of.setdefault(name, parameter)) is not parameter:
            _copy(first, parameter, optimizer)
    return int(state["step"])


def has_checkpoint(folder: str | Path) -> bool:
    """Whether ``folder`` holds a finished checkpoint."""
    return (Path(folder) / ".metadata").is_file()


def _state(parallel: ParallelModel, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Any]:
    """One flat dictionary; tensors are the live ones, so that loading fills them in place. Of a parameter that this
    rank holds twice, the first.
    """
    state: dict[str, Any] = {"step": torch.tensor(step)}
    for name, parameter in parallel.named_parameters():
        state.setdefault(f"model.{name}", parameter.detach())
        wide = optimizer.wide_state(parameter) if isinstance(optimizer, EightBitAdamW) else optimizer.state[parameter]
        for key, value in wide.items():
            if value is not None:
                state.setdefault(f"optimizer.{name}.{key}", value)
    return state


def _copy(source: torch.nn.Parameter, target: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    """Give ``target`` the value and optimizer state of ``source``."""
    target.detach().copy_(source.detach())
    for key, value in optimizer.state[target].items():
        if torch.is_tensor(value):
            value.copy_(optimizer.state[source][key])


def _create_optimizer_state(parallel: ParallelModel, optimizer: torch.optim.Optimizer) -> None:
    """One step with zero gradients and zero rate, so that the optimizer allocates its state."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for _, parameter in parallel.named_parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
