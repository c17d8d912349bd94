"""What attacks that learn promise: fits that repeat, files that say what they hold, and no silent mix-up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from iqa_robust import attacks
from iqa_robust.attacks.trained_attack import Lesson, TrainedAttack, one_pass
from iqa_robust.attacks.universal.generative import FACPA, GenerativeUAP
from iqa_robust.attacks.universal.uap import UAP, CumulativeUAP
from iqa_robust.attacks.universal.unet import UNet
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

BUDGET = Budget(eps_255=4)
SMALL: dict[str, dict[str, int]] = {
    "uap": {"size": 16},
    "cumulative-uap": {"size": 16},
    "generative-uap": {"size": 16, "ngf": 4, "depth": 3},
    "facpa": {"ngf": 4, "depth": 3},
}
ALL = list(SMALL)


def make(name: str, **params: object) -> TrainedAttack:
    attack = attacks.create(name, **{**SMALL[name], "fit_epochs": 2, **params})
    assert isinstance(attack, TrainedAttack)
    return attack


@pytest.mark.parametrize("name", ALL)
def test_what_was_saved_attacks_alike(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, name: str, tmp_path: Path
) -> None:
    x, path = images(3), tmp_path / "attack.safetensors"
    attack = make(name)
    attack.fit(convolutional, list(images(5, seed=4)), goal="up", budget=BUDGET)
    attack.save(path)
    expected = attack(convolutional, x, goal="up", budget=BUDGET)
    named, loaded = make(name, weights=str(path)), make(name)
    loaded.load(path)
    for other in (named, loaded):
        assert other.fitted
        found = other(convolutional, x, goal="up", budget=BUDGET)
        assert torch.equal(found.images, expected.images)


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_learns_the_same(images: Callable[..., torch.Tensor], convolutional: IQAModel, name: str) -> None:
    states = []
    for seed, around in ((1, 5), (1, 6), (2, 5)):
        torch.manual_seed(around)  # must not matter
        attack = make(name)
        attack.fit(convolutional, list(images(9)), goal="down", budget=BUDGET, seed=seed)
        states.append(attack.state)
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert any(not torch.equal(value, states[2][key]) for key, value in states[0].items())


@pytest.mark.parametrize("name", ALL)
def test_images_of_several_sizes_serve_one_fit(
    images: Callable[..., torch.Tensor], make_model: type[IQAModel], name: str
) -> None:
    brightness = make_model(lambda z: 100 * z.mean(dim=(1, 2, 3)))  # type: ignore[call-arg]
    several = [*images(2, size=12), *images(2, size=20, seed=1), images(1, size=16)[0][:, :9, :]]
    attack = make(name, size=24) if "size" in SMALL[name] else make(name)
    attack.fit(brightness, several, goal="up", budget=Budget(eps_255=8))
    if "pattern" in attack.state:
        assert attack.state["pattern"].shape == (1, 3, 20, 20), "as large as the largest image, not as `size`"
    for size in (11, 30):
        x = images(2, size=size, low=50, high=200)
        result = attack(brightness, x, goal="up", budget=Budget(eps_255=8))
        assert result.images.shape == x.shape and bool((result.score_adv > result.score_clean).all())


@pytest.mark.parametrize("name", ALL)
def test_full_reference_models_are_fitted_with_their_references(
    images: Callable[..., torch.Tensor], full_reference: IQAModel, name: str
) -> None:
    x, ref = images(3), images(3, seed=1)
    attack = make(name, fit_epochs=10)
    attack.fit(full_reference, list(x), list(ref), goal="down", budget=BUDGET)
    result = attack(full_reference, x, ref, goal="down", budget=BUDGET)
    assert result.score_adv.mean() < result.score_clean.mean()
    with pytest.raises(ContractError, match=r"UAP.fit: expected one reference per image, got 2 for 3"):
        UAP().fit(full_reference, list(x), list(ref[:2]), goal="down", budget=BUDGET)
    with pytest.raises(ContractError, match="the model is full-reference"):
        UAP().fit(full_reference, list(x), goal="down", budget=BUDGET)


def test_nothing_learned_and_another_goal_are_refused(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    attack = UAP()
    assert not attack.fitted
    with pytest.raises(ContractError, match="UAP learns first: call `fit` with images of another split"):
        attack(linear, images(), goal="up", budget=BUDGET)
    with pytest.raises(ContractError, match=r"UAP.fit: expected at least one image"):
        attack.fit(linear, [], goal="up", budget=BUDGET)
    with pytest.raises(ContractError, match="UAP serves the goals up, down, away, got 'target'"):
        attack.fit(linear, list(images()), goal="target", budget=BUDGET, target=3.0)
    attack.fit(linear, list(images()), goal="up", budget=BUDGET)
    with pytest.raises(ContractError, match="UAP has learned the goal 'up', got 'down'; fit it again"):
        attack(linear, images(), goal="down", budget=BUDGET)


def test_a_file_of_something_else_is_refused_in_one_sentence(
    images: Callable[..., torch.Tensor], linear: IQAModel, tmp_path: Path
) -> None:
    path = tmp_path / "uap.safetensors"
    attack = UAP(size=16)
    attack.fit(linear, list(images()), goal="up", budget=BUDGET)
    attack.save(path)
    with pytest.raises(ContractError, match="expected a saved CumulativeUAP, got a UAP"):
        CumulativeUAP(size=16).load(path)
    with pytest.raises(ContractError, match=r"saved with size=16 \(here 256\), step_ratio=0.25 \(here 0.5\); create"):
        UAP(step_ratio=0.5).load(path)
    with pytest.raises(ContractError, match="not a saved attack"):
        UAP(weights=str(tmp_path / "missing.safetensors")).state  # noqa: B018 (reading it is the test)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:-3])
    plain, strange = tmp_path / "plain.safetensors", tmp_path / "strange.safetensors"
    save_file({"pattern": torch.zeros(1)}, plain)
    said = {"attack": "UAP", "parameters": {}, "learned": {}}
    save_file({"pattern": torch.zeros(1)}, strange, metadata={"attack": json.dumps(said)})
    torch.save({"pattern": torch.zeros(1)}, tmp_path / "pickle.safetensors")
    for other in (broken, plain, strange, tmp_path / "pickle.safetensors", tmp_path):
        with pytest.raises(ContractError, match="not a saved attack"):
            UAP(size=16).load(other)
    kept = UAP(size=16)
    kept.load(path)
    with pytest.raises(ContractError):
        kept.load(broken)
    assert torch.equal(kept.state["pattern"], attack.state["pattern"]), "a failed load leaves what was there"


def test_the_fit_leaves_images_and_model_alone(images: Callable[..., torch.Tensor], convolutional: IQAModel) -> None:
    x = images(3)
    kept, before = x.clone(), {name: value.clone() for name, value in convolutional.state_dict().items()}
    convolutional.train()
    FACPA(ngf=2, depth=2).fit(convolutional, list(x), goal="up", budget=BUDGET)
    assert torch.equal(x, kept) and convolutional.training
    assert all(torch.equal(value, before[name]) for name, value in convolutional.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in convolutional.parameters())


def test_a_pass_shows_every_image_once() -> None:
    lessons = [Lesson(torch.zeros(n, 3, 4, 4), None, 1.0) for n in (5, 1, 8)]  # type: ignore[arg-type]
    seen = one_pass(lessons, 4, ImageRNG([0]))
    for lesson in lessons:
        parts = [index for other, index in seen if other is lesson]
        assert sorted(torch.cat(parts).tolist()) == list(range(len(lesson.x)))
        assert max(map(len, parts)) <= 4
    orders = [[i.tolist() for _, i in one_pass(lessons, 4, ImageRNG([seed]))] for seed in range(3)]
    assert orders[0] == [i.tolist() for _, i in seen] and orders[0] != orders[1]


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (16, 16), (33, 40)])
def test_the_network_serves_every_size_and_treats_images_one_by_one(size: tuple[int, int]) -> None:
    network = UNet(ngf=3, depth=3).draw(ImageRNG([0]))
    x = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = network(x)
        assert whole.shape == x.shape and whole.abs().max() < 1
        alone = torch.cat([network(image[None]) for image in x])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-5)  # convolutions of another batch size


def test_the_network_of_the_papers_has_their_number_of_weights() -> None:
    """Counted layer by layer: 16 weights a kernel and a bias per output; the ways up see twice the width."""
    widths = [64, 128, 256, 512, 512, 512, 512, 512]
    down = sum(16 * a * b + b for a, b in zip([3, *widths], widths, strict=False))
    up = 16 * 512 * 512 + 512 + sum(16 * 2 * a * b + b for a, b in zip(widths[:-1], [3, *widths[:-2]], strict=True))
    network = UNet(ngf=64, depth=8)
    assert sum(parameter.numel() for parameter in network.parameters()) == down + up


def test_dropout_is_drawn_from_what_is_given_and_only_in_the_deep_network() -> None:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    deep, shallow = (UNet(ngf=2, depth=depth).draw(ImageRNG([0])) for depth in (6, 5))
    with torch.no_grad():
        assert torch.equal(deep(x, ImageRNG([3])), deep(x, ImageRNG([3])))
        assert not torch.equal(deep(x, ImageRNG([3])), deep(x, ImageRNG([4])))
        assert not torch.equal(deep(x, ImageRNG([3])), deep(x))
        assert torch.equal(shallow(x, ImageRNG([3])), shallow(x))


@pytest.mark.parametrize(
    "kind,params",
    [
        (UAP, {"size": 0}),
        (UAP, {"step_ratio": 0}),
        (UAP, {"fit_images": 0}),
        (UAP, {"fit_epochs": 1.5}),
        (UAP, {"weights": 3}),
        (CumulativeUAP, {"rate": -1}),
        (CumulativeUAP, {"size": "x"}),
        (GenerativeUAP, {"ngf": 0}),
        (GenerativeUAP, {"depth": 0}),
        (GenerativeUAP, {"size": 0}),
        (GenerativeUAP, {"rate": 0}),
        (FACPA, {"ngf": True}),
        (FACPA, {"depth": None}),
        (FACPA, {"rate": "x"}),
    ],
)
def test_parameters_are_checked(kind: type[TrainedAttack], params: dict[str, object]) -> None:
    with pytest.raises(ContractError, match=f"{kind.__name__}: expected {next(iter(params))}"):
        kind(**params)  # type: ignore[arg-type]
