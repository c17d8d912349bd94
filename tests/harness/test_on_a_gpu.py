"""Cells on a pretended GPU (testing/pretended_gpu.py) have the numbers of the CPU, by code that runs on a real one."""

from __future__ import annotations

import copy
from typing import Any

import pandas as pd
import pytest
import torch
from any_attack import OWN, hit, made
from torch import nn

import iqa_robust as ir
from iqa_robust import attacks, defenses
from iqa_robust.attacks.base import AttackResult
from iqa_robust.testing.pretended_gpu import pretended_gpu

PHOTOS = ir.datasets.create("photos", split="test", limit=3, crop=64)
MEASURED = ["score_clean", "score_adv", "score_def_clean", "linf_255", "l2", "psnr", "ssim", "queries"]

CELLS: dict[str, dict[str, Any]] = {
    "by slopes": {"attack": "pgd"},
    "by queries": {"attack": "square"},
    "by queries, rounded": {"attack": "square", "precision": "mixed"},
    "rounded": {"attack": "pgd", "precision": "bf16"},
    "parts of others": {"attack": "worst-case"},
    "behind a randomized defense": {"attack": "pgd", "defense": "random-noise"},
    "behind a network": {"attack": "pgd", "defense": "dncnn"},
    "oblivious of a file format": {"attack": "pgd", "defense": "jpeg", "knowledge": "oblivious"},
    "on the whole set": {"attack": "sma"},
    "learned first": {"attack": attacks.create("uap", fit_images=4, fit_epochs=1)},
    "a full-reference model": {"attack": "apgd", "model": "ssim"},
}
QUICK = {"by slopes", "by queries, rounded", "behind a network", "learned first"}


@pytest.mark.parametrize("what", [pytest.param(w, marks=[] if w in QUICK else pytest.mark.slow) for w in CELLS])
def test_a_cell_has_the_numbers_of_the_cpu(what: str) -> None:
    def cell(device: str) -> pd.DataFrame:
        given = {"model": "compact", **copy.deepcopy(CELLS[what])}  # an attack that learned once would not again
        budget = ir.Budget(eps_255=4, steps=2, queries=15)
        found = ir.evaluate(given.pop("model"), PHOTOS, given.pop("attack"), budget=budget, device=device, **given)
        assert found.status == "ok", found.reason
        assert found.record.environment["device"] == device
        return found.images[MEASURED].astype(float)

    expected = cell("cpu")
    with pretended_gpu():
        found = cell("cuda")
    # The same kernels; only twins and layers that are laid out for a CPU sum in another order.
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-2)


def test_a_model_is_left_where_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 1, 9, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(0))
    with pretended_gpu():
        found = ir.evaluate(network, PHOTOS, "noise")
        assert found.record.environment["device"] == "cuda"
        assert {weight.device.type for weight in network.parameters()} == {"cpu"}


def both(name: str, norm: str, x: torch.Tensor) -> tuple[AttackResult, AttackResult]:
    """An attack on the CPU and on the pretended GPU."""
    found = []
    for device in ("cpu", "cuda"):
        network = ir.models.create("compact").eval().to(device)
        found.append(hit(made(name), network, x.to(device), norm=norm, steps=2, queries=12))
    return found[0], found[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_every_attack_finds_what_it_finds_on_the_cpu(name: str) -> None:
    x = torch.randint(0, 256, (2, 3, 40, 40), generator=torch.Generator().manual_seed(0)) / 255
    for norm in attacks.get(name).norms:
        with pretended_gpu():
            expected, found = both(name, norm, x)
            assert found.images.is_cuda and found.score_adv.is_cuda
            assert torch.equal(found.queries.cpu(), expected.queries)
            # scores of 0..100; a sum in another order may turn the sign of a slope near zero
            torch.testing.assert_close(found.score_adv.cpu(), expected.score_adv, rtol=0, atol=0.05)


UNREPEATABLE = {"canary-single-draw", "canary-unrepeatable"}
"""That is what is wrong with them."""
DEAR = {"bilateral", "denoised-median-smoothing", "diffpure", "non-local-means"}
"""Asked by the conformance suite alone."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in defenses.names() if name not in {"trained", *UNREPEATABLE, *DEAR}])
def test_every_defense_scores_what_it_scores_on_the_cpu(name: str) -> None:
    """`trained` needs a file."""
    defense = defenses.create(name, **defenses.get(name).check_params)
    model = ir.models.create("compact")
    expected = ir.evaluate(model, PHOTOS, "fgsm", defense)
    with pretended_gpu():
        found = ir.evaluate(model, PHOTOS, "fgsm", defense)
    assert found.status == expected.status == "ok", found.reason
    pd.testing.assert_frame_equal(found.images[MEASURED], expected.images[MEASURED], rtol=1e-3, atol=1e-2)
