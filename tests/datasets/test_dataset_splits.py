"""Seeded splits and samples: properties for any names, and pinned values so that no release changes them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_robust.datasets.splits import nested_sample, seeded_split

NAMES = st.lists(st.text(max_size=8), min_size=1, max_size=60)
KEYS = st.lists(st.tuples(st.floats(0, 100), st.text(max_size=4)), min_size=1, max_size=200, unique_by=lambda k: k[1])
SEEDS = st.integers(-3, 2**40)

PINNED_TEST_SIDE = ["I02", "I04", "I17", "I22", "I23"]
PINNED_SAMPLE = [5, 13, 29, 37, 45, 61, 69, 77, 93, 97]


@given(NAMES, SEEDS)
def test_sides_are_disjoint_complete_and_not_empty(names: list[str], seed: int) -> None:
    train, test = seeded_split(names, seed)
    assert train | test == set(names)
    assert not train & test
    assert train
    assert test or len(set(names)) == 1


@given(NAMES, SEEDS, st.randoms())
def test_order_and_repetition_do_not_matter(names: list[str], seed: int, random: object) -> None:
    shuffled = names * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert seeded_split(shuffled, seed) == seeded_split(names, seed)


@pytest.mark.parametrize(("n", "train"), [(1, 1), (2, 1), (3, 2), (25, 20), (29, 23), (30, 24), (81, 65), (1162, 930)])
def test_four_fifths_train(n: int, train: int) -> None:
    names = [f"I{i:04d}" for i in range(n)]
    assert [len(side) for side in seeded_split(names, 0)] == [train, n - train]


def test_split_is_a_permutation_by_hash() -> None:
    names = [f"I{i:02d}" for i in range(1, 26)]
    by_hash = sorted(names, key=lambda name: hashlib.sha256(f"7\n{name}".encode()).hexdigest())
    assert seeded_split(names, 7) == (frozenset(by_hash[:20]), frozenset(by_hash[20:]))


def test_pinned_split_never_changes() -> None:
    assert sorted(seeded_split((f"I{i:02d}" for i in range(1, 26)), 0)[1]) == PINNED_TEST_SIDE


def test_seeds_differ() -> None:
    names = [f"I{i:02d}" for i in range(1, 26)]
    assert len({seeded_split(names, seed) for seed in range(20)}) == 20


@given(KEYS, SEEDS, st.data())
def test_samples_are_nested_and_in_order(keys: list[tuple[float, str]], seed: int, data: st.DataObject) -> None:
    large = data.draw(st.integers(1, len(keys)))
    small = data.draw(st.integers(1, large))
    many, few = nested_sample(keys, large, seed), nested_sample(keys, small, seed)
    assert (len(many), len(few)) == (large, small)
    assert set(few) <= set(many) <= set(range(len(keys)))
    assert many == sorted(set(many))


@given(KEYS, SEEDS)
def test_a_full_sample_is_everything(keys: list[tuple[float, str]], seed: int) -> None:
    assert nested_sample(keys, len(keys), seed) == list(range(len(keys)))


@settings(deadline=None)
@given(st.integers(2, 400), SEEDS, st.data())
def test_samples_are_spread_over_the_ranks(n: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    ranks = nested_sample([(float(i), str(i)) for i in range(n)], k, seed)
    gaps = [b - a for a, b in zip(ranks, [*ranks[1:], ranks[0] + n], strict=True)]
    # The first k bit-reversed numbers below P < 2n hit every dyadic interval of length P / 2^m, 2^m > k / 2,
    # so two neighbors are at most two intervals apart: 2 * 2n * 2 / k, and none of n exceeds n itself.
    assert max(gaps) <= max(8 * n / k, 1)


def test_pinned_sample_never_changes() -> None:
    keys = [(float(i), f"image{i}") for i in range(100)]
    assert nested_sample(keys, 10, 0) == PINNED_SAMPLE
    assert nested_sample(keys, 10, 1) != PINNED_SAMPLE
