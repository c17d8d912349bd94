"""Gates: what passes, what is blocked, exact slopes, and refusals."""

from __future__ import annotations

import copy

import pytest
import torch

from iqa_robust.errors import RequestError
from iqa_robust.models.gates import GATES, create_gate
from iqa_robust.models.gates.base import Gate

C = 12
CASES = [
    ("cas", {}),
    ("cifs", {}),
    ("ensemble", {"members": [{"name": "sort-mask", "form": "elements", "threshold": b} for b in (0.5, 2.0)]}),
    ("ensemble", {"members": [{"name": "soft-rank"}, {"name": "random"}]}),
    ("random", {}),
    ("soft-rank", {}),
    ("soft-rank", {"operator": "softsort", "statistic": "mean-abs"}),
    ("soft-rank", {"operator": "permutahedron", "learn_keep": True}),
    ("sort-mask", {}),
    ("sort-mask", {"form": "elements"}),
    ("squeeze-excitation", {"reduction": 4}),
]


def _gate(name: str, params: dict, channels: int = C) -> Gate:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gate = create_gate(name, channels, **params)
        if name == "cas":  # as after training; it starts with equal weights
            with torch.no_grad():
                gate.row.normal_()
        return gate.eval()


def _maps(n: int = 3, c: int = C, side: int = 5) -> torch.Tensor:
    return torch.randn(n, c, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_cases_cover_every_gate() -> None:
    assert {name for name, _ in CASES} == set(GATES)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_gates_keep_shape_and_weigh_between_none_and_all(name: str, params: dict) -> None:
    gate, h = _gate(name, params).double(), _maps()
    weights, gated = gate.weights(h), gate(h)
    assert weights.shape in {(3, C, 1, 1), h.shape}
    assert gated.shape == h.shape
    assert bool(((weights >= 0) & (weights <= 1)).all())
    means = h.mean(dim=(2, 3), keepdim=True) if weights.shape == h.shape else 0
    torch.testing.assert_close(gated, means + weights * (h - means))


@pytest.mark.parametrize(("name", "params"), CASES)
def test_slopes_are_exact(name: str, params: dict) -> None:
    gate = _gate(name, params, channels=4).double()
    assert torch.autograd.gradcheck(gate, _maps(2, 4, 3).requires_grad_())


@pytest.mark.parametrize(("name", "params"), CASES)
def test_batches_do_not_matter(name: str, params: dict) -> None:
    gate, h = _gate(name, params), _maps().float()
    torch.testing.assert_close(gate(h), torch.cat([gate(row[None]) for row in h]))


@pytest.mark.parametrize(("name", "params"), CASES)
def test_bfloat16_features_stay_bfloat16(name: str, params: dict) -> None:
    gate, h = _gate(name, params), _maps().float()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = gate(h.bfloat16())
    assert rounded.dtype is torch.bfloat16
    torch.testing.assert_close(rounded.float(), gate(h), rtol=0.03, atol=0.03)  # 8 bits of values up to 4


@pytest.mark.parametrize(("name", "params"), CASES)
def test_auxiliary_scores_are_there_in_training_only_and_gates_can_be_copied(name: str, params: dict) -> None:
    gate, h = _gate(name, params), _maps().float()
    gate.train()(h)
    scores = gate.auxiliary_scores
    if name in {"cas", "cifs"}:
        assert scores is not None and scores.shape == (3,)
        scores.sum().backward()
        assert any(parameter.grad is not None for parameter in gate.parameters())
    else:
        assert scores is None
    twin = copy.deepcopy(gate)
    assert twin.auxiliary_scores is None
    gate.eval()(h)
    assert gate.auxiliary_scores is None


def _levels(levels: list[float]) -> torch.Tensor:
    """One image whose channels are constant."""
    return torch.tensor(levels)[None, :, None, None].expand(1, len(levels), 4, 4)


def test_soft_rank_keeps_the_channels_with_the_highest_means() -> None:
    gate = create_gate("soft-rank", 4, temperature=1e-4, sharpness=1e-3)
    assert gate.weights(_levels([3.0, -9.0, 8.0, 0.0])).flatten().round().tolist() == [1, 0, 1, 0]
    absolute = create_gate("soft-rank", 4, statistic="mean-abs", temperature=1e-4, sharpness=1e-3)
    assert absolute.weights(_levels([3.0, -9.0, 8.0, 0.0])).flatten().round().tolist() == [0, 1, 1, 0]


def test_sort_mask_keeps_the_channels_far_from_the_mean() -> None:
    gate = create_gate("sort-mask", 4, temperature=1e-4, sharpness=1e-3)  # mean 0.5, distances 2.5, 9.5, 7.5, 0.5
    assert gate.weights(_levels([3.0, -9.0, 8.0, 0.0])).flatten().round().tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.75])
def test_kept_shares_agree_over_gates(keep: float) -> None:
    h = torch.randn(4, 64, 6, 6, generator=torch.Generator().manual_seed(2))
    for name, params in [
        ("random", {}),
        ("soft-rank", {"temperature": 0.01, "sharpness": 0.01}),
        ("sort-mask", {"temperature": 0.001, "sharpness": 0.01}),
    ]:
        assert create_gate(name, 64, keep=keep, **params).weights(h).mean().item() == pytest.approx(keep, abs=0.03)


def test_learnt_share_moves_in_training_and_a_fixed_one_does_not() -> None:
    assert not create_gate("soft-rank", 4).state_dict()  # so weights of an ungated network fit
    (threshold,) = create_gate("soft-rank", 4, keep=0.3, learn_keep=True).parameters()
    assert threshold.item() == pytest.approx(0.7)


def test_sort_mask_elements_never_widens_a_difference() -> None:
    gate = create_gate("sort-mask", C, form="elements").double().eval()
    generator = torch.Generator().manual_seed(3)
    h = _maps(64)
    for size in (1e-3, 0.1, 1.0, 10.0):
        change = size * (2 * torch.rand(h.shape, dtype=h.dtype, generator=generator) - 1)
        moved = (gate(h + change) - gate(h)).flatten(2).abs().amax(dim=2)
        assert bool((moved <= change.flatten(2).abs().amax(dim=2) + 1e-12).all())


def test_sort_mask_elements_blocks_small_changes_and_passes_large_ones() -> None:
    gate = create_gate("sort-mask", 1, form="elements", threshold=1.0).eval()
    h = torch.zeros(1, 1, 100, 100)
    h[0, 0, 0, :4] = torch.tensor([0.01, -0.01, 20.0, -20.0])
    out = gate(h)[0, 0, 0]
    torch.testing.assert_close(out[:2].abs(), torch.full((2,), 1e-6 / 3), rtol=0.05, atol=1e-8)  # d^3 / 3
    torch.testing.assert_close(out[2:4], torch.tensor([19.0, -19.0]), rtol=1e-5, atol=0)  # d less the threshold


def test_sort_mask_elements_learns_the_deviations_in_training() -> None:
    gate = create_gate("sort-mask", 2, form="elements").train()
    h = torch.randn(8, 2, 40, 40, generator=torch.Generator().manual_seed(4)) * torch.tensor([3.0, 0.2]).view(2, 1, 1)
    for _ in range(3):
        gate(h)
    torch.testing.assert_close(gate.scale, torch.tensor([3.0, 0.2]), rtol=0.05, atol=0)  # 12,800 draws
    kept = gate.scale.clone()
    gate.eval()(10 * h)
    assert torch.equal(gate.scale, kept)


def test_an_ensemble_makes_the_mean_of_its_members_and_widens_no_difference() -> None:
    described = [{"name": "sort-mask", "form": "elements", "threshold": b} for b in (0.5, 1.0, 2.0)]
    gate = create_gate("ensemble", 1, members=described).double().eval()
    d = torch.linspace(-4, 4, 201, dtype=torch.float64)  # its mean is zero, and its channel's deviation counts as one
    made = gate(d[None, None, None])[0, 0, 0]
    torch.testing.assert_close(made, d - sum(b * torch.tanh(d / b) for b in (0.5, 1.0, 2.0)) / 3)
    mixed = create_gate("ensemble", C, members=[{"name": "soft-rank"}, described[1]]).double().eval()
    h = _maps()
    alone = [create_gate(channels=C, **each).eval()(h) for each in ({"name": "soft-rank"}, described[1])]
    torch.testing.assert_close(mixed(h), (alone[0] + alone[1]) / 2)
    shares = mixed.weights(h)
    assert shares.shape == h.shape and bool(((shares >= 0) & (shares <= 1)).all())
    generator = torch.Generator().manual_seed(5)
    h = _maps(64, 1)
    for size in (1e-3, 0.1, 1.0, 10.0):
        change = size * (2 * torch.rand(h.shape, dtype=h.dtype, generator=generator) - 1)
        moved = (gate(h + change) - gate(h)).flatten(1).abs().amax(dim=1)
        assert bool((moved <= change.flatten(1).abs().amax(dim=1) + 1e-12).all())


def test_the_predictors_of_an_ensemble_speak_with_one_voice() -> None:
    gate, h = _gate("ensemble", {"members": [{"name": "cifs"}, {"name": "random"}, {"name": "cifs"}]}).train(), _maps()
    gate(h.float())
    first, _, last = (member.auxiliary_scores for member in gate.members)
    torch.testing.assert_close(gate.auxiliary_scores, (first + last) / 2)
    assert not torch.equal(first, last)


def test_random_channels_come_from_the_seed_and_are_stored() -> None:
    first, again, other = (create_gate("random", 64, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.kept, again.kept)
    assert not torch.equal(first.kept, other.kept)
    assert int(first.kept.sum()) == 32
    other.load_state_dict(first.state_dict())
    assert torch.equal(first.kept, other.kept)


def test_cas_starts_open_and_weighs_by_the_row() -> None:
    gate, h = create_gate("cas", 3).eval(), _levels([1.0, 2.0, 3.0])
    assert torch.equal(gate(h), h)
    with torch.no_grad():
        gate.row.copy_(torch.tensor([0.5, -2.0, 1.0]))
    assert gate.weights(h).flatten().tolist() == [0.25, 1.0, 0.5]


def test_cifs_weighs_by_the_slopes_of_its_probe() -> None:
    gate = _gate("cifs", {"temperature": 0.7}).double().train()
    h = _maps()
    gate.norm.eval()  # so that images do not see each other
    leaf = h.clone().requires_grad_()
    weights = gate.weights(leaf).flatten(1)
    assert gate.auxiliary_scores is not None
    (slope,) = torch.autograd.grad(gate.auxiliary_scores.sum(), leaf)
    sizes = slope.sum(dim=(2, 3)).abs()
    soft = torch.softmax(sizes / (0.7 * sizes.mean(dim=1, keepdim=True)), dim=1)
    torch.testing.assert_close(weights, soft / soft.amax(dim=1, keepdim=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "params", "sentence"),
    [
        (
            "hard-rank",
            {},
            "gate: expected one of cas, cifs, ensemble, random, soft-rank, sort-mask, squeeze-excitation,"
            " got 'hard-rank'.",
        ),
        ("random", {"kept": 0.5}, "gate 'random': unknown parameter 'kept'; it takes keep, seed."),
        ("cas", {"beta": 2}, "gate 'cas': unknown parameter 'beta'; it takes no parameters."),
        ("random", {"keep": 1.5}, "gate: keep: expected a number between 0 and 1, got 1.5."),
        ("soft-rank", {"temperature": 0}, "gate: temperature: expected a positive number, got 0."),
        (
            "soft-rank",
            {"operator": "sinkhorn"},
            "gate: operator: expected one of pairwise, softsort, permutahedron, got 'sinkhorn'.",
        ),
        ("sort-mask", {"form": "rows"}, "gate: form: expected one of channels, elements, got 'rows'."),
        ("ensemble", {"members": []}, "gate 'ensemble': members: expected at least one gate, got none."),
        (
            "ensemble",
            {"members": ["cas"]},
            "gate 'ensemble': members: expected tables with the name of a gate, got 'cas'.",
        ),
        (
            "ensemble",
            {"members": [{"name": "random", "channels": 8}]},
            "gate 'ensemble': members: their `channels` are those of the ensemble; leave the key out.",
        ),
        (
            "ensemble",
            {"members": [{"name": "random", "keep": 2}]},
            "gate: keep: expected a number between 0 and 1, got 2.",
        ),
    ],
)
def test_wrong_gates_are_refused(name: str, params: dict, sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        create_gate(name, 8, **params)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "params"),
    [("random", {"keep": "half"}), ("ensemble", {}), ("ensemble", {"members": 2})],
)
def test_values_of_the_wrong_kind_are_refused(name: str, params: dict) -> None:
    with pytest.raises(RequestError, match=rf"^gate '{name}': a parameter is of the wrong kind"):
        create_gate(name, 8, **params)
