"""What the strongest attack leaves, against sums done by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from iqa_robust.cli import table
from iqa_robust.records import RunRecord, write_record
from iqa_robust.tables.canaries import canaries, check_canaries
from iqa_robust.tables.verdicts import COLUMNS, disappeared, verdicts


def moved(record: RunRecord, clean: list[float], adv: list[float], mos: list[float]) -> RunRecord:
    """The record with these scores of its own system."""
    images = record.images.iloc[: len(clean)].copy()
    images["mos"] = mos
    images["score_clean"] = clean
    images["score_adv"] = adv
    if record.spec.defense is not None:
        images["score_def_clean"] = clean
    return dataclasses.replace(record, images=images)


CLEAN, MOS = [0.1, 0.3, 0.5, 0.9], [10.0, 30.0, 50.0, 90.0]


@pytest.fixture
def grid(make_record: Callable) -> list[RunRecord]:
    bare = make_record(n=4)
    oblivious = make_record(defense="blur", knowledge="oblivious", n=4)
    adaptive = make_record(defense="blur", knowledge="adaptive", n=4)
    return [
        moved(bare, CLEAN, [0.9, 0.7, 0.5, 0.1], MOS),  # mean |shift| .5, reversed
        moved(oblivious, CLEAN, [0.1, 0.3, 0.6, 1.0], MOS),  # .05
        moved(adaptive, CLEAN, [0.6, 0.7, 0.5, 0.4], MOS),  # .35
        make_record(defense="blur", attack="noise", knowledge="black-box", n=4),  # a control does not count
    ]


def test_the_strongest_of_all_is_named_and_measured(grid: list[RunRecord]) -> None:
    found = verdicts(grid).set_index("defense")
    spread = float(np.std(CLEAN))
    row = found.loc["blur"]
    assert row["shift_oblivious"] == pytest.approx(0.05 / spread)
    assert row["shift_adaptive"] == pytest.approx(0.35 / spread)
    assert math.isnan(row["shift_black_box"])
    # Image by image the larger of the two moves: .5, .4, .1, .5 of the adaptive and oblivious ones.
    assert row["shift_worst"] == pytest.approx((0.5 + 0.4 + 0.1 + 0.5) / 4 / spread)
    assert row["srocc_strongest"] == pytest.approx(stats.spearmanr(MOS, [0.6, 0.7, 0.5, 0.4])[0])
    assert row["srocc_worst"] == pytest.approx(stats.spearmanr(MOS, [0.6, 0.7, 0.6, 0.4])[0])
    assert (row["strongest"], row["strongest_knowledge"]) == ("iterated", "adaptive")
    assert row["protection_oblivious"] == pytest.approx(1 - 0.05 / 0.5)
    assert row["protection"] == pytest.approx(1 - 0.375 / 0.5)
    assert found.loc["none", "srocc_strongest"] == pytest.approx(-1)
    assert math.isnan(found.loc["none", "protection"])


@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_images_on_which_one_cell_failed_count_by_the_others(make_record: Callable, name: str) -> None:
    whole, broken = make_record(attack="bbb", n=40), make_record(attack=name, n=40, status="partial", reason="x")
    images = broken.images.copy()
    images.loc[3:, ["status", "reason"]] = "failed", "x"
    images.loc[3:, ["score_clean", "score_adv"]] = math.nan
    (row,) = verdicts([whole, dataclasses.replace(broken, images=images)]).to_dict("records")
    alone = verdicts([whole]).iloc[0]
    assert row["n_images"] == 40
    assert row["srocc_clean"] == alone["srocc_clean"]
    adv = whole.images["score_adv"].to_numpy(copy=True)
    for i in range(3):
        other = images["score_adv"][i]
        if abs(other - images["score_clean"][i]) > abs(adv[i] - images["score_clean"][i]):
            adv[i] = other
    assert row["srocc_worst"] == pytest.approx(stats.spearmanr(whole.images["mos"], adv)[0])


def test_every_seed_is_held_against_its_own_clean_scores(make_record: Callable) -> None:
    records, clean = [], []
    for seed in range(3):
        record = make_record(defense="blur", seed=seed, facts={"deterministic": False})
        images = record.images.copy()
        images["score_def_clean"] += np.random.default_rng(seed).normal(0, 0.1, len(images))
        images["score_adv"] = images["score_def_clean"] + 0.2
        clean.append(images["score_def_clean"].to_numpy())
        records.append(dataclasses.replace(record, images=images))
    row = verdicts(records).iloc[0]
    mean = np.mean(clean, axis=0)
    assert row["shift_adaptive"] == pytest.approx(0.2 / np.std(mean))
    assert row["shift_worst"] == pytest.approx(0.2 / np.std(mean))
    assert row["srocc_clean"] == pytest.approx(stats.spearmanr(records[0].images["mos"], mean)[0])


def test_what_one_cell_did_not_measure_is_known_from_another(make_record: Callable) -> None:
    without, with_ = make_record(attack="aaa"), make_record(attack="bbb")
    without = dataclasses.replace(without, probes={})
    with_ = dataclasses.replace(with_, probes={"milliseconds": 5.0, "memory_mb": 7.0})
    row = verdicts([without, with_]).iloc[0]
    assert (row["milliseconds"], row["memory_mb"]) == (5, 7)


def test_protection_that_disappears_is_counted(grid: list[RunRecord]) -> None:
    assert disappeared(verdicts(grid)) == (1, 1)  # .25 is left of .9
    firm = [record for record in grid if record.spec.knowledge != "adaptive" or record.spec.defense is None]
    assert disappeared(verdicts(firm)) == (0, 0)  # nobody attacked the defended model itself


def test_the_order_of_records_does_not_matter(grid: list[RunRecord]) -> None:
    assert verdicts(grid[::-1]).equals(verdicts(grid))


def test_the_command_writes_them(grid: list[RunRecord], tmp_path: Path) -> None:
    for record in grid:
        write_record(tmp_path / "runs", record)
    table.command(tmp_path, verdicts=tmp_path / "verdicts.csv")
    rows = pd.read_csv(tmp_path / "verdicts.csv")
    assert list(rows.columns) == list(COLUMNS)
    assert rows.set_index("defense").loc["blur", "protection"] == pytest.approx(0.25, abs=1e-6)


def _bird(record: RunRecord, **changes: object) -> RunRecord:
    return dataclasses.replace(record, facts={**record.facts, "canary": True}, **changes)


def test_a_canary_is_caught_by_a_flag_or_by_being_broken(grid: list[RunRecord], make_record: Callable) -> None:
    broken = [grid[0], *(_bird(record) for record in grid[1:3])]
    assert canaries(broken).to_dict("records") == [
        {"model": "alpha", "canary": "blur", "caught": True, "how": "broken by iterated (adaptive)"}
    ]
    still = _bird(moved(make_record(defense="wall", n=4), CLEAN, CLEAN, MOS))
    assert not canaries([grid[0], still])["caught"].item()
    flagged = dataclasses.replace(still, flags=("zero-gradient",))
    assert canaries([grid[0], flagged])["how"].item() == "zero-gradient"


def test_publishing_needs_canaries_that_were_all_caught(
    grid: list[RunRecord], make_record: Callable, tmp_path: Path
) -> None:
    submission = tmp_path / "mine"
    for record in grid:
        write_record(submission / "runs", record)
    assert "no canaries" in check_canaries(submission)[0]
    birds = [grid[0]] + [
        _bird(moved(make_record(defense=f"bird-{i}", n=4), CLEAN, CLEAN, MOS), flags=("collapsed",)) for i in range(6)
    ]
    for bird in birds:
        write_record(tmp_path / "mine-canaries" / "runs", bird)
    assert check_canaries(submission) == []
    write_record(tmp_path / "mine-canaries" / "runs", _bird(moved(make_record(defense="wall", n=4), CLEAN, CLEAN, MOS)))
    assert check_canaries(submission) == [
        f"{tmp_path / 'mine-canaries'}: wall on alpha was neither broken nor flagged."
    ]
