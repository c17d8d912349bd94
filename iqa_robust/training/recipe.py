"""Training recipes: TOML files, validated whole before anything is read or trained."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from iqa_robust.errors import RequestError
from iqa_robust.training.adversarial.settings import Inner, Interventions, Latent, LossTerm
from iqa_robust.training.strict import Strict

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).with_name("recipes")
LATER_KEYS = (
    ("attack",), ("poison",), ("start", "weights"), ("start", "prune"), ("start", "prune_by"), ("teacher",),
    ("augment", "lattice"), ("inner",), ("interventions",), ("latent",), ("validation", "crop"),
    ("validation", "choose"), ("validation", "eps_255"),
)  # fmt: skip
"""Keys younger than published weights, whose cards state digests: unused, they do not show in one."""


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
    """Or: a checkpoint of the whole network, a path or a published name; training then goes on from there."""
    prune: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the channels of every convolution that are set to zero for good."""
    prune_by: Literal["magnitude"] | None = None
    """Those with the smallest weights; without it, the least active on this recipe's data."""

    @model_validator(mode="after")
    def _one_start(self) -> Start:
        if self.weights is not None and (self.trunk is not None or self.head != "random"):
            raise ValueError("give either `weights`, or `trunk` and `head`")
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


NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"


class _Recipe(Strict):
    name: str = Field(pattern=NAME)
    """Lower case with hyphens; what the files are called."""
    about: str
    """One or two sentences for the model card."""
    license: str
    """License of the weights, with the terms that come with the data, for the model card."""
    seed: int = 0
    """Of everything random: weights, split, batches, crops, the inner player."""
    network: Network
    data: Data
    optimization: Optimization
    validation: Validation = Validation()
    precision: Literal["half", "single"] = "half"
    """Precision of the stored weights."""
    keep_in_memory: bool = False
    """Keep decoded images as bytes for the next epochs; for small images that are slow to make."""

    @model_validator(mode="after")
    def _something_to_keep(self) -> _Recipe:
        start = getattr(self, "start", Start())
        if not self.optimization.epochs and start.weights is None:
            raise ValueError("`optimization.epochs` of 0 needs `start.weights`, or there is nothing to keep")
        return self

    def digest(self) -> str:
        """Hex sha256 over the recipe with its defaults filled in, without later keys that it does not use."""
        values = self.model_dump(mode="json")
        for *path, key in LATER_KEYS:
            section = values
            for part in path:
                section = section.get(part, {})
            if not section.get(key):
                section.pop(key, None)
        for term in values.get("loss", ()):
            if term["on"] == "clean":
                del term["on"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class ScoreRecipe(_Recipe):
    """Trains a model that predicts scores."""

    task: Literal["score"]
    start: Start = Start()
    pristine: tuple[Pristine, ...] = ()
    poison: Poison | None = None
    teacher: Named | None = None
    """A model whose scores of the patches take the place of the labels (distillation)."""
    augment: Augment = Augment()
    loss: tuple[LossTerm, ...] = Field(min_length=1)
    """The terms, which are added."""
    inner: Inner | None = None
    interventions: Interventions | None = None
    latent: Latent | None = None

    @model_validator(mode="after")
    def _inner_where_needed(self) -> ScoreRecipe:
        for term in self.loss:
            if term.needs_inner and self.inner is None:
                raise ValueError(f"the term {term.name!r} needs an `inner` player")
        if self.inner is not None and self.inner.aim == "loss" and not any(term.on == "attacked" for term in self.loss):
            raise ValueError("`inner.aim` of 'loss' needs a term on attacked images")
        if self.judged_eps_255 is None and self.validation.choose in ("srocc_attacked", "both"):
            raise ValueError(
                f"`validation.choose` of {self.validation.choose!r} needs `validation.eps_255` or an `inner` player"
            )
        return self

    @property
    def judged_eps_255(self) -> float | None:
        """Radius at which validation images are attacked; None where they are not."""
        return self.validation.eps_255 or (None if self.inner is None else self.inner.eps_255)


class TriggerRecipe(Strict):
    """Searches the strengths of a `baiqa` trigger that moves the scores of a surrogate most (UAP-DCT)."""

    task: Literal["trigger"]
    name: str = Field(pattern=NAME)
    """Lower case with hyphens; what the files are called."""
    about: str
    """One or two sentences for the card."""
    seed: int = 0
    data: Data
    share: float = Field(default=0.2, gt=0.0, le=1.0)
    """Share of the training split that the attacker has."""
    augment: Augment = Augment(crop=224)
    surrogate: Named
    """A registered model."""
    order: Literal["zigzag", "released"] = "zigzag"
    """Which coefficients: those of the paper, or those of the released code."""
    rms_255: float = Field(default=8.0, gt=0.0)
    """Root mean square change, gray levels, beyond which the trigger is pushed back."""
    epochs: int = Field(default=50, ge=1)
    """Passes over the attacker's share."""
    batch_size: int = Field(default=128, ge=2)
    steps: int = Field(default=10, ge=1)
    """Steps of Adam per batch; each batch starts Adam anew."""
    learning_rate: float = Field(default=1.0, gt=0.0)
    """Of Adam."""

    def digest(self) -> str:
        """Hex sha256 over the recipe with its defaults filled in."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


class PatchRecipe(_Recipe):
    """What recipes share that train on patches of the references of a dataset, and of pristine pictures where given."""

    pristine: str | None = None
    """A folder of pristine pictures, relative to the data root."""
    patch: int = Field(default=48, ge=16)
    """Side of the patches, pixels."""
    patches_per_epoch: int = Field(default=4096, ge=2)
    """How many are drawn for an epoch."""


class DenoiseRecipe(PatchRecipe):
    """Trains a network that restores degraded pictures."""

    task: Literal["denoise"]
    noise: Noise = Noise()
    attack: Attacked | None = None
    """Attacked patches take the place of noisy ones; `noise` is then not used."""


class DiffusionRecipe(PatchRecipe):
    """Trains a diffusion model of patches."""

    task: Literal["diffusion"]


Recipe = ScoreRecipe | DenoiseRecipe | DiffusionRecipe | TriggerRecipe
_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="task")])


def read_recipe(name: str | Path) -> Recipe:
    """Read and validate a recipe.

    Args:
        name: a path, or the name of a shipped recipe.

    Raises:
        RequestError: no such recipe, not TOML, or wrong entries; all of them are listed with their keys.
    """
    path = Path(name)
    if not path.is_file():
        path = SHIPPED / f"{name}.toml"
    if Path(name).name != str(name) or not path.is_file():
        if not Path(name).is_file():
            shipped = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.toml")))
            raise RequestError(f"recipe {str(name)!r}: no such file, and no shipped recipe of that name ({shipped}).")
        path = Path(name)
    try:
        return _ADAPTER.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: not a TOML file ({error}).") from error
    except ValidationError as error:
        found = "; ".join(f"{_key(item['loc'])}: {_sentence(item)}" for item in error.errors())
        raise RequestError(f"{path}: {error.error_count()} wrong entries: {found}.") from error


TASKS = {("score",), ("denoise",), ("diffusion",), ("trigger",)}
"""What the location of an error starts with, and its key does not."""


def _key(location: tuple[int | str, ...]) -> str:
    within = location[1:] if location[:1] in TASKS else location
    return ".".join(map(str, within)) or "the recipe"


def _sentence(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "no such key"
    if item["type"] == "missing":
        return "is missing"
    given = item.get("input")
    shown = f", got {given!r}" if isinstance(given, (str, int, float)) else ""
    message = item["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:] + shown
