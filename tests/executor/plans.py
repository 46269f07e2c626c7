"""Plans for small models and any layout: what the planner would hand over, without its search."""

from __future__ import annotations

from typing import Any

from costmodel.schema.cluster import ClusterSpec, DeviceSpec, HostSpec, NetworkLevel, NodeGroup
from costmodel.schema.layout import Layout
from costmodel.schema.model import AttentionBlock, LayerKind, LayerRun, MLPBlock, ModelSpec
from costmodel.schema.plan import Certificate, Pipeline, Plan, PlanCluster, PlanLayer
from costmodel.schema.prediction import Interval, MemoryPrediction, Prediction, StageMemory
from costmodel.schema.runtime import MemoryRules, OverlapRules, Runtime, StateRules
from costmodel.schema.runtime_kernels import KernelRules
from costmodel.schema.schedule import Schedule
from costmodel.schema.workload import Workload
from planner.schedules import SCHEDULES, build_schedule

DEVICE = DeviceSpec(
    name="cpu", vendor="cpu", generation="test", peak_flops_per_s={"fp32": 1e11}, vector_flops_per_s=1e10,
    memory_bytes=8e9, memory_bytes_per_s=1e10, num_sms=1, default_cluster="test",
)  # fmt: skip


def small_model(num_layers: int = 4, *, vocab_size: int = 64, hidden_size: int = 32, tied: bool = False) -> ModelSpec:
    """A Llama of a few thousand parameters a layer: 8 heads over 4 key-value heads."""
    attention = AttentionBlock(num_heads=8, num_key_value_heads=4, head_dim=hidden_size // 8)
    kind = LayerKind(name="dense", blocks=(attention, MLPBlock(intermediate_size=hidden_size * 2)))
    return ModelSpec(
        name="small", hidden_size=hidden_size, vocab_size=vocab_size, kinds=(kind,), tie_word_embeddings=tied,
        runs=(LayerRun(kind="dense", count=num_layers),),
    )  # fmt: skip


def build_plan(
    layout: Layout,
    *,
    model: ModelSpec | None = None,
    schedule: str | Schedule = "1f1b",
    recompute: tuple[str, ...] = ("none",),
    offload: tuple[float, ...] = (0.0,),
    saved_dtype: str = "as-computed",
    offload_to: str = "host",
    seq_len: int = 8,
    loss_parallel: bool = True,
    lengths: tuple[int, ...] = (),
    **workload: Any,
) -> Plan:
    """A plan for ``layout``, its order a schedule's name or one of its own. ``recompute`` and ``offload`` are repeated
    over the layers. ``lengths``: layers by stage of one copy, else nearly even.
    """
    model = model or small_model()
    order = schedule
    if isinstance(order, str):
        order = build_schedule(order, layout.pp, layout.num_microbatches, layout.vpp)
    per_stage, rest = divmod(model.num_layers, order.stages_per_copy)
    counts = lengths or [per_stage + (stage < rest) for stage in range(order.stages_per_copy)]
    stages = [stage for stage, count in enumerate(counts) for _ in range(count)]
    layers = tuple(
        PlanLayer(
            index=index, kind="dense", stage=stage, recompute=recompute[index % len(recompute)],
            offload=offload[index % len(offload)], saved_dtype=saved_dtype,
            offload_to=offload_to,
        )
        for index, stage in enumerate(stages)
    )  # fmt: skip
    settings: dict[str, Any] = {"precision": "fp32", "param_dtype": "fp32", "master_dtype": "none"} | workload
    return Plan(
        model=model,
        cluster=_cluster(layout.world_size),
        workload=Workload(
            seq_len=seq_len,
            global_batch_size=layout.dp * layout.num_microbatches * layout.micro_batch_size,
            **settings,
        ),
        runtime="torch",
        runtime_spec=_runtime(loss_parallel),
        layout=layout,
        pipeline=Pipeline(
            schedule=order.name, num_stages=order.num_stages, stage_to_rank=order.stage_to_rank,
            layers_per_stage=tuple(counts) * order.copies, passes=order.to_text(), copies=order.copies,
        ),
        layers=layers,
        prediction=_prediction(layout.pp),
        certificate=Certificate(
            status="given", gap=None, lower_bound_s=None, considered=1, evaluated=1, pruned={}, wall_s=0.0
        ),
    )  # fmt: skip


def _cluster(num_devices: int) -> PlanCluster:
    level = NetworkLevel(name="host", size=num_devices, bytes_per_s=1e9, latency_s=1e-5)
    host = HostSpec(memory_bytes=1e10, memory_bytes_per_s=1e10, device_link_bytes_per_s=1e10)
    groups = (NodeGroup(device="cpu", num_nodes=1, levels=(level,), host=host),)
    return PlanCluster(
        device="cpu",
        num_devices=num_devices,
        groups=groups,
        spec=ClusterSpec(name="test", groups=groups),
        device_spec=DEVICE,
    )


def _runtime(loss_parallel: bool) -> Runtime:
    return Runtime(
        name="torch", version="test", schedules=tuple(SCHEDULES),
        recompute=("none", "selective", "full"), selective_recomputes="all-but-matmul", per_layer_recompute=True,
        activation_offload=True, optimizer_offload=False, sequence_parallel="optional", context_parallel=(),
        state=StateRules(zero_stages=(0, 1, 2, 3), keeps_compute_copy=False),
        kernels=KernelRules(
            attention="flash", elementwise_bytes_factor=2, logit_bytes=8, loss_parallel=loss_parallel,
            launches_per_layer=40,
        ),
        overlap=OverlapRules(
            tensor=0, context=0, expert=0, pipeline=0, grad_reduce=0, param_gather=0, activation_offload=0,
            optimizer_offload=0,
        ),
        memory=MemoryRules(fragmentation_excess=0, fragmentation_std=0, model_std=0.1, communicator_bytes=0),
        source="test", date="2026-11-01",
    )  # fmt: skip


def _prediction(pp: int) -> Prediction:
    stages = tuple(
        StageMemory(rank=rank, allocated_bytes=1e6, reserved_bytes=1.1e6, device_bytes=1.1e6, parts={"parameters": 1e6})
        for rank in range(pp)
    )
    return Prediction(
        step_time_s=Interval(mean=0.2, low=0.1, high=0.4),
        tokens_per_s_per_device=1000.0, mfu=0.5, hfu=0.5, model_flops_per_step=1e9,
        breakdown={"compute_exposed_s": 0.2},
        memory=MemoryPrediction(
            peak_bytes_per_device=1.1e6, allocated_bytes=1e6, reserved_bytes=1.1e6, capacity_bytes=8e9,
            fits_probability=1.0, per_stage=stages, host_bytes=0.0,
        ),
        network={"host": 0.0},
    )  # fmt: skip
