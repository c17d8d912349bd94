"""`a+b`: the composition of the parts by hand, in value, slope, draw and promises."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
import torch

import iqa_robust as ir
from iqa_robust.defenses.base import Defense, Purifier
from iqa_robust.defenses.codec.jpeg import JPEG
from iqa_robust.defenses.filtering.gaussian import Gaussian
from iqa_robust.defenses.geometry.random_crop import RandomCrop
from iqa_robust.defenses.naming import DefenseRegistry
from iqa_robust.errors import ContractError, RequestError, UnknownNameError
from iqa_robust.harness.components import describe, describe_object, make_defense
from iqa_robust.models.base import IQAModel, WrappedModel
from iqa_robust.models.randomness import seeded
from iqa_robust.testing import check_defense
from iqa_robust.testing.pictures import pictures
from iqa_robust.testing.toy import ToyNetwork, ToyReference

create = ir.defenses.create


def test_the_first_part_meets_the_image_first() -> None:
    x = pictures(2, 40, 50)
    expected = Gaussian(sigma=1.5).purify(JPEG(quality=20).purify(x))
    found = create("jpeg+gaussian", jpeg={"quality": 20}, gaussian={"sigma": 1.5})
    assert isinstance(found, Purifier)
    assert torch.equal(found.purify(x), expected)
    assert not torch.equal(create("gaussian+jpeg").purify(x), create("jpeg+gaussian").purify(x))  # type: ignore[attr-defined]


def test_the_slope_is_that_of_the_parts_at_the_images_they_really_give() -> None:
    x = pictures(1, 40, 40).requires_grad_(True)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((create("bit-depth+jpeg").surrogate(x) * weights).sum(), x)  # type: ignore[attr-defined]
    middle = (torch.round(x.detach() * 15) / 15).requires_grad_(True)  # the identity stands in for the rounding
    (expected,) = torch.autograd.grad((JPEG().surrogate(middle) * weights).sum(), middle)
    # The two ways to write the rounded image differ in the last digit of float32.
    assert torch.allclose(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


def test_scores_and_slopes_are_those_of_wrapping_twice() -> None:
    model = ToyNetwork().eval()
    x = pictures(2, 48, 48).requires_grad_(True)
    by_hand = RandomCrop(fraction=0.8).wrap(JPEG(quality=30).wrap(model)).eval()
    by_name = create("random-crop+jpeg", random_crop={"fraction": 0.8}, jpeg={"quality": 30}).wrap(model).eval()
    slopes = []
    for system in (by_hand, by_name):
        with seeded([3, 4]):
            slopes.append(torch.autograd.grad(system(x).sum(), x)[0])
    assert torch.equal(*slopes)
    assert by_name.info == by_hand.info
    assert not by_name.info.deterministic


def test_a_randomized_purifier_is_differentiated_under_the_draw_it_is_scored_with() -> None:
    both = create("random-crop+jpeg")
    x = pictures(2, 48, 48)
    with seeded([3, 4]):
        scored = both.purify(x)  # type: ignore[attr-defined]
    with seeded([3, 4]):
        attacked = both.surrogate(x)  # type: ignore[attr-defined]
    assert torch.allclose(scored, attacked, atol=1e-6)  # float32 rounding of slope + (exact - slope)


@pytest.mark.parametrize("name", ["jpeg+gaussian", "random-crop+bit-depth", "median+median"])
def test_conforms(name: str) -> None:
    check_defense(name).raise_if_failed()


def test_promises_are_inherited() -> None:
    assert ir.defenses.get("jpeg+gaussian").deterministic
    assert not ir.defenses.get("jpeg+random-crop").deterministic
    assert not ir.defenses.get("jpeg+random-crop").keeps_geometry  # type: ignore[attr-defined]
    with pytest.raises(ContractError, match="changes the frame of the image"):
        create("jpeg+random-crop").wrap(ToyReference())


def test_parameters_are_filled_stored_and_made_again() -> None:
    component = describe(ir.defenses.registry, "jpeg+random-crop+jpeg", {"random-crop": {"fraction": 0.5}})
    assert component.params == {"jpeg": {"quality": 75}, "random_crop": {"fraction": 0.5}, "jpeg_2": {"quality": 75}}
    assert component.distribution == "iqa-robust"
    again = make_defense(component)
    assert describe_object(again, ir.defenses.registry) == component
    assert again.random_crop == {"fraction": 0.5}  # type: ignore[union-attr]


class Doubled(Defense):
    """Not a purifier: a model of twice the score."""

    def wrap(self, model: IQAModel) -> IQAModel:
        """Twice the score."""

        class Twice(WrappedModel):
            def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
                return 2 * self.model(x, ref)

        return Twice(model, model.info)


def test_any_defense_can_be_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ir.defenses.registry._added, "doubled", Doubled)
    x, model = pictures(2, 40, 40), ToyNetwork().eval()
    both = create("doubled+median")
    assert not isinstance(both, Purifier)
    with torch.no_grad():
        assert torch.equal(both.wrap(model)(x), 2 * create("median").wrap(model)(x))


def test_a_plugin_can_be_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    target = EntryPoint("soft-blur", "iqa_robust.defenses.filtering.gaussian:Gaussian", "iqa_robust.defenses")
    monkeypatch.setattr("iqa_robust.registry._entry_points", lambda group: [(target, "acme-iqa", "1.2")])
    registry = DefenseRegistry(
        "defense",
        base="iqa_robust.defenses.base:Defense",
        builtins={"jpeg": "iqa_robust.defenses.codec.jpeg:JPEG"},
    )
    component = describe(registry, "acme-iqa/soft-blur+jpeg", {"acme-iqa/soft-blur": {"sigma": 2.0}})
    assert component.params == {"acme_iqa_soft_blur": {"sigma": 2.0}, "jpeg": {"quality": 75}}
    assert (component.distribution, component.version) == ("acme-iqa", "1.2")
    x = pictures(1, 40, 40)
    made = registry.create(component.name, **component.params)
    assert torch.equal(made.purify(x), JPEG().purify(Gaussian(sigma=2.0).purify(x)))  # type: ignore[attr-defined]
    assert registry.status(component.name) == ("ok", "")
    assert component.name not in registry.names()


@pytest.mark.parametrize(
    ("name", "params", "error", "sentence"),
    [
        (
            "jpeg+gausian",
            {},
            UnknownNameError,
            r"^no defense named 'gausian'\. Did you mean 'gaussian'.*\? See `iqa-robust list defenses`\.$",
        ),
        (
            "jpeg+",
            {},
            RequestError,
            r"^defense 'jpeg\+': a part is empty; write the names of defenses, joined by '\+'\.$",
        ),
        (
            "+".join(["jpeg"] * 1500),
            {},
            RequestError,
            r"^defense '(jpeg\+){8}'\.\.\.: expected at most 32 parts, got 1500\.$",
        ),
        (
            "jpeg+median",
            {"quality": 5},
            RequestError,
            r"^defense 'jpeg\+median': got an unexpected keyword argument 'quality'; it takes: jpeg, median\.$",
        ),
        (
            "jpeg+median",
            {"jpeg": 5},
            RequestError,
            r"^defense 'jpeg\+median': expected jpeg to be the parameters of 'jpeg' by name, got 5\.$",
        ),
        (
            "jpeg+median",
            {"median": {"width": 5}},
            RequestError,
            r"^defense 'median': got an unexpected keyword argument 'width'; it takes: size\.$",
        ),
        ("jpeg+median", {"median": {"size": 2}}, ContractError, r"^Median: expected size to be an odd whole number"),
    ],
)
def test_refuses(name: str, params: dict, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        create(name, **params)
