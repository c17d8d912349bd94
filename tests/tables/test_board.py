from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from iqa_robust.errors import RecordError
from iqa_robust.records import Component, read_records, write_record
from iqa_robust.tables.board import BOARD_COLUMNS, TEXT_COLUMNS, board, row, summary_rows
from iqa_robust.tables.per_image import PER_IMAGE_COLUMNS, per_image
from iqa_robust.tables.write import csv_text

PROMISED = (
    "track,rank,model,defense,attack,goal,norm,eps_255,knowledge,n_images,n_failed,srocc_clean,srocc_adv,srocc_adv_lo,"
    "srocc_adv_hi,plcc_clean,plcc_adv,krocc_clean,krocc_adv,rmse_adv,shift_mean,shift_abs_mean,shift_abs_scaled,"
    "shift_abs_sd,shift_abs_mos,shift_p95,r_score,linf_max_255,psnr_mean,ssim_mean,queries_mean,seconds,flags,status,"
    "plugin,run"
)
PROMISED_PER_IMAGE = (
    "track,model,defense,attack,goal,norm,eps_255,knowledge,seed,image_id,mos,score_clean,score_adv,score_def_clean,"
    "linf_255,l2,psnr,ssim,queries,status"
)
MEASURES = list(BOARD_COLUMNS[11:31])


def test_columns_are_those_promised(make_record: Callable) -> None:
    record = make_record()
    assert ",".join(board([record]).columns) == ",".join(BOARD_COLUMNS) == PROMISED
    assert ",".join(per_image([record]).columns) == ",".join(PER_IMAGE_COLUMNS) == PROMISED_PER_IMAGE
    assert list(row(record))[: len(BOARD_COLUMNS)] == list(BOARD_COLUMNS)
    assert row(record)["srocc_def_clean"] != row(record)["srocc_def_clean"]  # beyond the board; NaN without a defense


def test_values_follow_from_the_per_image_table(make_record: Callable) -> None:
    record = make_record(defense="blur", n=50, seconds=7.25)
    scores = per_image([record])
    values = board([record]).iloc[0]
    mos, clean, adv = (scores[name].to_numpy() for name in ("mos", "score_clean", "score_adv"))
    shift = adv - clean
    expected = {
        "srocc_clean": stats.spearmanr(clean, mos).statistic,
        "srocc_adv": stats.spearmanr(adv, mos).statistic,
        "krocc_clean": stats.kendalltau(clean, mos).statistic,
        "krocc_adv": stats.kendalltau(adv, mos).statistic,
        "shift_mean": shift.mean(),
        "shift_abs_mean": np.abs(shift).mean(),
        "shift_abs_scaled": np.abs(shift).mean() / (1.0 - 0.0),
        "shift_abs_sd": np.abs(shift).mean() / np.std(clean, ddof=1),
        "shift_p95": np.percentile(np.abs(shift), 95),
        "linf_max_255": scores["linf_255"].max(),
        "psnr_mean": scores["psnr"].mean(),
        "ssim_mean": scores["ssim"].mean(),
        "queries_mean": scores["queries"].mean(),
        "r_score": np.mean(np.log10(np.maximum(1 - clean, clean) / np.maximum(np.abs(shift), 1e-4))),
        "seconds": 7.25,
        "eps_255": 4.0,
    }
    for name, value in expected.items():
        # 1e-12: float64 sums of fifty terms in another order.
        assert values[name] == pytest.approx(value, rel=1e-12), name
    assert values["srocc_adv_lo"] < values["srocc_adv"] < values["srocc_adv_hi"]
    assert (values["n_images"], values["n_failed"]) == (50, 0)
    assert (values["model"], values["defense"], values["run"]) == ("alpha", "blur", record.digest)


def test_the_interval_resamples_contents(make_record: Callable) -> None:
    record = make_record(n=60)
    alone = record.images.assign(reference_id=None)
    together = board([record]).iloc[0]
    single = board([make_record(n=60, images=alone)]).iloc[0]
    assert together["srocc_adv"] == single["srocc_adv"]
    assert together["srocc_adv_lo"] != single["srocc_adv_lo"]


def test_lower_is_better_turns_correlations_not_shifts(make_record: Callable) -> None:
    record = make_record()
    flipped = record.images.assign(
        score_clean=1 - record.images["score_clean"], score_adv=1 - record.images["score_adv"]
    )
    other = make_record(images=flipped, facts={"higher_is_better": False})
    first, second = board([record]).iloc[0], board([other]).iloc[0]
    for name in ("srocc_clean", "srocc_adv", "krocc_adv", "shift_abs_mean", "r_score"):
        # 1e-9: 1 - score is rounded once more.
        assert second[name] == pytest.approx(first[name], abs=1e-9), name
    assert second["shift_mean"] == pytest.approx(-first["shift_mean"], abs=1e-9)


def test_a_defense_is_named_by_its_label_and_bare_is_none(make_record: Callable) -> None:
    labeled = make_record(defense="blur")
    labeled = dataclasses.replace(
        labeled, spec=dataclasses.replace(labeled.spec, defense=Component(name="blur", label="blur-strong"))
    )
    assert list(board([labeled, make_record()])["defense"]) == ["none", "blur-strong"]


def test_plugins_are_named_once_with_their_version(make_record: Callable) -> None:
    foreign = Component(name="acme-iqa/wavelet", distribution="acme-iqa", version="1.2")
    record = make_record(defense="blur")
    record = dataclasses.replace(record, spec=dataclasses.replace(record.spec, defense=foreign, attack=foreign))
    assert row(record)["plugin"] == "acme-iqa 1.2"
    assert row(make_record())["plugin"] == ""


def test_a_failed_row_has_no_measures(make_record: Callable) -> None:
    values = board([make_record(status="failed", reason="it broke")]).iloc[0]
    assert values[MEASURES].isna().all()
    assert math.isnan(values["rank"])
    assert values["status"] == "failed"


def test_failed_images_are_counted_and_left_out(make_record: Callable, with_failed_images: Callable) -> None:
    whole = make_record(n=30)
    hurt = with_failed_images(whole.images, [0, 7])
    values = board([make_record(n=30, images=hurt, status="partial", reason="two images")]).iloc[0]
    good = whole.images.drop(index=[0, 7])
    assert (values["n_images"], values["n_failed"], values["status"]) == (30, 2, "partial")
    assert values["srocc_adv"] == pytest.approx(stats.spearmanr(good["score_adv"], good["mos"]).statistic, abs=1e-12)
    assert values["queries_mean"] == 10  # what was never attacked cost nothing and does not lower the mean


def test_nothing_is_zero_where_it_is_undefined(make_record: Callable) -> None:
    record = make_record()
    constant = record.images.assign(score_clean=0.5, score_adv=0.5, linf=0.0, l2=0.0, psnr=math.inf, ssim=1.0)
    values = board([make_record(images=constant, score_range=None)]).iloc[0]
    for name in ("srocc_clean", "srocc_adv", "srocc_adv_lo", "plcc_adv", "shift_abs_scaled", "shift_abs_sd", "r_score"):
        assert math.isnan(values[name]), name
    assert math.isnan(values["psnr_mean"])  # every image is unchanged
    assert values["shift_abs_mean"] == 0


def test_seeds_share_a_row(make_record: Callable) -> None:
    seeds = [make_record(seed=seed, seconds=2.0, flags=flags) for seed, flags in ((0, ()), (1, ("zero-gradient",)))]
    table = board(seeds)
    assert len(table) == 1
    values, first, second = table.iloc[0], row(seeds[0]), row(seeds[1])
    assert first["srocc_adv"] != second["srocc_adv"]
    for name in ("srocc_adv", "srocc_adv_lo", "shift_abs_mean", "r_score"):
        assert values[name] == pytest.approx((first[name] + second[name]) / 2, rel=1e-15), name
    assert (values["n_images"], values["seconds"], values["flags"]) == (40, 4.0, "zero-gradient")
    assert values["run"] == f"{seeds[0].digest};{seeds[1].digest}"


def test_the_largest_distance_of_any_seed_is_shown(make_record: Callable) -> None:
    low = make_record(seed=0)
    high = make_record(seed=1, images=low.images.assign(linf=low.images["linf"] * 1.5))
    assert board([low, high]).iloc[0]["linf_max_255"] == pytest.approx(6)


def test_a_failed_seed_is_left_out_and_shown(make_record: Callable) -> None:
    good, bad = make_record(seed=0), make_record(seed=1, status="failed", reason="it broke")
    values = board([good, bad]).iloc[0]
    assert values["status"] == "partial"
    assert values["srocc_adv"] == row(good)["srocc_adv"]


def test_different_budgets_do_not_share_a_row(make_record: Callable) -> None:
    few = make_record()
    many = dataclasses.replace(
        few, spec=dataclasses.replace(few.spec, budget=dataclasses.replace(few.spec.budget, steps=50))
    )
    assert len(board([few, many])) == 2


def test_a_board_does_not_depend_on_the_order_of_records(make_grid: Callable) -> None:
    records = make_grid(models=("beta", "alpha"), defenses=("blur", None), radii=(8, 2), n=12)
    table = board(records)
    assert csv_text(board(records[::-1]), 6) == csv_text(table, 6)
    assert list(dict.fromkeys(table["model"])) == ["alpha", "beta"]
    assert list(dict.fromkeys(table[table["model"] == "alpha"]["defense"])) == ["none", "blur"]
    radii = table[(table["model"] == "alpha") & (table["defense"] == "none") & (table["attack"] == "iterated")][
        "eps_255"
    ]
    assert list(radii) == [2, 8]


def test_a_board_of_records_read_back_is_the_same(make_grid: Callable, tmp_path) -> None:
    records = make_grid(n=12)
    for record in records:
        write_record(tmp_path / "runs", record)
    assert csv_text(board(read_records(tmp_path)), 6) == csv_text(board(records), 6)


def test_a_record_given_twice_is_refused(make_record: Callable) -> None:
    with pytest.raises(RecordError, match="given twice"):
        board([make_record(), make_record()])


def test_a_record_without_directions_is_refused(make_record: Callable) -> None:
    record = dataclasses.replace(make_record(), facts={"mos_range": [0, 100]})
    with pytest.raises(RecordError, match="higher_is_better"):
        board([record])


def test_no_records_give_an_empty_board() -> None:
    assert list(board([]).columns) == list(BOARD_COLUMNS)
    assert summary_rows(board([])) == []


# Ranks


def ranks(records: list) -> dict[tuple[str, str, str], float]:
    table = board(records)
    keys = zip(table["model"], table["defense"], table["knowledge"], strict=True)
    return dict(zip(keys, table["rank"], strict=True))


def test_the_most_robust_is_first_and_oblivious_rows_do_not_compete(make_grid: Callable) -> None:
    records = make_grid(models=("alpha",), defenses=(None, "blur", "adversarial-training"), attacks=("iterated",))
    table = board(records)
    ranked = table[table["rank"].notna()]
    assert set(ranked["knowledge"]) == {"adaptive"}
    assert math.isnan(ranks(records)["alpha", "blur", "oblivious"])
    # An independent answer: the place in a list sorted by SROCC.
    order = ranked.sort_values("srocc_adv", ascending=False)["defense"].tolist()
    assert ranked.sort_values("rank")["defense"].tolist() == order
    assert sorted(ranked["rank"]) == [1, 2, 3]


def test_ranks_are_within_one_attack_and_budget(make_grid: Callable) -> None:
    table = board(make_grid(models=("alpha", "beta"), defenses=(None,), attacks=("noise", "iterated"), radii=(2, 4)))
    for _, group in table.groupby(["attack", "eps_255"]):
        assert sorted(group["rank"]) == [1, 2]


def test_equal_rows_share_the_better_rank(make_record: Callable) -> None:
    alpha = make_record(model="alpha")
    twins = [make_record(model=name, images=alpha.images) for name in ("beta", "gamma")]
    weak = alpha.images.assign(score_adv=1 - alpha.images["score_clean"])
    found = ranks([alpha, *twins, make_record(model="delta", images=weak)])
    assert [found[name, "none", "adaptive"] for name in ("alpha", "beta", "gamma", "delta")] == [1, 1, 1, 4]


def test_the_worst_of_adaptive_and_black_box_counts(make_record: Callable) -> None:
    adaptive = make_record(defense="blur", knowledge="adaptive")
    weaker = adaptive.images.assign(score_adv=adaptive.images["score_def_clean"])
    asked = make_record(defense="blur", knowledge="black-box", images=weaker)
    found = ranks([adaptive, asked, make_record()])
    assert math.isnan(found["alpha", "blur", "black-box"])
    assert not math.isnan(found["alpha", "blur", "adaptive"])


@pytest.mark.parametrize("flag", ["degenerate", "collapsed", "not-finite"])
def test_a_row_that_says_nothing_of_robustness_has_no_rank(make_record: Callable, flag: str) -> None:
    found = ranks([make_record(flags=(flag,)), make_record(model="beta", flags=("zero-gradient",))])
    assert math.isnan(found["alpha", "none", "adaptive"])
    assert found["beta", "none", "adaptive"] == 1


def test_a_system_whose_worst_case_is_unknown_has_no_rank(make_record: Callable) -> None:
    failed = make_record(defense="blur", knowledge="adaptive", status="failed", reason="it broke")
    asked = make_record(defense="blur", knowledge="black-box")
    assert all(math.isnan(rank) for rank in ranks([failed, asked]).values())


# The terminal


def test_summary_rows_are_short_text(make_grid: Callable, make_record: Callable) -> None:
    records = [*make_grid(n=12), make_record(model="gamma", status="failed", reason="it broke", goal="up")]
    assert all("(" not in summary["attack"] for summary in summary_rows(board(records[:-1])))
    rows = summary_rows(board(records))
    assert len(rows) == len(board(records))
    assert len({tuple(summary) for summary in rows}) == 1
    assert all(isinstance(value, str) for value in itertools.chain(*(summary.values() for summary in rows)))
    assert rows[-1]["attacked"] == ""
    assert rows[-1]["status"] == "failed"
    assert rows[-1]["attack"] == "iterated (up)"
    assert rows[0]["attacked"].count("[") == 1


# Per image


def test_per_image_rows_are_those_of_the_records(make_record: Callable, with_failed_images: Callable) -> None:
    record = make_record(n=12, seed=3)
    record = make_record(n=12, seed=3, images=with_failed_images(record.images, [4]), status="partial")
    table = per_image([record])
    assert len(table) == 12
    assert list(table["image_id"]) == list(record.images["image_id"])
    assert table["linf_255"].iloc[0] == pytest.approx(4)
    assert table["status"].tolist() == ["ok"] * 4 + ["failed: cannot be read"] + ["ok"] * 7
    assert math.isnan(table["score_adv"].iloc[4])
    assert set(table["seed"]) == {3}


def test_per_image_tables_join_records(make_grid: Callable) -> None:
    records = make_grid(n=9)
    table = per_image(records)
    assert len(table) == 9 * len(records)
    one = table[(table["model"] == "beta") & (table["defense"] == "blur") & (table["knowledge"] == "oblivious")]
    assert len(one) == 9
    assert isinstance(table, pd.DataFrame)
    assert [name for name in TEXT_COLUMNS if name in table.columns and table[name].isna().any()] == []
