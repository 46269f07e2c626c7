"""The two ends of the network: token embedding; final norm, head and loss."""

from __future__ import annotations

import numpy as np

from costmodel.layouts import Column
from costmodel.lowering.region import enter_tensor_region, leave_tensor_region, save_norm_input
from costmodel.ops import Elementwise, Gemm, Lowered, Saved, Setting, Split, Transfer


def lower_embedding(setting: Setting, split: Split) -> Lowered:
    """A gather of rows forward, a scatter-add backward, one reduction over tp; dropout's mask where there is one.

    Of a vocabulary split over pipeline ranks each reads its own rows and writes zeros for the others'; the mask, which
    the first alone has, counts as split.
    """
    whole = split.tokens * setting.model.hidden_size
    width, own = setting.activation_bytes, 1.0 / split.vocab_over
    lowered = Lowered(ops=[Elementwise("embedding", (1.0 + own) * whole * width, 4.0 * own * whole * width)])
    lowered.extend(leave_tensor_region(setting, split, wide=True))
    if setting.model.hidden_dropout:
        lowered.saved.append(Saved("dropout mask", split.resident_tokens * setting.model.hidden_size * own))
    return lowered


def lower_head(setting: Setting, split: Split) -> Lowered:
    """Final norm, logits, cross-entropy. The vocabulary is split over tp; the loss too where the runtime does so.

    Otherwise the logits are gathered for it. Kept: the norm's input (and what an eager norm adds), the head's input,
    and ``logit_bytes`` per logit. Moved: ``loss_traffic_bytes`` per logit, half of it in the forward.
    Of a vocabulary split over pipeline ranks each has the logits of its rows, and in place of the norm's input a copy
    of what it puts out; the norm itself counts as split.
    """
    model, width, kernels = setting.model, setting.activation_bytes, setting.runtime.kernels
    if not model.has_head:
        return Lowered()
    tokens, hidden = split.tokens, np.full_like(split.tokens, model.hidden_size)
    vocabulary = model.vocab_size / (split.tp * split.vocab_over)
    logits = tokens * vocabulary
    loss_logits = logits if kernels.loss_parallel else tokens * (model.vocab_size / split.vocab_over)
    elements = split.resident_tokens * model.hidden_size
    resident = elements * width / split.vocab_over
    logit_bytes, traffic_bytes = _loss_bytes(setting, split)
    traffic = loss_logits * 0.5 * traffic_bytes
    lowered = enter_tensor_region(setting, split, model.hidden_size, wide=True)
    lowered.ops += [
        Elementwise("final norm", 2.0 * resident, 3.0 * resident, rms_norm=model.norm == "rmsnorm"),
        Gemm("head", tokens, vocabulary, hidden, wide=True),
        Elementwise("cross-entropy", traffic, traffic, as_run=True),
    ]
    if not kernels.loss_parallel:
        lowered.transfers.append(Transfer("tp", forward=(("all_gather", loss_logits * width),), backward=()))
    lowered.saved += [*save_norm_input(elements, setting), Saved("logits", loss_logits * logit_bytes)]
    return lowered


def _loss_bytes(setting: Setting, split: Split) -> tuple[Column, Column]:
    """[u] bytes of each logit: alive at the loss's worst moment, and moved by it."""
    kernels, rules = setting.runtime.kernels, setting.runtime.vocab_parallel
    whole = (kernels.logit_bytes, kernels.loss_traffic_bytes)
    parts = whole if rules is None else (rules.logit_bytes, rules.loss_traffic_bytes)
    alive, moved = (np.where(split.vocab_over > 1, part, one) for part, one in zip(parts, whole, strict=True))
    return alive, moved
