"""I-, MI-, NI-, DI- and TI-FGSM: the optimum of linear models, and the papers' formulas written again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchattacks
from scipy.ndimage import gaussian_filter1d
from torch import nn

from iqa_robust import attacks
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.gradient.di_fgsm import DIFGSM
from iqa_robust.attacks.gradient.ti_fgsm import TIFGSM
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.randomness import ImageRNG, content_seeds
from iqa_robust.records import Budget

SIGN_ATTACKS = ["i-fgsm", "mi-fgsm", "ni-fgsm", "apgd", "madc"]
"""Those that follow the gradient of the image itself."""


def run(attack: Attack, model: IQAModel, x: torch.Tensor, budget: Budget) -> torch.Tensor:
    """The attack's own last point for the goal `up`, before rounding and without the objective's memory."""
    objective = Objective(
        model,
        x,
        None,
        goal=Goal(sign=torch.ones(len(x))),
        score_clean=model(x).detach(),
        budget=budget,
        seeds=content_seeds(x, 0),
        white_box=True,
    )
    return attack.perturb(objective, x, budget, ImageRNG(content_seeds(x, 0))).detach()


@pytest.mark.parametrize("name", SIGN_ATTACKS)
@pytest.mark.parametrize("low,high", [(20, 235), (0, 255)], ids=["inner", "clamped"])
@pytest.mark.parametrize("goal", ["up", "down", "away"])
def test_the_worst_case_of_a_linear_model_is_a_corner(
    images: Callable[..., torch.Tensor],
    linear: IQAModel,
    weights: torch.Tensor,
    name: str,
    low: int,
    high: int,
    goal: str,
) -> None:
    x = images(low=low, high=high)
    # MADC's steps are as long as the weights: the smallest of them, 0.01 of a mean of 0.8, needs as many more.
    steps = 10 if name != "madc" else 100
    result = attacks.create(name)(linear, x, goal=goal, budget=Budget(eps_255=4, steps=steps))
    ends = [(torch.round(x * 255) + 4 * sign * weights.sign()).clamp(0, 255) / 255 for sign in (1, -1)]
    shifts = torch.stack([linear(end).detach() - result.score_clean for end in ends])
    best = {"up": shifts[0], "down": -shifts[1], "away": shifts.abs().amax(dim=0)}[goal]
    reached = result.score_adv - result.score_clean
    reached = {"up": reached, "down": -reached, "away": reached.abs()}[goal]
    if name == "madc":  # its RMSE is eps, so the last values arrive slowly
        assert bool((reached >= 0.99 * best).all())
    else:
        torch.testing.assert_close(reached, best, rtol=0, atol=0)


@pytest.mark.parametrize("name", SIGN_ATTACKS)
@pytest.mark.parametrize("norm", ["l2", "psnr"])
def test_the_worst_case_of_a_linear_model_in_a_round_ball_follows_the_weights(
    images: Callable[..., torch.Tensor], linear: IQAModel, weights: torch.Tensor, name: str, norm: str
) -> None:
    x = images(low=100, high=150)
    eps_255 = 600.0 if norm == "l2" else 600.0 / weights.numel() ** 0.5  # the same ball
    result = attacks.create(name)(linear, x, goal="up", budget=Budget(norm=norm, eps_255=eps_255, steps=10))
    rise, best = result.score_adv - result.score_clean, 600 / 255 * weights.norm()
    assert bool((rise >= 0.999 * best).all()) and bool((rise <= best * (1 + 1e-5)).all())  # rounding to levels


@pytest.mark.parametrize("name", [*SIGN_ATTACKS, "ti-fgsm"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_target_within_reach_is_reached(
    images: Callable[..., torch.Tensor], linear: IQAModel, weights: torch.Tensor, name: str, norm: str
) -> None:
    """Half-way to the worst case, and none at all."""
    x = images(3, low=100, high=150)
    budget = Budget(norm=norm, eps_255=4 if norm == "linf" else 110, steps=15)
    reach = attacks.create("fgsm")(linear, x, goal="up", budget=budget)
    way = (reach.score_adv - reach.score_clean) * torch.tensor([0.1, -0.1, 0.0])
    target = reach.score_clean + (way if name == "ti-fgsm" else 5 * way)
    result = attacks.create(name)(linear, x, goal="target", target=target, budget=budget)
    # Four standard deviations of what rounding all values does; for L-infinity, dithered points come closer.
    rounding = 4 * weights.norm().item() / 255 / 12**0.5
    assert (result.score_adv - target).abs().max() < (rounding if norm == "l2" else 0.03)
    assert torch.equal(result.images[2], x[2])


class PlainClassifier(nn.Module):
    """Logits (0, f(x) / 1000): the cross-entropy of class 0 rises with the score."""

    def __init__(self, model: IQAModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = self.model(x) / 1000
        return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.mark.parametrize(
    "ours,theirs,options",
    [
        ("i-fgsm", "BIM", {}),
        ("mi-fgsm", "MIFGSM", {"decay": 1.0}),
        ("ni-fgsm", "NIFGSM", {"decay": 1.0}),
        ("ti-fgsm", "TIFGSM", {"decay": 1.0, "diversity_prob": 0.0}),
        ("di-fgsm", "DIFGSM", {"decay": 1.0, "diversity_prob": 0.0}),
    ],
)
def test_torchattacks_takes_the_same_steps(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, ours: str, theirs: str, options: dict[str, float]
) -> None:
    # Far from black and white: their look-ahead is not clamped to [0, 1], ours is.
    x = images(3, low=60, high=190)
    parameters = {"step_ratio": 0.25, **({"probability": 0.0, "decay": 1.0} if ours == "di-fgsm" else {})}
    end = run(attacks.create(ours, **parameters), convolutional, x, Budget(eps_255=8, steps=6))
    library = getattr(torchattacks, theirs)(
        PlainClassifier(convolutional).eval(), eps=8 / 255, alpha=2 / 255, steps=6, **options
    )
    found = torch.cat([library(x[i : i + 1], torch.zeros(1, dtype=torch.int64)) for i in range(3)])
    # The two scale gradients differently, so a slope near zero may change its sign by rounding.
    assert ((end - found).abs() > 1e-6).float().mean() < 0.005


def test_without_normalization_momentum_is_the_released_form(
    images: Callable[..., torch.Tensor], convolutional: IQAModel
) -> None:
    """The MSU benchmark's loop: g += gradient, a step of a tenth of eps along its sign, the perturbation clipped."""
    x = images(3, low=20, high=235)  # nothing is clamped
    p, g = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(10):
        leaf = (x + p).clamp(0, 1).requires_grad_(True)
        g = g + torch.autograd.grad(convolutional(leaf).sum(), leaf)[0]
        p = (p + 1 / 255 * g.sign()).clamp(-10 / 255, 10 / 255)
    attack = attacks.create("mi-fgsm", normalize=False, step_ratio=0.1)
    end = run(attack, convolutional, x, Budget(eps_255=10, steps=10))
    assert ((end - (x + p)).abs() > 1e-6).float().mean() < 0.005  # a slope near zero may change its sign by rounding


def test_normalization_weighs_all_gradients_alike(make_model: type[IQAModel]) -> None:
    """Slopes (100, 1), then (-1, 1): summed raw they still point up in the first value, normalized they cancel more."""

    def bent(z: torch.Tensor) -> torch.Tensor:
        a, b = z[:, 0, 0, 0], z[:, 1, 0, 0]
        return torch.where(a < 0.51, 100 * a, 51 - (a - 0.51)) + b

    x = torch.full((1, 3, 1, 1), 0.5)
    budget = Budget(eps_255=25.5, steps=2)
    raw = run(attacks.create("mi-fgsm", normalize=False, step_ratio=0.5, decay=0.4), make_model(bent), x, budget)
    even = run(attacks.create("mi-fgsm", step_ratio=0.5, decay=0.4), make_model(bent), x, budget)
    # 0.4 * 100 - 1 > 0, but 0.4 * 100 / 101 - 1 / 2 < 0.
    torch.testing.assert_close(raw[0, 0, 0, 0], torch.tensor(0.6), rtol=0, atol=1e-6)
    torch.testing.assert_close(even[0, 0, 0, 0], torch.tensor(0.5), rtol=0, atol=1e-6)


def test_steps_always_reach_the_surface(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    x, budget = images(2, low=50, high=200), Budget(eps_255=6, steps=2)
    for ratio in (0.0, 0.1):  # two steps of a tenth would stop at a fifth
        result = attacks.create("i-fgsm", step_ratio=ratio)(linear, x, goal="up", budget=budget)
        torch.testing.assert_close(result.linf, torch.full((2,), 6 / 255))


def test_the_kernel_is_a_gaussian(images: Callable[..., torch.Tensor]) -> None:
    slope = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    smooth = TIFGSM(kernel=15).accumulate(torch.zeros_like(slope), slope, "linf")
    # SciPy's truncated kernel of 15 pixels: 3 standard deviations are 7 pixels.
    reference = slope.double().numpy()
    for axis in (2, 3):
        reference = gaussian_filter1d(reference, sigma=7 / 3, axis=axis, mode="constant", radius=7)
    expected = torch.from_numpy(reference)
    expected = expected / expected.abs().sum(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(smooth.double(), expected, rtol=1e-4, atol=1e-9)  # float32


@pytest.mark.parametrize("size", [(16, 16), (33, 20)])
def test_a_diverse_image_is_a_small_image_on_black(size: tuple[int, int]) -> None:
    H, W = size
    attack = DIFGSM(probability=1.0, smallest=0.5)
    gray = torch.full((1, 3, H, W), 0.5)
    for draws in ((0.0, 0.0, 0.0, 0.0), (0.3, 0.4, 0.99, 0.5), (0.9, 0.999, 0.9, 0.0)):
        seen = attack._diverse(gray, *draws)
        assert seen.shape == gray.shape
        inside = seen[0, 0] > 0
        rows, columns = inside.any(dim=1).nonzero(), inside.any(dim=0).nonzero()
        h, w = len(rows), len(columns)
        share = 0.5 + 0.5 * draws[1]
        assert (h, w) == (round(share * H), round(share * W))
        assert int(rows[0]) == int(draws[2] * (H - h + 1)) and int(columns[0]) == int(draws[3] * (W - w + 1))
        assert (seen[0, 0][inside] - 0.5).abs().max() < 1e-6  # bilinear interpolation of one value, float32
    assert attack._diverse(gray, 0.999, 0.0, 0.0, 0.0) is not gray
    assert DIFGSM(probability=0.5)._diverse(gray, 0.5, 0.0, 0.0, 0.0) is gray


def test_the_slope_through_a_diverse_image_is_the_models(
    images: Callable[..., torch.Tensor], linear: IQAModel, weights: torch.Tensor
) -> None:
    """For a linear model: the transposed resize of the weights, by finite differences of the transformed score."""
    x, attack = images(2), DIFGSM(probability=1.0, smallest=0.6)
    objective = Objective(
        linear,
        x,
        None,
        goal=Goal(sign=torch.ones(2)),
        score_clean=linear(x).detach(),
        budget=Budget(),
        seeds=[1, 2],
        white_box=True,
    )
    _, slope = attack.evaluate(objective, x, x, ImageRNG([1, 2]))
    draws = ImageRNG([1, 2]).uniform((4,)).tolist()
    for i in range(2):
        for place in ((0, 3, 4), (2, 9, 9)):
            nudge = torch.zeros_like(x[i : i + 1])
            nudge[(0, *place)] = 1.0
            ends = [linear(attack._diverse(x[i : i + 1] + s * nudge, *draws[i])).item() for s in (1, -1)]
            assert slope[(i, *place)].item() == pytest.approx((ends[0] - ends[1]) / 2, abs=1e-3)  # float32 near 50


def test_diversity_is_drawn_per_image(images: Callable[..., torch.Tensor], convolutional: IQAModel) -> None:
    x, budget = images(4), Budget(eps_255=8, steps=4)
    attack = attacks.create("di-fgsm")
    whole = attack(convolutional, x, goal="up", budget=budget, seed=1)
    alone = attack(convolutional, x[2:3], goal="up", budget=budget, seed=1)
    # Sums of another order may turn a slope near zero.
    assert (whole.images[2] != alone.images[0]).float().mean() < 0.01
    other = attack(convolutional, x, goal="up", budget=budget, seed=2)
    assert not torch.equal(whole.images, other.images)


@pytest.mark.parametrize("name", ["i-fgsm", "mi-fgsm", "ni-fgsm", "di-fgsm", "ti-fgsm"])
@pytest.mark.parametrize("goal,queries,gradients", [("up", 4, 4), ("away", 10, 8)])
def test_the_cost_is_what_was_announced(
    images: Callable[..., torch.Tensor], linear: IQAModel, name: str, goal: str, queries: int, gradients: int
) -> None:
    attack, budget = attacks.create(name), Budget(steps=4)
    result = attack(linear, images(2), goal=goal, budget=budget)
    assert result.queries.tolist() == [queries] * 2 and result.gradients.tolist() == [gradients] * 2
    assert attack.cost(budget, goal) == (queries, gradients)


@pytest.mark.parametrize(
    "name,parameters",
    [
        ("i-fgsm", {"step_ratio": -0.1}),
        ("mi-fgsm", {"decay": -1}),
        ("mi-fgsm", {"normalize": 1}),
        ("ni-fgsm", {"decay": "much"}),
        ("di-fgsm", {"probability": 1.5}),
        ("di-fgsm", {"smallest": 0}),
        ("ti-fgsm", {"kernel": 14}),
        ("ti-fgsm", {"kernel": 1}),
    ],
)
def test_wrong_parameters_are_refused(name: str, parameters: dict[str, object]) -> None:
    with pytest.raises(ContractError, match=next(iter(parameters))):
        attacks.create(name, **parameters)


def test_a_model_without_a_slope_stays_where_it_is(
    images: Callable[..., torch.Tensor], make_model: type[IQAModel]
) -> None:
    flat = make_model(lambda x: 0 * x.flatten(1).sum(dim=1), ModelInfo(score_range=(0, 1)))
    x = images(2)
    for name in ("i-fgsm", "mi-fgsm", "ni-fgsm", "di-fgsm", "ti-fgsm", "madc", "korhonen-you"):
        assert torch.equal(run(attacks.create(name), flat, x, Budget(steps=3)), x)
