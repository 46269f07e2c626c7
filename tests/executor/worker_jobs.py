"""What a pool's ranks can be asked to do. Run as a script: worker_jobs.py ADDRESS NUM_RANKS."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections import Counter, defaultdict
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from costmodel.passes.actions import ActionKind
from costmodel.schema.plan import Plan
from costmodel.schema.schedule import Schedule, parse_pass
from executor.apply import ParallelModel, apply_plan
from executor.checkpoint import load_checkpoint, save_checkpoint
from executor.frozen import FrozenPasses
from executor.memory import measure_peak_memory
from executor.model import Llama
from executor.optimizer import build_optimizer, clip_gradients
from executor.sharding import Numerics

SEED = 3


def global_batch(plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens and their targets, [global batch, T], the same everywhere."""
    shape = (plan.workload.global_batch_size, plan.workload.seq_len + 1)
    text = torch.randint(plan.model.vocab_size, shape, generator=torch.Generator().manual_seed(SEED))
    return text[:, :-1], text[:, 1:]


def parallel_model(plan: Plan, numerics: Numerics | None = None) -> ParallelModel:
    with torch.device("meta"):
        model = Llama(plan.model)
    return apply_plan(model, plan, numerics=numerics or Numerics.all_in(torch.float64), seed=SEED)


def own_batch(parallel: ParallelModel) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, targets = global_batch(parallel.plan)
    return tokens.chunk(parallel.data_ranks)[parallel.data_rank], targets.chunk(parallel.data_ranks)[parallel.data_rank]


def gradients(plan: str) -> tuple[list[float], dict[str, Any], tuple[int, list[str]]]:
    """Two steps without an update: the losses; of the second the whole gradients of this rank's stages, and its
    pipeline rank and passes in the order in which they ran.
    """
    parallel = parallel_model(Plan.load_json(plan, "plan"))
    losses = []
    for _ in range(2):
        for _, parameter in parallel.named_parameters():
            parameter.grad = None
        parallel.clock.events.clear()
        losses.append(parallel.step(*own_batch(parallel)).item())
    full = {}
    for name, parameter in parallel.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        gradient = parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
        full[name] = gradient.numpy()
    return losses, full, (parallel.clock.rank, [event.name for event in parallel.clock.events])


def forwards(plan: str) -> dict[str, Counter[str]]:
    """One step: how often each of this rank's layers ran its attention forward, by the kind of pass it ran in."""
    parallel = parallel_model(Plan.load_json(plan, "plan"))
    ran: list[tuple[str, int]] = []
    for stage in parallel.stages.values():
        for name, layer in stage.layers.items():
            # A pass is recorded when it ends.
            layer.self_attn.q_proj.register_forward_pre_hook(
                lambda *_, name=name: ran.append((name, len(parallel.clock.events)))
            )
    parallel.step(*own_batch(parallel))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, position in ran:
        counts[name][parse_pass(parallel.clock.events[position].name).kind.value] += 1
    return dict(counts)


def frozen_passes(plan: str, passes: dict[str, str]) -> tuple[list[str], float, dict[int, float]]:
    """Two steps in the order ``passes``, the plan's with FROZEN_F of three pieces: of the second the passes and the
    loss, and by micro-batch how far a result is from running the frozen model alone.
    """
    parallel = parallel_model(Plan.load_json(plan, "plan"))
    planned = parallel.plan.schedule()
    filled = Schedule.from_text("filled", planned.num_microbatches, planned.stage_to_rank, passes)
    torch.manual_seed(SEED)
    pieces = [torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh()).double() for _ in range(3)]
    frozen = FrozenPasses(pieces, parallel.clock)
    parallel.pipeline.follow(filled, {ActionKind.FROZEN_FORWARD: frozen.run})
    for _ in range(2):
        parallel.clock.events.clear()
        inputs = torch.randn(filled.num_microbatches, 4, 8, dtype=torch.float64)
        frozen.begin(inputs)
        loss = parallel.step(*own_batch(parallel)).item()
        results = frozen.take_results()
    whole = torch.nn.Sequential(*pieces)
    errors = {index: (result - whole(inputs[index])).abs().max().item() for index, result in results.items()}
    return [event.name for event in parallel.clock.events], loss, errors


def collectives(plan: str) -> dict[str, int]:
    """The second step's collectives, by operator."""
    parallel = parallel_model(Plan.load_json(plan, "plan"))
    parallel.step(*own_batch(parallel))
    with _CountCollectives() as counter:
        parallel.step(*own_batch(parallel))
    return dict(counter.counts)


class _CountCollectives(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        if func.namespace in ("c10d", "_c10d_functional"):
            self.counts[func._opname] += 1
        return func(*args, **(kwargs or {}))


def train_steps(
    plan: str, steps: int, load: str | None = None, save: str | None = None
) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of ``steps`` steps, all on one batch; from and to a checkpoint."""
    parallel = parallel_model(Plan.load_json(plan, "plan"))
    optimizer = build_optimizer(parallel, parallel.plan.workload)
    done = load_checkpoint(load, parallel, optimizer) if load else 0
    losses, norms = [], []
    for _ in range(steps):
        losses.append(parallel.step(*own_batch(parallel)).item())
        norms.append(clip_gradients(parallel).item())
        optimizer.step()
        optimizer.zero_grad()
    if save:
        save_checkpoint(save, parallel, optimizer, done + steps)
    return losses, norms


def bf16_losses(plan: str, steps: int) -> tuple[list[float], set[str], set[str]]:
    """As ``train_steps`` with the workload's own types: losses, and the types of parameters and of hidden states."""
    loaded = Plan.load_json(plan, "plan")
    parallel = parallel_model(loaded, Numerics.of(loaded.workload))
    optimizer = build_optimizer(parallel, loaded.workload)
    hidden: set[str] = set()
    for stage in parallel.stages.values():
        for layer in stage.layers.values():
            layer.mlp.register_forward_hook(lambda *arguments: hidden.add(str(arguments[2].dtype)))
    losses = []
    for _ in range(steps):
        losses.append(parallel.step(*own_batch(parallel)).item())
        clip_gradients(parallel)
        optimizer.step()
        optimizer.zero_grad()
    return losses, {str(parameter.dtype) for _, parameter in parallel.named_parameters()}, hidden


def passes(plan: str, unit_s: float) -> list[tuple[str, float]]:
    """The second step's passes on this rank: name and duration in seconds."""
    parallel = parallel_model(Plan.load_json(plan, "plan"))
    parallel.clock.unit_s = unit_s
    parallel.step(*own_batch(parallel))
    parallel.clock.events.clear()
    parallel.step(*own_batch(parallel))
    return [(event.name, event.duration_s) for event in parallel.clock.events]


def peak_bytes(plan: str) -> int:
    """The most that lived at once in the second step, in bytes."""
    parallel = parallel_model(Plan.load_json(plan, "plan"))
    batch = own_batch(parallel)
    parallel.step(*batch)
    gc.collect()  # other jobs left cycles
    with measure_peak_memory(torch.device("cpu")) as peaks:
        parallel.step(*batch)
    return peaks[0].allocated_bytes


def main() -> None:
    address, num_ranks = sys.argv[1], int(sys.argv[2])
    rank = _fork_ranks(num_ranks)
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(address).with_name("store")), num_ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=num_ranks)
    with Client(address, "AF_UNIX") as connection:
        connection.send(rank)
        while True:
            try:
                job, arguments = connection.recv()
            except (EOFError, ConnectionResetError):
                break
            try:
                connection.send((True, globals()[job](**arguments)))
            except BaseException:
                connection.send((False, f"rank {rank}: {traceback.format_exc()}"))
    dist.destroy_process_group()
    if rank == 0:
        for _ in range(1, num_ranks):
            os.wait()


def _fork_ranks(num_ranks: int) -> int:
    """This process's rank, of as many copies of it: torch is imported once for all of them."""
    for rank in range(1, num_ranks):
        if os.fork() == 0:
            return rank
    return 0


if __name__ == "__main__":
    main()
