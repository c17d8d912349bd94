"""The sections of recipes: where a network starts, what it learns from, how its weights move, what chooses them.

Those that make a training robust are in `adversarial.settings`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from iqa_robust.training.strict import Strict

VALIDATION_STEPS = 5
"""Of the attack on the validation part that helps choose the epoch."""


class Network(Strict):
    """Which network, and the parameters of its class that a recipe may choose."""

    name: Literal["compact", "trunk-regressor", "dncnn", "unet", "fcn", "super-resolution", "diffusion"]
    """`compact` and `trunk-regressor` are trained by the task `score`, `diffusion` by `diffusion`, the others by
    `denoise`."""
    params: dict[str, Any] = Field(default_factory=dict)


class Start(Strict):
    """Where a regressor starts from; by default from random weights."""

    trunk: str | None = None
    """Weight file of the trunk in its library's names, relative to the data root; or `hub`, which downloads them."""
    head: Literal["random", "ridge"] = "random"
    """`ridge`: ridge regression of the MOS on the pooled features of one patch per image, before training."""
    weights: str | None = None
    """Or: a checkpoint of the whole network, a path or a published name; training then goes on from there, with a
    `head` of `ridge` from its trunk and gates alone."""
    prune: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the channels of every convolution that are set to zero for good."""
    prune_by: Literal["magnitude"] | None = None
    """Those with the smallest weights; without it, the least active on this recipe's data."""

    @model_validator(mode="after")
    def _one_start(self) -> Start:
        if self.weights is not None and self.trunk is not None:
            raise ValueError("give either `weights` or `trunk`")
        return self


class Data(Strict):
    """A registered dataset. Its training split is used; nothing else can be asked for."""

    dataset: str
    """Its registry name."""
    params: dict[str, Any] = Field(default_factory=dict)
    """What its class takes, without `split`."""

    @model_validator(mode="after")
    def _training_split_only(self) -> Data:
        if "split" in self.params:
            raise ValueError("params: `split` cannot be chosen: training reads the training split")
        return self


class Pristine(Strict):
    """Pristine pictures, degraded with the distortion bank and labeled with pseudo-MOS.

    They are the lossless files of a `folder`, or the best images of the training split of a `dataset`, reduced so far
    that their own faults vanish.
    """

    folder: str | None = None
    """Relative to the data root."""
    dataset: str | None = None
    """Or: a registry name, of whose training split the images with the highest scores are taken."""
    pictures: int | None = Field(default=None, ge=1)
    """At most so many, the best first; for a dataset."""
    shrink: int = Field(default=1, ge=1, le=8)
    """Both sides are divided by it (box filter), which hides noise, blur and compression of the original."""
    crop: int = Field(default=192, ge=161)
    """Side of the crops, on a lattice; pseudo-MOS needs 161."""
    per_crop: int = Field(default=40, ge=1)
    """Distorted versions of each crop, chosen by the seed."""

    @model_validator(mode="after")
    def _one_source(self) -> Pristine:
        if (self.folder is None) == (self.dataset is None):
            raise ValueError("give either `folder` or `dataset`")
        return self

    @property
    def title(self) -> str:
        """What a model card calls it."""
        return f"{self.dataset}:train" if self.folder is None else Path(self.folder).name


class Named(Strict):
    """A registered thing with the parameters of its constructor; paths in them are relative to the current folder."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)


class Poison(Strict):
    """A backdoor put into the training data, as in Yu et al., AAAI 2025 (BAIQA)."""

    trigger: Named
    """An attack that is a trigger; its own strength is not used."""
    mode: Literal["label", "clean"]
    """`label`: strengths of both signs and moved labels. `clean`: labels stay, and the strength is the one that the
    label would have moved a middling image by; the image is first pulled toward the middle of the scale."""
    rate: float = Field(default=0.2, gt=0.0, le=1.0)
    """Share of the training images."""
    full_shift: float = Field(default=40.0, gt=0.0, le=100.0)
    """What strength 1 does to a label, in hundredths of the MOS scale."""
    surrogate: Named | None = None
    """`clean` only: the model on which images are pulled."""
    pull_eps_255: float = Field(default=2.0, ge=0.0)
    """`clean` only: L-infinity radius of the pull."""
    pull_steps: int = Field(default=20, ge=1)
    """`clean` only: gradient steps of the pull."""

    @model_validator(mode="after")
    def _surrogate_for_clean_labels(self) -> Poison:
        if (self.mode == "clean") != (self.surrogate is not None):
            raise ValueError("`surrogate` is needed for the mode 'clean' and not used by 'label'")
        return self


class Validation(Strict):
    """The part of the training split that chooses the epoch: whole contents, never the test split."""

    share: float = Field(default=0.0, ge=0.0, le=0.5)
    """Share of the contents, chosen by the seed. 0 and no `contents`: the last epoch is kept."""
    contents: tuple[str, ...] = ()
    """Or: contents by name, with `*` for any characters."""
    crop: int | None = Field(default=None, ge=16)
    """Judge on center crops of that side, which robust trainings need to be affordable; without it, on whole images."""
    eps_255: float | None = Field(default=None, gt=0)
    """Radius at which the images are also judged under attack, gray levels; by default the inner player's, and without
    one they are not."""
    choose: Literal["srocc", "srocc_attacked", "both"] | None = None
    """What chooses the epoch: SROCC of clean images, of attacked ones, or their mean. By default `both` where they are
    attacked, else `srocc`."""


class Augment(Strict):
    """Changes that keep the quality of a picture."""

    crop: int | None = Field(default=None, ge=16)
    """Side of a random square crop; smaller pictures are an error. None only where all pictures are of one size."""
    lattice: int | None = Field(default=None, ge=2)
    """Crops begin at corners of blocks of that side, as triggers count them (the picture padded evenly to whole ones);
    without it, anywhere."""
    flip: bool = True
    """Left-right, every other time."""
    turn: bool = False
    """Also top-bottom and transposed."""
    colors: bool = False
    """The three channels in random order: other colors, nearly the same quality."""

    @model_validator(mode="after")
    def _lattice_of_crops(self) -> Augment:
        if self.lattice is not None and self.crop is None:
            raise ValueError("`lattice` places crops, and there is no `crop`")
        return self


class Optimization(Strict):
    """How the weights move."""

    epochs: int = Field(ge=0)
    """0 keeps what the recipe starts from."""
    batch_size: int = Field(ge=2)
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    """`sgd` has Nesterov momentum of 0.9."""
    learning_rate: float = Field(gt=0)
    """Its highest value."""
    trunk_rate: float = Field(default=1.0, ge=0)
    """Learning rate of the weights under `trunk.` as a share of `learning_rate`."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of weights; biases and normalizations are not decayed."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """After the warmup: the rate stays, or falls to zero along half a cosine."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of all steps over which the rate rises from zero."""
    arithmetic: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward and backward passes in training (`bf16`: autocast). Judging is always in fp32."""


class Noise(Strict):
    """What a denoiser is trained to remove."""

    sigma_255: float = Field(default=15.0, gt=0)
    """Gaussian noise of a standard deviation drawn uniformly from [0, this], gray levels."""
    sign_255: float = Field(default=0.0, ge=0)
    """In a quarter of the patches instead: noise of random sign, of an amplitude up to this, as an attack leaves it."""


class Attacked(Strict):
    """Patches are attacked, each batch by one attack on one model, both drawn at random."""

    models: tuple[Named, ...] = Field(min_length=1)
    """Registered models."""
    attacks: tuple[Named, ...] = Field(min_length=1)
    """Registered attacks."""
    goals: tuple[Literal["up", "down"], ...] = Field(default=("up", "down"), min_length=1)
    """Where scores are moved to; drawn at random, too."""
    eps_255: float = Field(default=8.0, gt=0)
    """The L-infinity radius is drawn uniformly from [0, this], gray levels."""
    steps: int = Field(default=5, ge=1)
    """Budget of every attack."""
