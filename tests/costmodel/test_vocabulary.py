"""A vocabulary split over pipeline ranks: what each part costs, and what its collectives send."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pricing import make_problem, one_split

from costmodel.even_split import uniform_assignment
from costmodel.layer_table import price_layers
from costmodel.layers import LAYER_TERMS, estimate_layer_costs
from costmodel.layouts import Layouts
from costmodel.memory import PARTS
from costmodel.pipeline import edge_bytes
from costmodel.price import price
from costmodel.schema.layout import Layout
from costmodel.state import estimate_local_params
from costmodel.vocabulary import STATISTIC_BYTES, estimate_vocabulary_traffic

PROBLEM = make_problem("llama-3.1-8b", 8)
WHOLE, ONE_BARRIER, TWO_BARRIERS = "1f1b", "1f1b-vocab-2", "1f1b-vocab-1"


def row(schedule: str, pp: int = 4) -> Layouts:
    layout = Layout(pp=pp, dp_replicate=8 // pp, num_microbatches=16, vocab_parallel=schedule != WHOLE)
    return Layouts.from_rows([(layout, schedule)])


def ends_of(vocab_over: int) -> dict[str, np.ndarray]:
    """Costs of embedding and head, [2, ...]."""
    costs = estimate_layer_costs(PROBLEM.setting, PROBLEM.network, one_split(8192, vocab_over=vocab_over))
    return {name: column[0, -2:] for name, column in vars(costs).items()}


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_parts_of_the_output_layer_make_the_whole(ranks: int) -> None:
    """The product of all parts takes as long as the whole one, or longer where parts fill the device less well."""
    whole, part = ends_of(1), ends_of(ranks)
    for name in ("forward_s", "backward_s"):
        assert 1.0 <= ranks * part[name][1, 0] / whole[name][1, 0] < 1.1
    assert 1.0 <= ranks * part["weight_grad_s"][1] / whole["weight_grad_s"][1] < 1.1


def test_every_rank_writes_a_whole_hidden_state_of_its_rows() -> None:
    """The embedding's forward reads a p-th and writes all of it; its backward adds a p-th."""
    whole, part = ends_of(1), ends_of(4)
    memory_bound = LAYER_TERMS.index("elementwise")
    assert part["forward_s"][0, memory_bound] > 0.6 * whole["forward_s"][0, memory_bound]
    assert part["backward_s"][0, memory_bound] < 0.5 * whole["backward_s"][0, memory_bound]


@pytest.mark.parametrize("tied", [False, True])
def test_all_ranks_together_hold_the_model_once(tied: bool) -> None:
    """A tied table, too, which whole ends hold twice."""
    model = PROBLEM.setting.model.model_copy(update={"tie_word_embeddings": tied})
    setting = replace(PROBLEM.setting, model=model)
    table = model.vocab_size * model.hidden_size
    held = {}
    for schedule in (WHOLE, TWO_BARRIERS):
        layouts = row(schedule)
        assignment = uniform_assignment(PROBLEM.kinds, PROBLEM.num_kinds, layouts, 0)
        params = estimate_local_params(setting, layouts, assignment)
        held[schedule] = float((params.dense * assignment.multiplicity).sum())
    assert held[TWO_BARRIERS] == pytest.approx(held[WHOLE] - tied * table)


def test_whole_ends_send_nothing() -> None:
    traffic = estimate_vocabulary_traffic(PROBLEM.setting, PROBLEM.network, row(WHOLE))
    assert traffic.total_s[0] == 0
    assert not traffic.sent_bytes.any()


def test_two_barriers_sum_the_gradient_in_a_collective_of_its_own() -> None:
    """Either form moves four hidden states and the statistics of every rank's rows."""
    one, two = (
        estimate_vocabulary_traffic(PROBLEM.setting, PROBLEM.network, row(name)) for name in (ONE_BARRIER, TWO_BARRIERS)
    )
    assert one.vocab_gradient_s[0] == 0 < two.vocab_gradient_s[0]
    assert one.statistics_s[0] == pytest.approx(two.statistics_s[0] + two.vocab_gradient_s[0])
    assert one.total_s[0] == pytest.approx(two.total_s[0])
    hidden = edge_bytes(PROBLEM.setting, row(ONE_BARRIER))[0]
    statistics = STATISTIC_BYTES * PROBLEM.setting.workload.seq_len * (4 - 1)
    assert one.sent_bytes.sum() == pytest.approx(4 * hidden + statistics)


def test_logits_wait_beside_the_layers() -> None:
    """One micro-batch's parts more than the one at the loss, on every rank."""
    layouts = row(TWO_BARRIERS)
    priced = price_layers(PROBLEM.setting, PROBLEM.network, layouts)
    saved = priced.costs.saved_bytes[priced.index, -1, 0]
    memory = price(priced, uniform_assignment(PROBLEM.kinds, PROBLEM.num_kinds, layouts, 0)).memory
    logits = memory.parts[0, :, PARTS.index("logits")]
    np.testing.assert_allclose(logits, 2 * saved[0])
    assert (memory.apart == 0).all()
