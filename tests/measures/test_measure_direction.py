from __future__ import annotations

import numpy as np
import pytest

from iqa_robust.errors import ContractError
from iqa_robust.measures import finite_rows, toward_better, toward_better_range


def test_lower_is_better_is_negated_and_the_input_stays() -> None:
    values = np.array([1.0, -2.0, np.nan])
    np.testing.assert_array_equal(toward_better(values, False), [-1.0, 2.0, np.nan])
    better = toward_better(values, True)
    better[0] = 9
    assert values[0] == 1.0


def test_the_range_follows_the_values() -> None:
    assert toward_better_range((2, 5), True) == (2, 5)
    low, high = toward_better_range((2, 5), False)
    values = toward_better([2.0, 3.5, 5.0], False)
    assert (values.min(), values.max()) == (low, high)


@pytest.mark.parametrize("unknown", [None, "yes", 1])
def test_an_unknown_direction_is_refused(unknown: object) -> None:
    with pytest.raises(ContractError, match="higher_is_better"):
        toward_better([1.0], unknown)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [(1, 1), (2, 1), (0, np.inf), (np.nan, 1), 3, (1, 2, 3), None])
def test_a_range_must_have_two_ends(bad: object) -> None:
    with pytest.raises(ContractError, match="score_range"):
        toward_better_range(bad, True)  # type: ignore[arg-type]


def test_rows_with_anything_missing_are_dropped_and_counted() -> None:
    rows = finite_rows([1, 2, np.nan, 4, 5], [1, np.inf, 3, 4, -np.inf])
    assert rows.dropped == 3
    np.testing.assert_array_equal(rows.kept, [True, False, False, True, False])
    np.testing.assert_array_equal(rows.columns, [[1, 4], [1, 4]])


def test_columns_of_other_lengths_or_shapes_are_refused() -> None:
    with pytest.raises(ContractError, match=r"lengths \[2, 3\]"):
        finite_rows([1, 2], [1, 2, 3])
    with pytest.raises(ContractError, match="one value per image"):
        finite_rows([[1, 2]], [[1, 2]])
