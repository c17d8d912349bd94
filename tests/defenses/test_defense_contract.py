"""What every purifier of this room keeps, and what `PurifiedModel` makes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from iqa_robust import defenses
from iqa_robust.defenses.base import DifferentiablePurifier, Purifier
from iqa_robust.defenses.codec.jpeg import JPEG
from iqa_robust.defenses.filtering.gaussian import Gaussian
from iqa_robust.defenses.filtering.median import Median
from iqa_robust.defenses.geometry.random_crop import RandomCrop
from iqa_robust.defenses.quantization.bit_depth import BitDepth
from iqa_robust.errors import ContractError, UnknownNameError
from iqa_robust.models.base import IQAModel, ModelInfo, wrap
from iqa_robust.models.randomness import draws, seeded

PURIFIERS: dict[str, Callable[[], Purifier]] = {
    "bit-depth": lambda: BitDepth(bits=3),
    "gaussian": lambda: Gaussian(sigma=0.8),
    "jpeg": lambda: JPEG(quality=40),
    "median": lambda: Median(size=5),
    "random-crop": lambda: RandomCrop(fraction=0.75),
}
every_purifier = pytest.mark.parametrize("name", list(PURIFIERS))


def photos(n: int = 3, height: int = 37, width: int = 50) -> torch.Tensor:
    pixels = data.astronaut()
    crops = [pixels[100 * i : 100 * i + height, 150 : 150 + width] for i in range(n)]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


class Network(nn.Module):
    """A small network with state that a careless defense could change."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Softplus(), nn.Conv2d(4, 1, 3, padding=1)
        )
        for number, parameter in enumerate(self.parameters()):
            with torch.no_grad():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape).cos() + number)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x).mean(dim=(1, 2, 3))


def network() -> IQAModel:
    return wrap(Network(), ModelInfo(score_range=(0.0, 10.0), higher_is_better=False)).eval()


@every_purifier
def test_range_shape_and_dtype(name: str) -> None:
    x = photos()
    x[0, :, :9, :9], x[0, :, 9:18, :9] = 0.0, 1.0
    purified = PURIFIERS[name]().purify(x)
    assert purified.dtype == torch.float32
    assert purified.shape[:2] == x.shape[:2]
    assert purified.shape == x.shape or not PURIFIERS[name]().keeps_geometry
    assert torch.isfinite(purified).all()
    assert purified.min() >= 0
    assert purified.max() <= 1


@every_purifier
def test_the_score_is_the_models_on_the_purified_image(name: str) -> None:
    model, x, defense = network(), photos(), PURIFIERS[name]()
    with seeded([1, 2, 3]):
        defended = defense.wrap(model)(x)
    with seeded([1, 2, 3]):
        assert torch.equal(defended, model(defense.purify(x)))


@every_purifier
def test_wrapping_never_edits_the_model(name: str) -> None:
    model, x = network(), photos()
    model.module.features[2].train()  # a mixed state, to be kept as it is; Softplus does the same in either mode
    state, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    before, info = model(x), model.info
    defended = PURIFIERS[name]().wrap(model)
    z = x.clone().requires_grad_(True)
    torch.autograd.grad(defended(z).sum(), z)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model(x), before)
    assert model.info is info


@every_purifier
def test_the_wrapped_model_keeps_what_is_known_of_the_model(name: str) -> None:
    info = PURIFIERS[name]().wrap(network()).info
    assert (info.score_range, info.higher_is_better) == ((0.0, 10.0), False)
    assert info.deterministic is PURIFIERS[name]().deterministic


@every_purifier
def test_the_gradient_is_alive_and_is_that_of_the_surrogate(name: str) -> None:
    model, x, defense = network(), photos().requires_grad_(True), PURIFIERS[name]()
    with seeded([1, 2, 3]):
        (slope,) = torch.autograd.grad(defense.wrap(model)(x).sum(), x)
    assert torch.isfinite(slope).all()
    assert (slope != 0).flatten(1).any(dim=1).all()
    with seeded([1, 2, 3]):  # by hand: the model's slope at the purified image, pulled back through the surrogate
        exact = defense.purify(x.detach()).requires_grad_(True)
    (outer,) = torch.autograd.grad(model(exact).sum(), exact)
    with seeded([1, 2, 3]):
        (expected,) = torch.autograd.grad(defense.surrogate(x), x, grad_outputs=outer)
    # With a gradient the wrapped model passes on slope + (exact - slope): exact up to one float32 rounding.
    assert torch.allclose(slope, expected, rtol=1e-4, atol=1e-7 * outer.abs().max().item())


@every_purifier
def test_the_value_is_the_same_with_and_without_a_gradient(name: str) -> None:
    defended, x = PURIFIERS[name]().wrap(network()), photos()
    with seeded([1, 2, 3]):
        plain = defended(x)
    with seeded([1, 2, 3]):
        followed = defended(x.clone().requires_grad_(True)).detach()
    assert torch.allclose(plain, followed, rtol=1e-5)  # slope + (exact - slope) may differ by one float32 rounding


@every_purifier
def test_a_batch_is_its_images(name: str) -> None:
    defended, x = PURIFIERS[name]().wrap(network()), photos()
    with seeded([4, 5, 6]):
        together = defended(x)
    for i in range(3):
        with seeded([4 + i]):
            # convolutions of another batch size may add up in another order
            assert torch.allclose(defended(x[i : i + 1]), together[i : i + 1], rtol=1e-5)


@every_purifier
def test_defenses_compose(name: str) -> None:
    model, x = network(), photos()
    inner, outer = PURIFIERS["jpeg"](), PURIFIERS[name]()
    stacked = outer.wrap(inner.wrap(model))
    with seeded([1, 2, 3]):
        scores = stacked(x)
    with seeded([1, 2, 3]):
        assert torch.equal(scores, model(inner.purify(outer.purify(x))))
    z = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(stacked(z).sum(), z)
    assert (slope != 0).any()


@pytest.mark.parametrize("name", ["bit-depth", "gaussian", "jpeg", "median"])
def test_a_reference_is_not_purified(name: str) -> None:
    model = wrap(lambda x, ref: (x - ref).square().mean(dim=(1, 2, 3)), ModelInfo(full_reference=True))
    x, ref = photos(), photos().roll(1, dims=3)
    defense = PURIFIERS[name]()
    assert torch.equal(defense.wrap(model)(x, ref), model(defense.purify(x), ref))


class Wavering(Purifier):
    """Randomized and without an exact gradient: rounding with a dither."""

    deterministic = False

    def _dither(self, x: torch.Tensor) -> torch.Tensor:
        return draws(x.shape[0]).uniform(x.shape[1:], -0.1, 0.1)

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return torch.round((x + self._dither(x)).clamp(0, 1) * 8) / 8

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        return x * (1 + self._dither(x))


def test_value_and_slope_of_a_randomized_purifier_see_the_same_draw() -> None:
    x = photos().requires_grad_(True)
    total = wrap(lambda z: z.sum(dim=(1, 2, 3)))
    dithers: list[torch.Tensor] = []
    plain = Wavering._dither

    class Recording(Wavering):
        def _dither(self, x: torch.Tensor) -> torch.Tensor:
            dithers.append(plain(self, x))
            return dithers[-1]

    with seeded([1, 2, 3]):
        (slope,) = torch.autograd.grad(Recording().wrap(total)(x).sum(), x)
    assert len(dithers) == 2
    assert torch.equal(dithers[0], dithers[1])
    assert torch.allclose(slope, 1 + dithers[0])


def test_a_surrogate_of_another_shape_is_refused() -> None:
    class Shrinking(Wavering):
        deterministic = True

        def surrogate(self, x: torch.Tensor) -> torch.Tensor:
            return x[..., 1:]

    with pytest.raises(ContractError, match=r"Shrinking\.surrogate: expected the shape of purify \(3, 3, 37, 50\)"):
        Shrinking().wrap(network())(photos().requires_grad_(True))


def test_a_differentiable_purifier_is_its_own_surrogate() -> None:
    assert isinstance(Median(), DifferentiablePurifier)
    assert torch.equal(Median().surrogate(photos()), Median().purify(photos()))


@pytest.mark.parametrize(
    "name", ["jpeg", "resize", "median-smoothing", "randomized-smoothing", "canary-rank", "jpeg+flip"]
)
@pytest.mark.parametrize("model", [None, nn.Flatten()])
def test_what_is_no_model_is_not_wrapped(name: str, model: object) -> None:
    with pytest.raises(ContractError, match=f"expected an IQAModel, got {type(model).__name__}; make one with"):
        defenses.create(name).wrap(model)  # type: ignore[arg-type]


def test_a_trained_model_replaces_a_model_only() -> None:
    with pytest.raises(ContractError, match="expected an IQAModel, got NoneType; make one with"):
        defenses.create("trained", model="compact").wrap(None)  # type: ignore[arg-type]


def test_the_bare_model_is_no_defense() -> None:
    with pytest.raises(UnknownNameError, match="'none': it is the bare model, which defense=None asks for"):
        defenses.create("none")


@pytest.mark.parametrize(
    ("returned", "got"),
    [
        (lambda x: x[:, :1], r"\(2, 1, 16, 16\)"),
        (lambda x: x[:1], r"\(1, 3, 16, 16\)"),
        (lambda x: x[0], r"\(3, 16, 16\)"),
        (lambda x: None, "NoneType"),
    ],
)
@pytest.mark.parametrize("base", [Purifier, DifferentiablePurifier])
def test_what_purify_returns_is_checked(base: type[Purifier], returned: Callable, got: str) -> None:
    class Wrong(base):  # type: ignore[misc, valid-type]
        def purify(self, x: torch.Tensor) -> torch.Tensor:
            return returned(x)

        def surrogate(self, x: torch.Tensor) -> torch.Tensor:
            return x

    wrapped = Wrong().wrap(wrap(lambda x: x.mean((1, 2, 3))))
    for with_gradient in (False, True):
        x = torch.rand(2, 3, 16, 16).requires_grad_(with_gradient)
        with pytest.raises(
            ContractError, match=rf"Wrong.purify: expected images of shape \(2, 3, H', W'\), got {got}\."
        ):
            wrapped(x)
