"""Products of one layer, priced together, come to what each comes to alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pricing import make_problem

from costmodel.columns import distinct_columns
from costmodel.gemm_times import price_gemms
from costmodel.ops import Gemm

SETTING = make_problem("llama-3.1-8b", 8, gpu="h100", runtime="megatron", precision="bf16", seq_len=4096).setting
U = 3


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2).map(float)))
@settings(deadline=None)
def test_distinct_columns(columns: np.ndarray) -> None:
    rows, place = distinct_columns(columns)
    assert np.array_equal(columns[:, rows][:, place], columns)
    assert len(rows) == len(np.unique(columns, axis=1).T)


sizes = st.lists(st.sampled_from([64.0, 500.0, 4096.0]), min_size=U, max_size=U).map(np.array)
gemms = st.builds(
    Gemm, st.just("product"), sizes, sizes, sizes, batch=st.sampled_from([1.0, 8.0]),
    trains=st.booleans(), wide=st.booleans(), grouped=st.booleans(),
)  # fmt: skip


@given(st.lists(gemms, min_size=1, max_size=5))
@settings(deadline=None, max_examples=30)
def test_products_do_not_depend_on_the_ones_beside_them(ops: list[Gemm]) -> None:
    together = price_gemms(ops, SETTING)
    for op, found in zip(ops, together, strict=True):
        (alone,) = price_gemms([op], SETTING)
        for one, other in zip(found, alone, strict=True):
            assert one.shape == (U,)
            assert np.array_equal(one, other)
        assert (found[0] > 0).all()
        assert (found[2] > 0).all() == op.trains
