"""The sections of a recipe that make a training robust."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from iqa_robust.training.strict import Strict

SCORE_TERMS = ("mse", "l1", "plcc", "norm-in-norm", "fidelity")
"""Terms that compare scores with labels, of the clean or of the attacked images."""
ATTACKED_TERMS = ("difference", "scaled-difference")
"""Terms that compare the scores of attacked images with those of the clean ones."""


class LossTerm(Strict):
    """One term of the loss (`training.losses`, `training.adversarial.terms`) with its weight."""

    name: Literal[
        "mse",
        "l1",
        "plcc",
        "norm-in-norm",
        "fidelity",
        "difference",
        "scaled-difference",
        "gradient-norm",
        "invariance",
        "necessity",
        "auxiliary",
        "orthogonality",
    ]
    """Which term."""
    weight: float = Field(default=1.0, gt=0)
    """What the term is multiplied by in the sum."""
    on: Literal["clean", "attacked"] = "clean"
    """Whose scores are compared with the labels."""

    @model_validator(mode="after")
    def _labels_only(self) -> LossTerm:
        if self.on == "attacked" and self.name not in SCORE_TERMS:
            raise ValueError(f"{self.name}: `on` belongs to terms that compare scores with labels")
        return self

    @property
    def sees_attacked(self) -> bool:
        """Whether it looks at the images of the inner player."""
        return self.on == "attacked" or self.name in ATTACKED_TERMS

    @property
    def needs_inner(self) -> bool:
        """Whether there must be an inner player: for its images, or for its radius."""
        return self.sees_attacked or self.name == "invariance"


class Inner(Strict):
    """The inner player: what it does to a batch before the network is trained on it."""

    aim: Literal["error", "difference", "against-ranking", "reflect", "loss"] | None = None
    """What it maximizes, per image: the squared error; the squared distance from the clean score; the score's distance
    toward the other side of the batch's median label; or the closeness to the mirrored clean score. Or, over the batch,
    the terms of the loss that compare attacked images with labels. `free` has none: it climbs the whole loss."""
    method: Literal["pgd", "apgd", "free"] = "pgd"
    """`pgd` with one step is FGSM. `free`: every batch is trained on `steps` times, and the gradient that trains the
    network also moves the images (Shafahi et al., 2019)."""
    eps_255: float = Field(gt=0)
    """L-infinity radius, gray levels."""
    steps: int = Field(default=1, ge=1)
    """Gradient steps per batch; for `free`, trainings on it."""
    step_ratio: float | None = Field(default=None, gt=0)
    """A step as a share of eps; by default 2.5 / steps for several, and for a single one 1.25, or 1 from `noise`."""
    start: Literal["clean", "uniform", "noise"] = "uniform"
    """`uniform` in the ball; `noise`: uniform in a ball of twice the radius and never projected back, which keeps
    single steps from overfitting to themselves (N-FGSM, de Jorge et al., 2022)."""
    ramp: float = Field(default=0.0, ge=0, le=1)
    """Share of the training over which eps rises from zero."""
    labels: Literal["keep", "min", "ssim", "ms-ssim", "lpips"] = "keep"
    """Labels of attacked images: as they were; the worst of the scale; or lowered by what the named measure sees of
    the perturbation (Chistyakova et al., 2024)."""
    label_weight: float = Field(default=1.0, gt=0)
    """How far labels are lowered per unit of 1 - SSIM, or of LPIPS, in ranges of the scale."""

    @model_validator(mode="after")
    def _possible(self) -> Inner:
        if (self.aim is None) != (self.method == "free"):
            raise ValueError("`aim` is needed, except by the method `free`, which climbs the loss itself")
        if self.aim == "difference" and self.start == "clean":
            raise ValueError("`difference` has no slope at the clean image: give another `start`")
        if self.method == "apgd" and self.aim == "loss":
            raise ValueError("`apgd` seeks a score per image, and `loss` names none")
        if self.method == "apgd" and (self.start != "uniform" or self.step_ratio is not None):
            raise ValueError("`apgd` starts and steps by rules of its own")
        if self.method == "free" and (self.start != "clean" or self.step_ratio is not None or self.steps < 2):
            raise ValueError("`free` takes two steps or more, of eps each, from the start `clean`")
        return self


class Interventions(Strict):
    """Images that differ from the clean one in what should not matter, for the term `invariance`."""

    count: int = Field(default=3, ge=1)
    """Per image; number k of n lies k / n of the inner player's radius away, by turns by random signs, toward higher
    scores and toward lower ones."""


class Latent(Strict):
    """The inner player on pooled features, for the term `necessity`."""

    distance: float = Field(default=0.5, gt=0)
    """Least change of the features that counts as another cause: root mean square, in their batch deviations."""
    steps: int = Field(default=2, ge=1)
    """Gradient steps per batch."""
