"""What no attack may do, tried by attacks that do it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from custom_attack import Custom

from iqa_robust import attacks
from iqa_robust.attacks.base import Attack, AttackResult
from iqa_robust.attacks.objectives import Objective
from iqa_robust.errors import ContractError
from iqa_robust.images import on_8bit_grid, to_8bit_grid
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class BlackBox(Custom):
    access = "black"


def _plain_gradient(objective: Objective, x: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_(True)
    return torch.autograd.grad(objective(leaf).sum(), leaf)[0]


@pytest.mark.parametrize("norm,eps_255", [("linf", 3), ("l2", 300)])
@pytest.mark.parametrize("returned", [lambda x: x + 0.5, lambda x: x * 0 + 7, lambda x: -9 - x])
def test_what_leaves_the_ball_or_the_range_is_brought_back(
    images: Callable[..., torch.Tensor],
    linear: IQAModel,
    returned: Callable[[torch.Tensor], torch.Tensor],
    norm: str,
    eps_255: float,
) -> None:
    x = images()
    attack = Custom(lambda objective, x, budget, rng: returned(x))
    result = attack(linear, x, goal="away", budget=Budget(norm=norm, eps_255=eps_255))
    assert bool(on_8bit_grid(result.images).all())
    assert result.images.min() >= 0 and result.images.max() <= 1
    difference = (result.images - x).flatten(1)
    levels = torch.round(difference.double() * 255)
    # whole gray levels, given back as float32
    torch.testing.assert_close(result.linf * 255, levels.abs().amax(dim=1).float(), rtol=1e-6, atol=0)
    # float64 sums, given back as float32
    torch.testing.assert_close(result.l2, (levels.norm(dim=1) / 255).float(), rtol=1e-6, atol=0)
    assert (result.linf if norm == "linf" else result.l2).max() <= eps_255 / 255 + 1e-6
    torch.testing.assert_close(result.score_adv, linear(result.images).detach(), rtol=0, atol=0)
    torch.testing.assert_close(result.score_clean, linear(x).detach(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "returned,message",
    [
        (lambda x: x * torch.nan, "Custom.perturb: returned NaN or infinite pixels."),
        (lambda x: x / 0, "Custom.perturb: returned NaN or infinite pixels."),
        (lambda x: x[:1], "Custom.perturb: expected images of shape (4, 3, 16, 16), got (1, 3, 16, 16)."),
        (lambda x: None, "Custom.perturb: expected images of shape (4, 3, 16, 16), got NoneType."),
        (
            lambda x: x.double(),
            "Custom.perturb: expected torch.float32 on cpu, got torch.float64 on cpu.",
        ),
    ],
)
def test_what_is_no_image_is_refused(
    images: Callable[..., torch.Tensor],
    linear: IQAModel,
    returned: Callable[[torch.Tensor], torch.Tensor],
    message: str,
) -> None:
    attack = Custom(lambda objective, x, budget, rng: returned(x))
    with pytest.raises(ContractError, match="^" + re.escape(message) + "$"):
        attack(linear, images(), goal="up", budget=Budget())


@pytest.mark.parametrize(
    "differentiate", [_plain_gradient, lambda objective, x: objective.gradient(x)[1]], ids=["autograd", "method"]
)
def test_a_black_box_objective_refuses_gradients(
    images: Callable[..., torch.Tensor],
    linear: IQAModel,
    differentiate: Callable[[Objective, torch.Tensor], torch.Tensor],
) -> None:
    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        with torch.enable_grad():
            return differentiate(objective, x)

    message = "objective: this attack is black-box, so it may not differentiate the model."
    with pytest.raises(ContractError, match=f"^{re.escape(message)}$"):
        BlackBox(perturb)(linear, images(), goal="up", budget=Budget())


def test_a_black_box_attack_gets_values_without_a_graph(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    seen = []

    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        seen.append(objective(x))
        return x

    BlackBox(perturb)(linear, images(), goal="up", budget=Budget())
    assert not seen[0].requires_grad


@pytest.mark.parametrize("kind", [Custom, BlackBox])
def test_queries_that_run_out_keep_the_best_image(
    images: Callable[..., torch.Tensor], linear: IQAModel, kind: type[Custom]
) -> None:
    x = images()
    tried: list[torch.Tensor] = []

    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        while True:
            z = to_8bit_grid(x + budget.eps * rng.signs(x.shape[1:]))
            objective(z)
            tried.append(z)

    result = kind(perturb)(linear, x, goal="up", budget=Budget(queries=7))
    assert result.queries.tolist() == [7] * len(x)
    assert len(tried) == 7
    scores = torch.stack([linear(z).detach() for z in tried])
    torch.testing.assert_close(result.score_adv, scores.max(dim=0).values, rtol=0, atol=0)
    expected = torch.stack([tried[best][i] for i, best in enumerate(scores.argmax(dim=0).tolist())])
    assert torch.equal(result.images, expected)


def test_an_image_tried_several_times_in_one_call_pays_for_each(
    images: Callable[..., torch.Tensor], linear: IQAModel
) -> None:
    x = images(2)
    found: list[torch.Tensor] = []

    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        z = to_8bit_grid(x[[0, 0, 1, 0]] + budget.eps * rng.signs((4, *x.shape[1:]))[0])
        values = objective(z, torch.tensor([0, 0, 1, 0]))
        found.append(values)
        assert objective.remaining().tolist() == [2, 4]
        objective(z[:3], torch.tensor([0, 0, 0]))  # one more than is left
        return x

    result = BlackBox(perturb)(linear, x, goal="up", budget=Budget(queries=5))
    assert result.queries.tolist() == [3, 1]
    expected = torch.stack([found[0][[0, 1, 3]].max(), found[0][2]]).clamp(min=0)  # else it is left alone
    # differences of scores near 50: one float32 rounding of 50 is 4e-6
    torch.testing.assert_close(result.score_adv - result.score_clean, expected, rtol=0, atol=1e-5)


def test_finished_images_may_leave(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        objective(x)
        late = torch.tensor([3, 1])
        objective.gradient(x[late], late)
        return x

    result = Custom(perturb)(linear, images(), goal="up", budget=Budget())
    assert result.queries.tolist() == [1, 2, 1, 2]
    assert result.gradients.tolist() == [0, 1, 0, 1]


def test_gradients_through_plain_autograd_are_counted(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        leaf = x.clone().requires_grad_(True)
        for _ in range(3):  # the same leaf again: earlier calls must not be counted twice
            objective(leaf).sum().backward()
        objective(leaf)  # a forward pass only
        return x

    result = Custom(perturb)(linear, images(), goal="up", budget=Budget())
    assert result.queries.tolist() == [4] * 4
    assert result.gradients.tolist() == [3] * 4
    assert not result.zero_gradient.any()


def test_a_zero_slope_is_noted_for_its_own_image_only(
    images: Callable[..., torch.Tensor], linear: IQAModel, make_model: type[IQAModel]
) -> None:
    """One leaf serves two images in turn; the slope of the second must not be booked to the first."""
    x = images(2)

    def half_flat(z: torch.Tensor) -> torch.Tensor:
        return torch.where((z - x[:1]).abs().flatten(1).amax(dim=1) < 1e-6, linear(z).detach(), linear(z))

    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        leaf = x[:1].clone().requires_grad_(True)
        objective(leaf, torch.tensor([0])).sum().backward()
        with torch.no_grad():
            leaf.copy_(x[1:])
        objective(leaf, torch.tensor([1])).sum().backward()
        return x

    result = Custom(perturb)(make_model(half_flat), x, goal="up", budget=Budget())
    assert result.gradients.tolist() == [1, 1]
    assert result.zero_gradient.tolist() == [True, False]


def test_a_slope_at_the_end_of_a_large_image_is_one(make_model: type[IQAModel]) -> None:
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def last_value_of_the_second(z: torch.Tensor) -> torch.Tensor:
        return z[:, -1, -1, -1] * torch.tensor([0.0, 1.0])

    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        objective.gradient(x)
        return x

    result = Custom(perturb)(make_model(last_value_of_the_second), x, goal="up", budget=Budget())
    assert result.zero_gradient.tolist() == [True, False]


def test_editing_the_images_in_place_buys_nothing(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    x = images()
    before = x.clone()

    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        x += 0.3
        return x + budget.eps

    result = Custom(perturb)(linear, x, goal="up", budget=Budget(eps_255=2))
    assert torch.equal(x, before)
    assert (result.images - before).abs().max() <= 2 / 255 + 1e-6


def test_an_attack_cannot_replace_the_call() -> None:
    with pytest.raises(ContractError, match="Cheat: an attack writes `perturb`; it may not replace `__call__`"):

        class Cheat(Attack):
            def __call__(self, *args: object, **kwargs: object) -> AttackResult:  # type: ignore[misc]
                raise NotImplementedError


@pytest.mark.parametrize("fails", [False, True])
def test_modes_parameters_and_gradients_are_left_as_found(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, fails: bool
) -> None:
    layers = convolutional.layers
    layers[1].train()
    layers[5].train()  # batch norm and dropout in training mode, the rest in evaluation mode
    layers[0].weight.requires_grad_(False)
    layers[3].weight.grad = torch.ones_like(layers[3].weight)
    modes = [module.training for module in convolutional.modules()]
    state = {name: value.clone() for name, value in convolutional.state_dict().items()}
    needs = [parameter.requires_grad for parameter in convolutional.parameters()]
    during = []

    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        during.extend(module.training for module in convolutional.modules())
        leaf = x.clone().requires_grad_(True)
        objective(leaf).sum().backward()
        if fails:
            raise RuntimeError("a bug of the attack")
        return x + budget.eps * leaf.grad.sign()

    if fails:
        with pytest.raises(RuntimeError, match="a bug of the attack"):
            Custom(perturb)(convolutional, images(), goal="up", budget=Budget())
    else:
        Custom(perturb)(convolutional, images(), goal="up", budget=Budget())
    assert not any(during)
    assert [module.training for module in convolutional.modules()] == modes
    assert [parameter.requires_grad for parameter in convolutional.parameters()] == needs
    for name, value in convolutional.state_dict().items():
        assert torch.equal(value, state[name])
    grads = [parameter.grad for parameter in convolutional.parameters()]
    assert sum(grad is not None for grad in grads) == 1
    assert torch.equal(layers[3].weight.grad, torch.ones_like(layers[3].weight))


def test_the_reference_is_never_perturbed(images: Callable[..., torch.Tensor], full_reference: IQAModel) -> None:
    x, ref = images(seed=1), images(seed=2)
    before = ref.clone()
    result = attacks.create("pgd")(full_reference, x, ref, goal="up", budget=Budget(steps=3))
    assert torch.equal(ref, before)
    torch.testing.assert_close(result.score_adv, full_reference(result.images, ref), rtol=0, atol=0)
    assert bool((result.score_adv > result.score_clean).all())
    with pytest.raises(ContractError, match="full-reference: pass the reference images"):
        attacks.create("pgd")(full_reference, x, goal="up", budget=Budget())


def test_a_no_reference_model_never_sees_a_reference(
    images: Callable[..., torch.Tensor], linear: IQAModel, make_model: type[IQAModel]
) -> None:
    x = images()
    with_ref = attacks.create("fgsm")(linear, x, images(seed=9), goal="up", budget=Budget())
    without = attacks.create("fgsm")(linear, x, goal="up", budget=Budget())
    assert torch.equal(with_ref.images, without.images)


def test_attacks_run_inside_inference_mode_and_autocast(
    images: Callable[..., torch.Tensor], convolutional: IQAModel
) -> None:
    x, attack = images(), attacks.create("pgd")
    plain = attack(convolutional, x, goal="up", budget=Budget(steps=2))
    with torch.inference_mode():
        inside = attack(convolutional, images(), goal="up", budget=Budget(steps=2))
    assert torch.equal(inside.images, plain.images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = attack(convolutional, x, goal="up", budget=Budget(steps=2))
    assert coarse.score_adv.dtype == torch.float32
    torch.testing.assert_close(coarse.score_adv, convolutional(coarse.images).detach(), rtol=0, atol=0)
    torch.testing.assert_close(coarse.score_clean, plain.score_clean, rtol=0, atol=0)


class TestRequests:
    """Wrong requests are refused before anything is spent, with one sentence that says why."""

    @pytest.mark.parametrize(
        "name,request_,message",
        [
            ("pgd", {"goal": "sideways"}, "goal: expected one of up, down, away, reflect, target, got 'side"),
            ("square", {"goal": "up", "budget": Budget(norm="l0")}, "got 'l0'"),
            ("score-reflection", {"goal": "up"}, "ScoreReflection serves the goals reflect, got 'up'"),
            ("pgd", {"goal": "target"}, "goal 'target': give the score to reach as `target`"),
            ("pgd", {"goal": "up", "target": 3.0}, "target: only the goal 'target' has one, got the goal 'up'"),
            ("pgd", {"goal": "target", "target": torch.ones(3)}, r"target: expected a number or shape \(4,\)"),
            ("pgd", {"goal": "target", "target": float("nan")}, "target: expected finite numbers"),
        ],
    )
    def test_each_is_explained(
        self,
        images: Callable[..., torch.Tensor],
        linear: IQAModel,
        name: str,
        request_: dict[str, object],
        message: str,
    ) -> None:
        with pytest.raises(ContractError, match=message):
            attacks.create(name)(linear, images(), **{"budget": Budget(), **request_})

    def test_reflection_needs_a_score_range(
        self, images: Callable[..., torch.Tensor], make_linear: type[IQAModel], weights: torch.Tensor
    ) -> None:
        with pytest.raises(ContractError, match="mirrors scores within the model's range, which is unknown"):
            attacks.create("pgd")(make_linear(weights, ModelInfo()), images(), goal="reflect", budget=Budget())

    def test_queries_must_pay_for_one_evaluation(self, images: Callable[..., torch.Tensor], noisy: IQAModel) -> None:
        with pytest.raises(ContractError, match="takes eot = 8 queries, got 5; raise queries or lower eot"):
            attacks.create("square")(noisy, images(), goal="up", budget=Budget(queries=5))

    def test_images_must_be_images(self, linear: IQAModel) -> None:
        with pytest.raises(ContractError, match="divide 8-bit values by 255"):
            attacks.create("fgsm")(linear, torch.full((1, 3, 16, 16), 200.0), goal="up", budget=Budget())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"model": torch.nn.Flatten()},
            "model: expected an IQAModel, got Flatten; make one with `models.create(name)`",
        ),
        ({"model": "compact"}, "model: expected an IQAModel, got str;"),
        ({"budget": None}, "budget: expected a Budget, such as Budget(eps_255=4), got None."),
        ({"budget": {"eps_255": 2}}, "budget: expected a Budget, such as Budget(eps_255=4), got {'eps_255': 2}."),
        ({"seed": -1}, "seed: expected a whole number >= 0, got -1."),
        ({"seed": 1.5}, "seed: expected a whole number >= 0, got 1.5."),
        ({"seed": True}, "seed: expected a whole number >= 0, got True."),
    ],
)
def test_arguments_of_another_kind_are_refused(
    images: Callable[..., torch.Tensor], linear: IQAModel, wrong: dict[str, object], message: str
) -> None:
    arguments = {"model": linear, "goal": "up", "budget": Budget(), **wrong}
    with pytest.raises(ContractError, match=re.escape(message)):
        attacks.create("pgd")(images=images(), **arguments)  # type: ignore[arg-type]
