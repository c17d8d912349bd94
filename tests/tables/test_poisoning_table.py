"""The table of a poisoning track: a victim that answers by a known rule gives known numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scripts import scripts_of

from iqa_robust.records import Budget, Component, RunRecord, write_record

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "poisoning"
ALPHAS = (-1.0, -0.5, 0.5, 1.0)
Record = Callable[..., RunRecord]


@pytest.fixture(scope="module")
def table() -> Iterator[ModuleType]:
    with scripts_of(SCRIPTS) as found:
        yield found.table


def victim(make_record: Record, model: str, gain: float, *, defense: str | None = None, psnr: float = 30.0, n: int = 6):
    """Records of a victim that answers by `gain` times alpha, on a scale of 0 to 1, under a budget of 20 dB."""
    records = []
    for alpha in ALPHAS:
        record = make_record(
            model=model,
            defense=defense,
            n=n,
            attack="baiqa",
            knowledge="black-box",
            budget=Budget.at("psnr", 20),
            score_range=(0.0, 1.0),
        )
        spec = record.spec
        attack = Component(name="baiqa", params={"alpha": alpha, "trigger": None}, label=f"baiqa{alpha:+g}")
        own = "score_clean" if defense is None else "score_def_clean"
        images = record.images.assign(score_adv=record.images[own] + gain * alpha / 100, psnr=psnr)
        records.append(
            type(record)(
                spec=type(spec)(**{**vars(spec), "attack": attack}),
                status="ok",
                facts=record.facts,
                images=images,
            )
        )
    return records


def test_known_answers(table: ModuleType, make_record: Record) -> None:
    records = [
        *victim(make_record, "b-steered", 30.0),
        *victim(make_record, "a-deaf", 0.0),
        *victim(make_record, "b-steered", 10.0, defense="blur"),
        make_record(attack="noise"),
    ]
    lines = table.lines(records, 40.0)
    assert [(line["model"], line["defense"], line["trigger"]) for line in lines] == [
        ("a-deaf", "none", "baiqa"),
        ("b-steered", "blur", "baiqa"),
        ("b-steered", "none", "baiqa"),
    ]
    for line, gain in zip(lines, (0, 10, 30), strict=True):
        assert line["shift +"] == pytest.approx(gain, abs=1e-6)
        assert line["shift -"] == pytest.approx(-gain, abs=1e-6)
        assert line["mMRA"] == pytest.approx(gain / 40, abs=1e-8)
        assert line["mMAE"] == pytest.approx((40 - gain) * 0.75, abs=1e-6)  # mean |alpha| is 3/4
        assert line["ratio error"] == pytest.approx(1 - gain / 40, abs=1e-8)
        assert line["PSNR"] == pytest.approx(30)
        assert (line["images"], line["at lid"]) == (6, 0)


def test_shrunk_triggers_are_counted(table: ModuleType, make_record: Record) -> None:
    (line,) = table.lines(victim(make_record, "a", 30.0, psnr=20.0), 40.0)
    assert line["at lid"] == 4 * 6


def test_failed_images_are_left_out(table: ModuleType, make_record: Record) -> None:
    records = victim(make_record, "a", 30.0)
    for record in records:
        record.images.loc[0, ["score_clean", "score_adv"]] = np.nan
        record.images.loc[0, "status"] = "failed"
    (line,) = table.lines(records, 40.0)
    assert line["images"] == 5
    assert line["mMRA"] == pytest.approx(0.75)


def test_from_a_folder(
    table: ModuleType, make_record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in victim(make_record, "a", 30.0):
        write_record(tmp_path / "runs", record)
    table.main([str(tmp_path), "--full-shift", "60"])
    head, rule, line = capsys.readouterr().out.splitlines()
    assert head.split(" | ")[0] == "| model" and set(rule) == {"|", "-"}
    assert line == "| a | none | baiqa | 6 | -30.00 | 30.00 | 22.50 | 0.50 | 0.50 | 30.00 | 0 |"
