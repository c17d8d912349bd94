"""The conformance suite of attacks."""

from __future__ import annotations

import time
from typing import Any

import torch

from iqa_robust import attacks
from iqa_robust.attacks.base import Attack, AttackResult
from iqa_robust.attacks.norms import TOLERANCE, inside, measure, random_start, snap
from iqa_robust.attacks.set_attack import SetAttack, SetScores
from iqa_robust.attacks.trained_attack import TrainedAttack
from iqa_robust.images import on_8bit_grid
from iqa_robust.models.base import IQAModel, WrappedModel, with_score_range
from iqa_robust.models.modes import evaluation_mode
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import GOALS, NORMS, Budget
from iqa_robust.testing.pictures import pictures
from iqa_robust.testing.pretended_gpu import some_gpu
from iqa_robust.testing.report import Report, ViolationError, expect, run
from iqa_robust.testing.subject import check_constructor, parameters, resolve
from iqa_robust.testing.toy import OfReference, Recorder, ToyLinear, ToyNetwork, ToyReference
from iqa_robust.testing.traces import no_global_randomness, untouched

SIZE = (33, 40)
N_IMAGES = 3
LEVELS = 4.0
"""Radius of the L-infinity budget in gray levels; `_radius` gives the other norms one like it."""
STEPS = 8
QUERIES = 60
FEW_QUERIES = 12
"""Where nothing has to be found."""
JUDGING = 3
"""Passes per image that are the judge's own: the clean score, and at most two candidates."""
BATCH_SHARE = 1e-3
"""Part of the values that may differ by one gray level with the batch: float32 sums of another order, rounded."""
TURNED_SHARE = 1e-4
"""Part that may differ by more: where a slope is near zero, such a sum can turn its sign."""


def check(attack: Attack | str) -> Report:
    """Ask everything of an attack; see `iqa_robust.testing.check_attack`."""
    title, instance = resolve(attack, attacks.registry, Attack)  # type: ignore[type-abstract]
    suite = _Suite(instance)
    questions = [
        ("declarations", suite.declarations),
        ("runs", suite.runs),
        ("constructor", lambda: check_constructor(instance)),
        ("budget", suite.budget),
        ("direction", suite.direction),
        ("honest-scores", suite.honest_scores),
        ("access", suite.access),
        ("query-budget", suite.query_budget),
        ("repeatable", suite.repeatable),
        ("batch", suite.batch),
        ("input-unchanged", suite.input_unchanged),
        ("model-unchanged", suite.model_unchanged),
        ("global-randomness", suite.global_randomness),
        ("gpu", suite.gpu),
        ("cost", suite.cost),
    ]
    return run(title, questions, essential=2)


def _radius(norm: str, levels: float = LEVELS) -> float:
    """`eps_255` of a budget as visible as a change of a quarter of the values by `levels` gray levels."""
    return {
        "linf": levels,
        "l2": levels * (3 * SIZE[0] * SIZE[1]) ** 0.5 / 2,
        "psnr": levels / 2,
        "ssim": 255 * 0.01 * levels,
        "l0": 255 * 0.005 * levels,
        "patch": 255 * 0.01 * levels,
    }[norm]


class _Suite:
    def __init__(self, attack: Attack) -> None:
        self.attack = attack
        self.images = pictures(N_IMAGES, *SIZE)
        self.taught: dict[tuple[object, ...], TrainedAttack] = {}

    def attacked(self, model: IQAModel, images: torch.Tensor | None = None, **request: Any) -> AttackResult:
        """One call; by default with the attack's first goal and norm, and budgets that are quickly spent."""
        images = self.images if images is None else images
        goal = request.pop("goal", self.attack.goals[0])
        norm = request.pop("norm", self.attack.norms[0])
        budget = Budget(
            norm=norm,
            eps_255=request.pop("eps_255", _radius(norm)),
            steps=request.pop("steps", STEPS),
            queries=request.pop("queries", QUERIES),
        )
        attack = self.attack
        if isinstance(attack, TrainedAttack):
            attack = self._taught(model, images.device, goal, norm, request.get("ref"))
        if attack.perturbs == "reference" and not model.info.full_reference:
            model, request["ref"] = OfReference(model), images
        with evaluation_mode(model), torch.no_grad():
            clean = model(images, request.get("ref")).float()
        if goal == "target":
            request["target"] = clean + 10
        if isinstance(attack, SetAttack) and "target" not in request:
            request["target"] = self._planned(model, clean)
        if attack.needs_labels:
            request["labels"] = clean
        return attack(model, images, goal=goal, budget=budget, **request)

    def _planned(self, model: IQAModel, clean: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.attack, SetAttack)
        info = model.info
        scores = SetScores(clean, info.score_range, info.higher_is_better, [None] * len(clean))
        return self.attack.planned(scores, seed=0)

    def _taught(
        self, model: IQAModel, device: torch.device, goal: str, norm: str, ref: torch.Tensor | None
    ) -> TrainedAttack:
        """A copy of a trained attack that has learned this goal and norm on this model, on other pictures; kept."""
        key = type(_innermost(model)), device, model.info.higher_is_better, goal, norm
        if key not in self.taught:
            self.taught[key] = self._fit(_innermost(model), device, goal, norm, ref)
        return self.taught[key]

    def _fit(
        self, model: IQAModel, device: torch.device, goal: str, norm: str, ref: torch.Tensor | None
    ) -> TrainedAttack:
        attack = type(self.attack)(**{**parameters(self.attack), "weights": None})
        assert isinstance(attack, TrainedAttack)
        images = list(pictures(2 * N_IMAGES, *SIZE)[N_IMAGES:].to(device))
        refs = None if ref is None else [image.roll(1, dims=2) for image in images]
        attack.fit(model, images, refs, goal=goal, budget=Budget(norm=norm, eps_255=_radius(norm), steps=STEPS))
        return attack

    def _fresh(self, model: IQAModel) -> TrainedAttack:
        return self._fit(model, self.images.device, self.attack.goals[0], self.attack.norms[0], None)

    def declarations(self) -> str:
        attack = self.attack
        expect(
            attack.access in ("white", "black"),
            f"expected access to be 'white' or 'black', got {attack.access!r}.",
        )
        for name, declared, known in (("norms", attack.norms, NORMS), ("goals", attack.goals, GOALS)):
            expect(
                isinstance(declared, tuple) and bool(declared) and set(declared) <= set(known),
                f"expected {name} to be a tuple out of {', '.join(known)}, got {declared!r}.",
            )
        return f"{attack.access} box, {', '.join(attack.norms)}, goals {', '.join(attack.goals)}"

    def runs(self) -> str:
        """Every declared goal and norm, a network and a full-reference model."""
        for norm in self.attack.norms:
            for goal in self.attack.goals:
                self._check_result(self.attacked(ToyNetwork().eval(), goal=goal, norm=norm), f"{goal}, {norm}")
        ref = self.images.roll(1, dims=3)
        self._check_result(self.attacked(ToyReference().eval(), ref=ref), "a full-reference model")
        return f"{len(self.attack.norms) * len(self.attack.goals)} goals and norms, a full-reference model"

    def _check_result(self, result: AttackResult, where: str) -> None:
        for name in ("score_clean", "score_adv", "queries", "gradients", "linf", "l2"):
            value = getattr(result, name)
            expect(
                value.shape == (N_IMAGES,) and bool(torch.isfinite(value).all()),
                f"{where}: expected {N_IMAGES} finite numbers in {name}, got {value.tolist()}.",
            )

    def budget(self) -> str:
        """Measured here, on the final images, for several radii."""
        found = []
        for norm in self.attack.norms:
            for levels in (0.0, 1.0, LEVELS, 2 * LEVELS):
                eps_255 = _radius(norm, levels)
                result = self.attacked(ToyLinear(), norm=norm, eps_255=eps_255)
                images = result.images
                where = f"{norm}, eps {eps_255:.4g}/255"
                expect(
                    images.shape == self.images.shape and images.dtype == torch.float32,
                    f"{where}: expected float32 images of shape {tuple(self.images.shape)}.",
                )
                expect(
                    bool(on_8bit_grid(images).all() and images.min() >= 0 and images.max() <= 1),
                    f"{where}: expected images on the 8-bit grid in [0, 1].",
                )
                spent = measure(images, self.images, norm)
                expect(  # in double precision, as the record
                    bool(inside(images.double(), self.images.double(), norm, eps_255 / 255).all()),
                    f"{where}: the budget is exceeded, measured {255 * spent.max().item():.4g}/255.",
                )
                for name in ("linf", "l2"):
                    distance = measure(images, self.images, name).float()
                    expect(
                        bool(torch.allclose(distance, getattr(result, name), atol=TOLERANCE)),
                        f"{where}: expected the measured distance {name} in the result.",
                    )
            found.append(f"{norm} {255 * spent.max().item():.4g} of {eps_255:.4g}")
        return f"held; spends {', '.join(found)} (/255)"

    def direction(self) -> str:
        """The score moves where the goal wants it, at least as far as random noise of the same size moves it."""
        attack = self.attack
        if attack.control:
            return "a control: it does not aim"
        if not attack.aims:
            return "it does not aim at the model that is attacked"
        ratios = []
        for norm in attack.norms:
            for goal in attack.goals:
                for higher_is_better in (True, False):
                    plain: IQAModel = ToyLinear(higher_is_better=higher_is_better)
                    model = with_score_range(plain, (0.0, 60.0)) if goal == "reflect" else plain
                    result = self.attacked(model, goal=goal, norm=norm)
                    moved = self._moved(goal, model, result).mean().item()
                    noise = self._noise(model, norm)
                    kind = "higher" if higher_is_better else "lower"
                    expect(
                        moved > noise,
                        f"goal {goal!r}, {norm}, {kind} is better: expected the score to move the way the goal asks"
                        f" by more than random noise does ({noise:.2g}), it moves by {moved:+.3g}.",
                    )
                    ratios.append(moved / noise)
        return f"moves the score {min(ratios):.0f} to {max(ratios):.0f} times as far as random noise does"

    def _moved(self, goal: str, model: IQAModel, result: AttackResult) -> torch.Tensor:
        shift = result.score_adv - result.score_clean
        if isinstance(self.attack, SetAttack):
            aim = self.attack.aim(self._planned(model, result.score_clean), result.score_clean)
            before, after = (aim.value(scores, result.score_clean) for scores in (result.score_clean, result.score_adv))
            return after - before
        if goal in ("up", "down"):
            return shift if (goal == "up") == model.info.higher_is_better else -shift
        if goal == "away":
            return shift.abs()
        if goal == "target":  # ten points above the clean score, out of reach
            return shift
        return torch.where(result.score_clean > 30, -shift, shift)  # toward the other side of the range (0, 60)

    def _noise(self, model: IQAModel, norm: str) -> float:
        """Mean movement, in either direction, under uniform noise from the same ball."""
        eps = _radius(norm) / 255
        shifts = []
        for draw in range(8):
            rng = ImageRNG([100 * draw + i for i in range(N_IMAGES)])
            noisy = snap(random_start(self.images, norm, eps, rng), self.images, norm, eps)
            shifts.append((model(noisy) - model(self.images)).abs())
        return torch.stack(shifts).mean().item()

    def honest_scores(self) -> str:
        model = ToyNetwork().eval()
        result = self.attacked(model)
        with torch.no_grad():
            for name, images in (("score_clean", self.images), ("score_adv", result.images)):
                expect(
                    torch.allclose(getattr(result, name).double(), model(images), atol=1e-4),
                    f"expected {name} to be the model's score of those images.",
                )
        return "the model gives the same scores to the returned images"

    def access(self) -> str:
        """Nothing but what was declared, and nothing behind the objective's back."""
        if isinstance(self.attack, TrainedAttack):
            self.attacked(ToyNetwork().eval())  # learns what the recorded call then uses
        model = Recorder(ToyNetwork()).eval()
        result = self.attacked(model)
        unseen = model.images - N_IMAGES - int(result.queries.sum())  # one pass here, for the clean score
        expect(
            unseen <= JUDGING * N_IMAGES,
            f"expected every evaluation to go through the objective, {unseen - JUDGING * N_IMAGES} images were"
            " scored without being counted.",
        )
        if self.attack.access == "black":
            expect(
                model.differentiated == 0 and not bool(result.gradients.any()),
                "declared black-box, but the model was differentiated.",
            )
            return "black box: never differentiates"
        return f"{int(result.gradients.max())} gradients an image"

    def query_budget(self) -> str:
        for queries in (1, 7, 20):
            result = self.attacked(ToyNetwork().eval(), queries=queries)
            expect(
                bool((result.queries <= queries).all()),
                f"expected at most {queries} queries an image, {int(result.queries.max())} were made.",
            )
        return f"held; {int(result.queries.max())} of 20 queries an image are used"

    def repeatable(self) -> str:
        model, before = ToyNetwork().eval(), parameters(self.attack)
        first = self.attacked(model, seed=3)
        self.attacked(ToyLinear(), pictures(2, 24, 30))
        again = self.attacked(model, seed=3)
        different = int((first.images != again.images).sum())
        expect(
            different == 0,
            f"expected the same images under the same seed, {different} values differ after another call;"
            " draw from `rng` and keep nothing between calls.",
        )
        expect(parameters(self.attack) == before, "expected use to leave the parameters as they were.")
        if isinstance(self.attack, TrainedAttack):
            states = [self._fresh(model).state for _ in range(2)]
            expect(
                states[0].keys() == states[1].keys()
                and all(torch.equal(value, states[1][name]) for name, value in states[0].items()),
                "expected two fits under the same seed to learn the same, bit by bit.",
            )
        other = self.attacked(model, seed=4)
        random = "seeds matter" if bool((first.images != other.images).any()) else "seeds make no difference"
        return f"the same bytes under the same seed; {random}"

    def batch(self) -> str:
        worst = 0.0
        for norm in self.attack.norms:
            together = self.attacked(ToyLinear(), norm=norm).images
            planned: list[dict[str, Any]] = [{}] * N_IMAGES
            if isinstance(self.attack, SetAttack):
                targets = self._planned(ToyLinear(), ToyLinear()(self.images).float())
                planned = [{"target": targets[i : i + 1]} for i in range(N_IMAGES)]
            alone = torch.cat(
                [
                    self.attacked(ToyLinear(), self.images[i : i + 1], norm=norm, **planned[i]).images
                    for i in range(N_IMAGES)
                ]
            )
            apart = (255 * (together - alone)).abs().round()
            share = (apart > 0).float().mean().item()
            worst = max(worst, share)
            if share > BATCH_SHARE or (apart > 1).float().mean().item() > TURNED_SHARE:
                raise ViolationError(
                    f"{norm}: expected an image to be attacked alike in a batch and alone, {100 * share:.1f} % of the"
                    f" values differ, by up to {int(apart.max())} levels; normalize and draw per image."
                )
        return "the same images in a batch and alone" if worst == 0 else f"{100 * worst:.2g} % differ"

    def input_unchanged(self) -> str:
        images = self.images.clone()
        ref = images.roll(1, dims=3)
        kept = images.clone(), ref.clone()
        self.attacked(ToyNetwork().eval(), images)
        self.attacked(ToyReference().eval(), images, ref=ref)
        expect(
            torch.equal(images, kept[0]) and torch.equal(ref, kept[1]) and not images.requires_grad,
            "expected the images and references to be left as they were.",
        )
        return "images and references are left as they were"

    def model_unchanged(self) -> str:
        for training in (True, False):
            model = ToyNetwork().train(training)
            with untouched(model):
                if isinstance(self.attack, TrainedAttack):
                    self._fresh(model)
                self.attacked(model)
        return "parameters, buffers, modes and gradients are left as they were"

    def global_randomness(self) -> str:
        with no_global_randomness():
            if isinstance(self.attack, TrainedAttack):
                self._fresh(ToyLinear())
            self.attacked(ToyLinear())
        return "not used"

    def gpu(self) -> str:
        """There, a tensor that was made without a device meets those of the images, and NumPy sees none."""
        with some_gpu() as (device, where):
            model, images = ToyNetwork().eval().to(device), self.images.to(device)
            for norm in self.attack.norms:
                found = self.attacked(model, images, norm=norm, steps=2, queries=FEW_QUERIES).images.device
                expect(found == device, f"{norm}: expected images on {device}, where the model is, got {found}.")
        return f"attacks {where}"

    def cost(self) -> str:
        start = time.perf_counter()
        result = self.attacked(ToyLinear())
        seconds = time.perf_counter() - start
        goal = self.attack.goals[0]
        budget = Budget(norm=self.attack.norms[0], steps=STEPS, queries=QUERIES)
        said = self.attack.cost(budget, goal)
        expect(
            len(said) == 2 and all(isinstance(passes, int) and passes >= 0 for passes in said),
            f"expected cost to give forward and backward passes per image, got {said!r}.",
        )
        return (
            f"{1000 * seconds / N_IMAGES:.0f} ms an image of {SIZE[0]} x {SIZE[1]}; forward and backward passes:"
            f" {int(result.queries.max())} and {int(result.gradients.max())}, announced {said[0]} and {said[1]}"
        )


def _innermost(model: IQAModel) -> IQAModel:
    """The model inside a recorder or another score range: what is learned of it does not depend on these."""
    while isinstance(model, WrappedModel):
        model = model.model
    return model
