"""Training recipes: TOML files, validated whole before anything is read or trained."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from iqa_robust.errors import RequestError, did_you_mean
from iqa_robust.training.adversarial.settings import Inner, Interventions, Latent, LossTerm
from iqa_robust.training.sections import (
    Attacked,
    Augment,
    Data,
    Named,
    Network,
    Noise,
    Optimization,
    Poison,
    Pristine,
    Start,
    Validation,
)
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
        shipped = {file.stem: file for file in sorted(SHIPPED.glob("*.toml"))}
        if str(name) not in shipped:
            what = f"{path}: no such file." if path.suffix == ".toml" else f"no recipe {str(name)!r}."
            near = did_you_mean(path.stem, shipped)
            raise RequestError(f"{what}{near} Give a .toml file or one of {', '.join(shipped)}.")
        path = shipped[str(name)]
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:  # also of integers and nesting that the parser does not take
        raise RequestError(f"{path}: not a TOML file ({error}).") from error
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        found = "; ".join(f"{_key(item['loc'])}: {_sentence(item)}" for item in error.errors())
        count = error.error_count()
        raise RequestError(f"{path}: {count} wrong {'entry' if count == 1 else 'entries'}: {found}.") from error


TASKS = (("score",), ("denoise",), ("diffusion",), ("trigger",))
"""What the location of an error starts with, and its key does not."""


def _key(location: tuple[int | str, ...]) -> str:
    within = location[1:] if location[:1] in TASKS else location
    return ".".join(map(str, within)) or "the recipe"


def _sentence(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "no such key"
    if item["type"] == "missing":
        return "is missing"
    if item["type"] == "string_pattern_mismatch":
        return f"expected lower-case words joined by hyphens, got {item['input']!r}"
    if item["type"].startswith("union_tag"):
        given = item["input"].get("task")
        asked = "none (is this a track? use `iqa-robust run`)" if given is None else repr(given)
        return f"expected `task`, one of {', '.join(task for (task,) in TASKS)}; got {asked}"
    given = item.get("input")
    shown = f", got {given!r}" if isinstance(given, (str, int, float)) else ""
    message = item["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
    return message[:1].lower() + message[1:] + shown
