"""Every flag: a record that must raise it, and its neighbor that must not."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from iqa_robust.harness.flags import FLAGS, NOT_FINITE, find_all_flags, find_flags
from iqa_robust.records import CERTIFICATE_COLUMNS, IMAGE_COLUMNS, Budget, Component, RunRecord, RunSpec

N = 40
MOS = np.linspace(0, 100, N)
CLEAN = np.linspace(10, 90, N)


def make(
    shift: float = 5.0,
    *,
    spec: dict[str, Any] | None = None,
    facts: dict[str, Any] | None = None,
    probes: dict[str, float] | None = None,
    **columns: Any,
) -> RunRecord:
    base = RunSpec(
        track="t-v1",
        dataset=Component(name="photos", params={"split": "test", "limit": None}),
        manifest="0" * 64,
        model=Component(name="compact"),
        weights_sha256=None,
        score_range=(0.0, 100.0),
        defense=None,
        attack=Component(name="pgd"),
        goal="away",
        target=None,
        budget=Budget(),
        knowledge="adaptive",
        seed=0,
        package_version="0",
    )
    frame = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(N)],
            "reference_id": [None] * N,
            "mos": MOS,
            "score_clean": CLEAN,
            "score_adv": CLEAN + shift,
            "score_def_clean": np.nan,
            "linf": 0.01,
            "l2": 1.0,
            "l0": 1.0,
            "patch": 1.0,
            "psnr": 40.0,
            "ssim": 0.9,
            "lpips": np.nan,
            "dists": np.nan,
            "queries": 10,
            "gradients": 10,
            "zero_gradient": False,
            "target": np.nan,
            "curve_queries": [[1]] * N,
            "curve_scores": [[0.0]] * N,
            "status": "ok",
            "reason": "",
        }
    )
    for name, values in columns.items():
        frame[name] = values
    known = {
        "higher_is_better": True,
        "mos_higher_is_better": True,
        "mos_range": [0, 100],
        "access": "white",
        "control": False,
        "training_datasets": None,
    }
    return RunRecord(
        spec=dataclasses.replace(base, **(spec or {})),
        status="ok",
        facts={**known, **(facts or {})},
        probes=probes or {},
        images=frame[[*IMAGE_COLUMNS, *(name for name in CERTIFICATE_COLUMNS if name in frame)]],
    )


JPEG = Component(name="jpeg")
NOISE = {"spec": {"attack": Component(name="noise")}, "facts": {"access": "black", "control": True}}
SQUARE = {"spec": {"attack": Component(name="square")}, "facts": {"access": "black"}}


def defended(shift: float, knowledge: str = "adaptive", **more: Any) -> RunRecord:
    return make(shift, spec={"defense": JPEG, "knowledge": knowledge}, score_def_clean=CLEAN, **more)


CASES = {
    "score-not-repeatable": (
        make(probes={"repeat_difference": 0.2}),
        [],
        make(probes={"repeat_difference": 1e-5}),
        [],
    ),
    "batch-dependent": (
        make(probes={"batch_difference": 0.2}),
        [],
        make(probes={"batch_difference": 1e-5}),
        [],
    ),
    "zero-gradient": (make(zero_gradient=True), [], make(zero_gradient=True, gradients=0), []),
    "not-finite": (
        make(reason=[NOT_FINITE] + [""] * (N - 1)),
        [],
        make(reason=["broken file"] + [""] * (N - 1)),
        [],
    ),
    "out-of-declared-range": (
        make(score_clean=CLEAN + 20),
        [],
        make(score_adv=CLEAN + 500),  # attacked scores may leave the range: that is a finding, not a flag
        [],
    ),
    "control-noise-wins": (make(5), [make(6, **NOISE)], make(5), [make(4, **NOISE)]),
    "black-box-wins": (make(5), [make(6, **SQUARE)], make(5), [make(5.05, **SQUARE)]),
    "oblivious-wins": (defended(5), [defended(9, "oblivious")], defended(9), [defended(5, "oblivious")]),
    "larger-eps-weaker": (
        make(5, spec={"budget": Budget(eps_255=8)}),
        [make(7)],
        make(9, spec={"budget": Budget(eps_255=8)}),
        [make(7)],
    ),
    "more-steps-weaker": (
        make(5, spec={"budget": Budget(steps=20)}),
        [make(7)],
        make(9, spec={"budget": Budget(steps=20)}),
        [make(7)],
    ),
    "degenerate": (make(score_adv=50.0), [], make(score_adv=CLEAN), []),
    "collapsed": (make(score_clean=50 + CLEAN / 1000), [], make(), []),
    "trained-on-test": (
        make(facts={"training_datasets": ["photos"]}),
        [],
        make(facts={"training_datasets": ["photos:train", "kodak24"]}),
        [],
    ),
    "certificate-violated": (
        make(5, cert_low=CLEAN - 6, cert_high=CLEAN + 4),
        [],
        make(5, cert_low=-np.inf, cert_high=[*(CLEAN[:-1] + 5), np.nan]),
        [],
    ),
}


def test_every_flag_has_a_case() -> None:
    assert set(CASES) == set(FLAGS)


@pytest.mark.parametrize("name", CASES)
def test_flag(name: str) -> None:
    raised, rivals, quiet, quiet_rivals = CASES[name]
    assert name in find_flags(raised, [raised, *rivals])
    assert name not in find_flags(quiet, [quiet, *quiet_rivals])


def test_all_flags_of_a_track_are_those_of_each_record_among_all() -> None:
    everything = [
        replaced(record, seed=seed)
        for seed, (raised, rivals, quiet, quiet_rivals) in enumerate(CASES.values())
        for record in (raised, *rivals, replaced(quiet, goal="up"), *quiet_rivals)
    ]
    expected = [find_flags(record, everything) for record in everything]
    assert find_all_flags(everything) == expected
    assert {flag for flags in expected for flag in flags} == set(FLAGS)


def replaced(record: RunRecord, **spec: Any) -> RunRecord:
    return dataclasses.replace(record, spec=dataclasses.replace(record.spec, **{"seed": record.spec.seed, **spec}))


def test_a_sound_row_has_no_flags() -> None:
    record = make(9)
    assert find_flags(record, [record, make(1, **NOISE), make(5, **SQUARE)]) == ()


def test_rivals_must_be_alike() -> None:
    other_model = make(50, spec={**SQUARE["spec"], "model": Component(name="ssim")}, facts=SQUARE["facts"])
    other_eps = make(50, spec={**SQUARE["spec"], "budget": Budget(eps_255=8)}, facts=SQUARE["facts"])
    record = make(5)
    assert "black-box-wins" not in find_flags(record, [record, other_model, other_eps])


def test_a_defended_row_is_judged_against_its_own_clean_scores() -> None:
    """A defense that shifts every clean score by 30 has not been attacked by 30."""
    record = make(
        0, spec={"defense": JPEG}, score_def_clean=CLEAN - 30, score_adv=CLEAN - 30, facts={"access": "white"}
    )
    noise = make(
        0,
        spec={"defense": JPEG, "attack": Component(name="noise")},
        facts=NOISE["facts"],
        score_def_clean=CLEAN - 30,
        score_adv=CLEAN - 29,
    )
    assert "control-noise-wins" in find_flags(record, [record, noise])


def test_for_a_reflection_only_the_way_to_the_mirror_point_counts() -> None:
    """Noise that moves a score of 50 by 9 has moved it away from where a reflection wants it."""
    still = np.full(N, 50.0) + np.linspace(-1, 1, N)
    reflect = {"goal": "reflect"}
    record = make(spec=reflect, score_clean=still, score_adv=100 - still)
    noise = make(spec={**reflect, **NOISE["spec"]}, facts=NOISE["facts"], score_clean=still, score_adv=still + 9)
    assert "control-noise-wins" not in find_flags(record, [record, noise])


def test_a_model_that_is_nan_everywhere_is_flagged_though_its_cell_failed() -> None:
    record = dataclasses.replace(
        make(score_clean=np.nan, score_adv=np.nan, status="failed", reason=NOT_FINITE), status="failed"
    )
    assert find_flags(record, [record]) == ("not-finite",)


def test_the_documentation_explains_every_flag() -> None:
    text = (Path(__file__).parents[2] / "docs" / "flags.md").read_text()
    assert set(re.findall(r"^## ([a-z-]+)$", text, re.MULTILINE)) == set(FLAGS)


def test_cells_are_compared_on_the_images_that_both_have() -> None:
    shift = np.linspace(2, 20, N)
    kept = shift < 8  # the images that the attack moved most failed
    attacked = make(score_adv=np.where(kept, CLEAN + shift, np.nan))
    noise = make(score_adv=CLEAN + shift / 2, **NOISE)
    assert attacked.images["score_adv"].sub(CLEAN).mean() < noise.images["score_adv"].sub(CLEAN).mean()
    assert "control-noise-wins" not in find_flags(attacked, [noise])
    assert "control-noise-wins" in find_flags(attacked, [make(score_adv=CLEAN + 2 * shift, **NOISE)])


def test_an_attack_that_stops_at_its_aim_is_not_beaten_by_one_that_goes_on() -> None:
    assert "black-box-wins" in find_flags(make(5), [make(9, **SQUARE)])
    assert "black-box-wins" not in find_flags(make(5, facts={"maximizes": False}), [make(9, **SQUARE)])
