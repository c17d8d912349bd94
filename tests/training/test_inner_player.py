"""The inner player on networks whose worst perturbation is known in closed form."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.functional import mse_loss

from iqa_robust.training.adversarial.inner import InnerPlayer, aim
from iqa_robust.training.adversarial.judge import attacked_sroccs
from iqa_robust.training.adversarial.settings import Inner
from iqa_robust.training.losses import plcc

EPS = 4 / 255


class Linear(nn.Module):
    """Scores <w, x>: the worst perturbation of radius eps is +-eps sign(w)."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 8, 8, generator=generator) / 100)
        self.modes: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        return (x * self.weight).flatten(1).sum(dim=1)


@pytest.fixture
def images() -> torch.Tensor:
    levels = torch.randint(80, 180, (4, 3, 8, 8), generator=torch.Generator().manual_seed(1))  # far from 0 and 255
    return levels / 255


def player(network: nn.Module, **settings) -> InnerPlayer:
    return InnerPlayer(Inner(eps_255=4, **settings), network, network, mse_loss)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("start", ["clean", "uniform"])
def test_against_the_ranking_is_the_closed_form(images: torch.Tensor, steps: int, start: str) -> None:
    network = Linear()
    labels = torch.tensor([-0.5, 0.1, 0.7, 0.3])
    if start == "uniform":
        steps += 2  # 2.5 eps of steps cross the ball from any start, a single one of 1.25 eps does not
    found = player(network, aim="against-ranking", steps=steps, start=start).perturbed(images, labels, EPS)
    side = torch.tensor([1.0, 1.0, -1.0, -1.0])  # labels up to the median are pushed up
    expected = images + EPS * side.view(-1, 1, 1, 1) * network.weight.detach().sign()
    assert torch.allclose(found, expected, atol=1e-6)


def test_difference_moves_every_score_to_one_of_the_two_ends(images: torch.Tensor) -> None:
    network = Linear()
    found = player(network, aim="difference", steps=5).perturbed(images, torch.zeros(4), EPS)
    moved = (network(found) - network(images)).abs()
    assert torch.allclose(moved, EPS * network.weight.abs().sum().expand(4), rtol=1e-4)


def test_aims() -> None:
    clean, target, scores = torch.tensor([0.2, -0.4]), torch.tensor([0.5, 0.1]), torch.tensor([0.3, 0.3])
    assert torch.allclose(aim("error", clean, target)(scores), torch.tensor([0.04, 0.04]))
    assert torch.allclose(aim("difference", clean, target)(scores), torch.tensor([0.01, 0.49]))
    assert torch.allclose(aim("reflect", clean, target)(scores), torch.tensor([-0.25, -0.01]))
    assert torch.allclose(aim("against-ranking", clean, target)(scores), torch.tensor([-0.3, 0.3]))


def test_reflect_stops_at_the_mirrored_score(images: torch.Tensor) -> None:
    network = Linear()
    with torch.no_grad():
        half = EPS * network.weight.abs().sum() / 2
        clean = network(images)
    shifted = InnerPlayer(
        Inner(aim="reflect", eps_255=4, steps=40, step_ratio=0.05),
        network,
        lambda x: network(x) - clean[0] + half / 2,
        mse_loss,
    )
    found = shifted.perturbed(images[:1], torch.zeros(1), EPS)
    assert network(found).item() == pytest.approx(clean[0].item() - half.item(), abs=0.11 * half.item())  # a step


def test_loss_climbs_the_loss_of_the_batch(images: torch.Tensor) -> None:
    """Correlation with labels is a matter of the batch: the player pulls every score to where the correlation falls."""
    network, labels = Linear(), torch.tensor([-0.9, -0.3, 0.3, 0.9])
    climbing = InnerPlayer(Inner(aim="loss", eps_255=4, steps=10), network, network, plcc)
    torch.manual_seed(0)
    found = climbing.perturbed(images, labels, EPS)
    assert (found - images).abs().max() <= EPS + 1e-6
    with torch.no_grad():
        reach = (EPS * network.weight.abs().sum()).item()
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 4)
        best = max(plcc(network(images) + reach * sign, labels).item() for sign in signs)
        assert plcc(network(found), labels).item() >= 0.98 * best


def test_noise_starts_leave_the_ball_and_are_not_projected(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    found = player(Linear(), aim="error", start="noise").perturbed(images, torch.zeros(4), EPS)
    distance = (found - images).abs()
    assert EPS < distance.max() <= 3 * EPS + 1e-6  # noise of 2 eps and a step of eps, as published


@pytest.mark.parametrize("name", ["error", "difference", "against-ranking", "reflect"])
def test_apgd_stays_inside_and_reaches_the_closed_form(images: torch.Tensor, name: str) -> None:
    network = Linear()
    labels = torch.tensor([-0.9, -0.8, 0.9, 0.8])
    found = player(network, aim=name, method="apgd", steps=20).perturbed(images, labels, EPS)
    assert (found - images).abs().max() <= EPS + 1e-6
    reach = (EPS * network.weight.detach().abs().sum()).item()
    moved = (network(found) - network(images)).detach().abs()
    if name != "reflect":
        assert torch.all(moved > 0.95 * reach)


def test_radius_rises_over_the_ramp() -> None:
    rising = player(Linear(), aim="error", ramp=0.5)
    assert [255 * rising.radius(share) for share in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0, 2, 4, 4])
    assert 255 * player(Linear(), aim="error").radius(0.0) == pytest.approx(4)


def test_free_training_moves_images_by_the_gradient_of_the_last_visit(images: torch.Tensor) -> None:
    network = Linear()
    free = player(network, method="free", steps=3, start="clean")
    first = free.replayed(images, EPS, first=True)
    assert torch.equal(first.detach(), images)
    network(first).sum().backward()
    second = free.replayed(images, EPS, first=False)
    assert torch.allclose(second.detach(), images + EPS * network.weight.detach().sign(), atol=1e-6)
    network(second).sum().backward()
    third = free.replayed(images, EPS, first=False)
    assert (third - images).abs().max() <= EPS + 1e-6


def test_the_player_looks_in_evaluation_mode_and_leaves_no_gradient(images: torch.Tensor) -> None:
    network = Linear().train()
    player(network, aim="error").perturbed(images, torch.zeros(4), EPS)
    assert network.training
    assert not any(network.modes)
    assert network.weight.grad is None


@pytest.mark.parametrize(
    "settings",
    [
        {"aim": "difference", "start": "clean"},
        {"aim": "error", "method": "apgd", "start": "clean"},
        {"method": "free", "steps": 1, "start": "clean"},
        {"aim": "error", "method": "free", "steps": 2, "start": "clean"},
        {"method": "pgd"},
        {"aim": "error", "steps": 0},
    ],
)
def test_impossible_players_are_refused(settings: dict) -> None:
    with pytest.raises(ValidationError):
        Inner(eps_255=4, **settings)


def test_judge_reverses_a_linear_ranking_completely() -> None:
    network = Linear().eval()
    values = torch.linspace(0.4, 0.6, 10)
    pattern = network.weight.detach() / network.weight.detach().norm()
    images = [torch.full((3, 8, 8), 0.5) + value * 0.01 * pattern for value in values]
    seen: list[int] = []
    still, reach = attacked_sroccs(network, network, images, values, radii_255=[1e-6, 4], steps=5, done=seen.append)
    assert still == pytest.approx(1)
    assert seen == [8, 10, 18, 20]
    # each half keeps its order and changes places with the other: pairs within halves agree, across they do not
    ranks = torch.tensor([6, 7, 8, 9, 10, 1, 2, 3, 4, 5.0])
    expected = torch.corrcoef(torch.stack([ranks, torch.arange(10.0)]))[0, 1].item()
    assert reach == pytest.approx(expected, abs=1e-6)
