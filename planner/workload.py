"""The workload of a request: what was asked for, and the defaults for what was not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costmodel.schema.cluster import DeviceSpec
from costmodel.schema.errors import InvalidSpec, UnknownName
from costmodel.schema.model import ModelSpec, MoEBlock
from costmodel.schema.workload import Workload

DEFAULT_SEQ_LEN = 8192
DEFAULT_TOKENS_PER_STEP = 4 * 2**20

PRECISIONS = ("bf16", "fp16", "fp8", "mxfp8", "nvfp4", "fp32", "tf32")
OPTIMIZERS = ("adamw", "sgd", "sgd-momentum")
REDUCE_DTYPES = ("fp32", "bf16", "fp16")

_PEAK_OF = {"mxfp8": "fp8", "nvfp4": "fp4"}
"""Precisions that share another one's entry in a device's table of peaks."""

_OWN_DEFAULTS: dict[str, dict[str, Any]] = {"tiny": {"seq_len": 128, "global_batch_size": 32, "precision": "fp32"}}
"""Models too small for the general defaults bring their own."""


def build_workload(
    model: ModelSpec,
    device: DeviceSpec,
    *,
    seq_len: int | None = None,
    global_batch_size: int | None = None,
    precision: str | None = None,
    optimizer: str | None = None,
    grad_reduce_dtype: str | None = None,
    moe_imbalance: float | None = None,
    moe_capacity_factor: float | None = None,
    assumptions: list[str],
    others: Sequence[DeviceSpec] = (),
) -> Workload:
    """One training step; each default is appended to ``assumptions`` as a sentence. ``others``: devices that must be
    able to do it as well.

    Defaults: ``seq_len`` min(8192, the model's longest), 4 Mi tokens a step, bf16 (fp16 on devices without it)
    with fp32 master weights and gradient reduction, AdamW.

    Raises InvalidSpec for numbers below 1 and precisions that the device lacks; UnknownName for the rest.
    """
    own = _OWN_DEFAULTS.get(model.name, {})
    if seq_len is None:
        seq_len = int(own.get("seq_len", min(DEFAULT_SEQ_LEN, model.max_position_embeddings or DEFAULT_SEQ_LEN)))
        assumptions.append(f"Sequences have {seq_len} tokens (--seq-len).")
    _check_at_least_one("--seq-len", seq_len)
    longest = model.max_position_embeddings
    if longest is not None and seq_len > longest:
        if model.learned_positions:
            raise InvalidSpec(f"--seq-len {seq_len}: {model.name} has learned positions for {longest} tokens only")
        assumptions.append(f"{model.name} was made for {longest} tokens; {seq_len} are planned all the same.")
    if global_batch_size is None:
        global_batch_size = int(own.get("global_batch_size", max(DEFAULT_TOKENS_PER_STEP // seq_len, 1)))
        assumptions.append(f"A step takes {global_batch_size} sequences (--global-batch-size).")
    _check_at_least_one("--global-batch-size", global_batch_size)
    if precision is None:
        everywhere = [p for p in ("bf16", "fp16") if all(_has(one, p) for one in (device, *others))]
        precision = str(own.get("precision") or next(iter(everywhere), "fp32"))
        assumptions.append(f"Matrix products run in {precision} (--precision).")
    precision = _one_of("precision", precision, PRECISIONS)
    for one in (device, *others):
        if not _has(one, precision):
            known = ", ".join(p for p in PRECISIONS if _has(one, p))
            raise InvalidSpec(f"--precision {precision}: {one.name} has no such matrix units", f"it has {known}")
    if optimizer is None:
        optimizer = "adamw"
        assumptions.append("The optimizer is AdamW with two fp32 moments (--optimizer).")
    if grad_reduce_dtype is None:
        grad_reduce_dtype = "fp32"
        assumptions.append("Gradients are summed across ranks in fp32 (--grad-reduce-dtype).")
    reduce_dtype = _one_of("dtype of --grad-reduce-dtype", grad_reduce_dtype, REDUCE_DTYPES)
    routing = _routing(model, moe_imbalance, moe_capacity_factor, assumptions)
    wide = precision in ("fp32", "tf32")
    if not wide:
        assumptions.append("Master weights are kept in fp32.")
    return Workload.load(
        {
            "seq_len": seq_len,
            "global_batch_size": global_batch_size,
            "precision": precision,
            "param_dtype": "fp32" if wide else "fp16" if precision == "fp16" else "bf16",
            "grad_dtype": reduce_dtype,
            "grad_reduce_dtype": reduce_dtype,
            "master_dtype": "none" if wide else "fp32",
            "optimizer": _one_of("optimizer", optimizer, OPTIMIZERS),
            **routing,
        },
        "workload",
    )


def _routing(
    model: ModelSpec, imbalance: float | None, capacity_factor: float | None, assumptions: list[str]
) -> dict[str, float]:
    """How tokens fall on experts, as far as it was said. Raises InvalidSpec, also for models that have none."""
    given = {"moe_imbalance": imbalance, "moe_capacity_factor": capacity_factor}
    said = {name: value for name, value in given.items() if value is not None}
    routed = any(isinstance(block, MoEBlock) for kind in model.kinds for block in kind.blocks)
    for name, value in said.items():
        option = f"--{name.replace('_', '-')} {value:g}"
        if not routed:
            raise InvalidSpec(f"{option}: {model.name} has no experts", "leave it out")
        if not value > 0 or (name == "moe_imbalance" and value < 1):
            raise InvalidSpec(f"{option}: must be {'1 or more' if name == 'moe_imbalance' else 'above 0'}")
    if len(said) == 2:
        raise InvalidSpec(
            f"--moe-imbalance {imbalance:g} and --moe-capacity-factor {capacity_factor:g}: a capacity says how much the"
            " busiest rank takes",
            "give one of them",
        )
    if routed and not said:
        usual = Workload.model_fields["moe_imbalance"].default
        assumptions.append(f"The busiest rank's experts get {usual:g} times the mean's tokens (--moe-imbalance).")
    return said


def _has(device: DeviceSpec, precision: str) -> bool:
    return _PEAK_OF.get(precision, precision) in device.peak_flops_per_s


def _check_at_least_one(option: str, value: int) -> None:
    if value < 1:
        raise InvalidSpec(f"{option} {value}: must be a whole number from 1")


def _one_of(what: str, name: str, known: tuple[str, ...]) -> str:
    """Case, hyphens and underscores do not matter."""
    folded = {entry.replace("-", ""): entry for entry in known}
    found = folded.get(name.lower().replace("-", "").replace("_", ""))
    if found is None:
        raise UnknownName(what, name, known)
    return found
