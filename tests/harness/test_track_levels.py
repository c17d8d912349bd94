"""Sizes of budgets in a track: `eps_255` or `level`, inherited within one norm only."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_robust.errors import RequestError
from iqa_robust.harness.plan import Selection, make_plan
from iqa_robust.harness.track import Track, load_track
from iqa_robust.records import Budget

TRACK = """
name = "levels"
version = 1
title = "Levels"
[dataset]
name = "photos"
params = { limit = 2, crop = 48 }
[[models]]
name = "compact"
[budget]
goal = "away"
eps_255 = [2, 4]
steps = 3
"""


def track(tmp_path: Path, attacks: str) -> Track:
    path = tmp_path / "levels.toml"
    path.write_text(TRACK + attacks)
    return load_track(path)


def test_levels_are_sizes_in_the_unit_of_the_norm(tmp_path: Path) -> None:
    found = track(
        tmp_path,
        '[[attacks]]\nname = "pgd"\n[[attacks]]\nname = "fgsm"\nnorm = "psnr"\nlevel = [40, 30]\n'
        '[[attacks]]\nname = "fgsm"\nlabel = "near"\neps_255 = 1\n',
    )
    assert [list(entry.budgets()) for entry in found.attacks] == [
        [Budget(eps_255=2.0, steps=3), Budget(eps_255=4.0, steps=3)],
        [Budget.at("psnr", 40.0, steps=3), Budget.at("psnr", 30.0, steps=3)],
        [Budget(eps_255=1.0, steps=3)],
    ]
    plan = make_plan(found, selection=Selection(attacks=["fgsm"]))
    assert [cell.budget.size for cell in plan.cells] == ["PSNR 40 dB", "PSNR 30 dB", "1/255"]


def test_an_attack_the_track_lacks_takes_its_default_budget(tmp_path: Path) -> None:
    found = track(tmp_path, '[[attacks]]\nname = "pgd"\n')
    plan = make_plan(found, selection=Selection(attacks=["fgsm"]))
    assert [cell.budget for cell in plan.cells] == [Budget(eps_255=2.0, steps=3), Budget(eps_255=4.0, steps=3)]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ('norm = "ssim"', "norm 'ssim' needs `level`, its size"),
        ('norm = "psnr"\nlevel = [40]\neps_255 = 4', "give `eps_255` or `level`, not both"),
        ('norm = "l0"\nlevel = [2]', "expected eps_255 of at most 255"),
        ('norm = "lpips"\nlevel = [0.1]', "expected 'linf', 'l2', 'psnr', 'ssim', 'l0' or 'patch'"),
    ],
)
def test_impossible_sizes_are_reported_with_their_line(tmp_path: Path, entry: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=r"levels.toml:\d+: ") as caught:
        track(tmp_path, f'[[attacks]]\nname = "pgd"\n{entry}\n')
    assert sentence in str(caught.value)
