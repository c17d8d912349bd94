"""`--shard i/n`: every job in one shard, the same on every machine, and each shard its share of dear and cheap jobs."""

from __future__ import annotations

import itertools

import pytest

from iqa_robust.errors import RequestError
from iqa_robust.harness.run import group_by_attack
from iqa_robust.harness.shard import Shard, of_shard, passes
from iqa_robust.records import Budget, Component, RunSpec

STEPS = (1, 10, 100, 1000)


def jobs() -> list[tuple[RunSpec, ...]]:
    """Three models, four defenses, attacks of four lengths; in the order of a plan."""
    specs = [
        RunSpec(
            track="t-v1",
            dataset=Component(name="d"),
            manifest="m",
            model=Component(name=model),
            weights_sha256=None,
            score_range=None,
            defense=None if defense == "none" else Component(name=defense),
            attack=Component(name="pgd"),
            goal="away",
            target=None,
            budget=Budget(steps=steps),
            knowledge="adaptive",
            seed=0,
            package_version="0",
        )
        for model, defense, steps in itertools.product("abc", ("none", "x", "y", "z"), STEPS)
    ]
    return group_by_attack(specs)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 48, 60])
def test_every_job_is_in_one_shard_and_shards_are_of_one_size(count: int) -> None:
    whole = jobs()
    shards = [of_shard(whole, Shard(i, count)) for i in range(1, count + 1)]
    assert sorted(job[0].digest for shard in shards for job in shard) == sorted(job[0].digest for job in whole)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    for shard in shards:
        assert shard == [job for job in whole if job in shard]  # in the order of the plan


def test_four_shards_cost_the_same_though_every_fourth_job_is_a_long_one() -> None:
    whole = jobs()
    dealt_in_order = [sum(map(passes, whole[i::4])) for i in range(4)]
    assert max(dealt_in_order) > 10 * min(dealt_in_order)
    costs = [sum(map(passes, of_shard(whole, Shard(i, 4)))) for i in range(1, 5)]
    assert max(costs) == min(costs)


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1/0", "1", "a/b", "1/3/5", "-1/3", "1.5/3"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        Shard.parse(text)
    assert str(caught.value) == f"--shard: expected i/n with 1 <= i <= n, such as 2/8, got {text!r}."


def test_a_shard_reads_as_it_is_written() -> None:
    assert Shard.parse("2/8") == Shard(2, 8)
    assert str(Shard(2, 8)) == "2/8"
