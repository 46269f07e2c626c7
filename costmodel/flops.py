"""Model FLOPs of a step, the numerator of MFU: 6 · active parameters · tokens, and attention apart."""

from __future__ import annotations

from costmodel.attention import estimate_attention_pairs
from costmodel.parameters import count_model
from costmodel.schema.model import AttentionBlock, MLABlock, ModelSpec
from costmodel.schema.workload import Workload


def estimate_parameter_flops(model: ModelSpec, tokens: float) -> float:
    """6 · active parameters · tokens (2 forward, 4 backward). Embedding look-ups are counted, as is the custom.

    Source: Kaplan et al. 2020, section 2.1; Brown et al. 2020, appendix D (3.14e23 for GPT-3 on 300 B tokens).
    """
    return 6.0 * count_model(model).active * tokens


def estimate_attention_model_flops(model: ModelSpec, seq_len: int, sequences: float) -> float:
    """Scores and values, forward and backward: 3 · 2 · pairs · heads · (d_qk + d_v), causal half counted.

    Recomputation is not counted. Mixers that are linear in the sequence are in the parameters' term.
    """
    kinds = {kind.name: kind for kind in model.kinds}
    total = 0.0
    for run in model.runs:
        for block in kinds[run.kind].blocks:
            if isinstance(block, AttentionBlock):
                pairs = float(estimate_attention_pairs(seq_len, seq_len, block.causal, block.sliding_window))
                total += run.count * 6.0 * pairs * block.num_heads * 2.0 * block.head_dim
            elif isinstance(block, MLABlock):
                pairs = float(estimate_attention_pairs(seq_len, seq_len, block.causal, None))
                width = block.qk_nope_head_dim + block.qk_rope_head_dim + block.v_head_dim
                total += run.count * 6.0 * pairs * block.num_heads * width
    return total * sequences


def estimate_model_flops(model: ModelSpec, workload: Workload) -> float:
    """Both terms for one step, and a third of them, the forward's, for what frozen parts process."""
    trained = estimate_parameter_flops(model, workload.tokens_per_step) + estimate_attention_model_flops(
        model, workload.seq_len, workload.global_batch_size
    )
    parts = ((part.model, workload.model_copy(update={"seq_len": part.seq_len})) for part in model.frozen_parts)
    return trained + sum(estimate_model_flops(*part) / 3.0 for part in parts)
