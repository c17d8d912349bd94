"""Shift against queries, against a loop over every query."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from iqa_robust.errors import ContractError
from iqa_robust.measures.queries import shift_at_queries

CURVE = st.lists(st.tuples(st.integers(1, 30), st.floats(-10, 10)), max_size=6)


@given(curves=st.lists(st.tuples(st.floats(-10, 10), CURVE), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_against_a_walk_through_the_queries(curves: list[tuple[float, list[tuple[int, float]]]]) -> None:
    at = np.arange(32)
    expected = np.zeros(32)
    ordered = [sorted(dict(curve).items()) for _, curve in curves]
    for (clean, _), curve in zip(curves, ordered, strict=True):
        for q in at:
            score = clean
            for spent, reached in curve:
                if spent <= q:
                    score = reached
            expected[q] += abs(score - clean) / len(curves)
    found = shift_at_queries(
        [clean for clean, _ in curves], [[q for q, _ in c] for c in ordered], [[s for _, s in c] for c in ordered], at
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)  # sums in another order


def test_images_without_a_score_are_left_out() -> None:
    assert shift_at_queries([1.0, np.nan], [[2], []], [[4.0], []], [1, 2]).tolist() == [0.0, 3.0]
    assert np.isnan(shift_at_queries([np.nan], [[]], [[]], [1])).all()


@pytest.mark.parametrize(("queries", "scores"), [([[1]], [[1.0], [2.0]]), ([[1], [2, 3]], [[1.0], [2.0]])])
def test_lists_that_do_not_belong_together(queries: list[list[int]], scores: list[list[float]]) -> None:
    with pytest.raises(ContractError, match="curve_"):
        shift_at_queries([0.0, 0.0], queries, scores, [1])
