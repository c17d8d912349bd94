"""Budgets, run specifications and run records: what a cell is asked, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iqa_robust.errors import ContractError, RecordError

if TYPE_CHECKING:
    import pandas as pd

    from iqa_robust.records.explanations import Explanations

SCHEMA = 2
NORMS = ("linf", "l2", "psnr", "ssim", "l0", "patch")
GOALS = ("up", "down", "away", "reflect", "target")
KNOWLEDGE = ("oblivious", "adaptive", "black-box")
STATUSES = ("ok", "partial", "failed")
STANDARD_QUERIES = 10_000
"""Queries per image of a black-box attack when its budget sets no limit, as in the literature."""
FLAG_NAMES = (
    "score-not-repeatable",
    "batch-dependent",
    "zero-gradient",
    "not-finite",
    "out-of-declared-range",
    "control-noise-wins",
    "black-box-wins",
    "oblivious-wins",
    "larger-eps-weaker",
    "more-steps-weaker",
    "degenerate",
    "collapsed",
    "trained-on-test",
    "certificate-violated",
)
"""Every flag a record can carry, in the order of the documentation."""

IMAGE_COLUMNS: dict[str, str] = {
    **dict.fromkeys(("image_id", "reference_id"), "string"),
    **dict.fromkeys(("mos", "score_clean", "score_adv", "score_def_clean"), "float64"),
    **dict.fromkeys(("linf", "l2", "l0", "patch", "psnr", "ssim", "lpips", "dists"), "float64"),
    **dict.fromkeys(("queries", "gradients"), "int64"),
    "zero_gradient": "bool",
    "target": "float64",
    "curve_queries": "list<int64>",
    "curve_scores": "list<float64>",
    **dict.fromkeys(("status", "reason"), "string"),
}
"""Columns of the per-image table, in order, with their types.

Distances are in the units of `Budget.eps`. `target` is the score an attack was sent to, NaN where there is none. The
curve holds every improvement the attack saw: queries spent and the attacked model's score, before rounding to 8 bits.
"""
CERTIFICATE_COLUMNS: dict[str, str] = dict.fromkeys(("cert_low", "cert_high", "cert_radius"), "float64")
"""Further columns where the scored model certifies: see `Certificate`, at the measured `l2` of the attacked image."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the attacker may spend.

    `eps_255` is the size of the set of allowed images; more is more freedom. `eps`, a 255th of it, is a fraction:

    - `linf`: the largest change of a value, of full scale; so `eps_255` is in gray levels;
    - `l2`: the length of the perturbation, in units of full scale (of one value);
    - `psnr`: the root mean square change, of full scale; PSNR is -20 log10(eps) dB;
    - `ssim`: 1 - SSIM, the structural similarity lost;
    - `l0`: the share of the pixels that may change, in any or all of their channels, by any amount;
    - `patch`: the share of the area of one axis-aligned square outside of which nothing may change.

    `Budget.at` takes decibels and similarities as people state them. `steps` bounds the iterations of a gradient
    attack, `queries` (None: the attack's own default) the forward passes per image, `eot` the draws over which a
    randomized model's value and gradient are averaged.
    """

    norm: str = "linf"
    eps_255: float = 4
    steps: int = 10
    queries: int | None = None
    eot: int = 8

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ContractError(f"budget: expected norm to be one of {', '.join(NORMS)}, got {self.norm!r}.")
        eps = self.eps_255
        number = isinstance(eps, numbers.Real) and not isinstance(eps, bool)
        if not (number and math.isfinite(eps) and eps >= 0):
            raise ContractError(f"budget: expected eps_255 to be a finite number >= 0, got {eps!r}.")
        # Scalars of NumPy become plain numbers, which JSON can hold.
        object.__setattr__(self, "eps_255", int(eps) if isinstance(eps, numbers.Integral) else float(eps))
        most = {"l2": math.inf, "ssim": 510}.get(self.norm, 255)
        if self.eps_255 > most:
            unit = " gray levels" if self.norm == "linf" else ""
            raise ContractError(f"budget: expected eps_255 of at most {most:g}{unit}, got {self.eps_255!r}.")
        for name in ("steps", "queries", "eot"):
            value = getattr(self, name)
            if name == "queries" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                raise ContractError(f"budget: expected {name} to be a whole number >= 1, got {value!r}.")
            object.__setattr__(self, name, int(value))

    @classmethod
    def at(cls, norm: str, level: float, **spend: Any) -> Budget:
        """A budget of `level` in the unit people use for the norm.

        That is dB for `psnr`, the similarity for `ssim`, a share (0..1) for `l0` and `patch`, gray levels for `linf`
        and `l2`. `spend` holds the other fields. Raises `ContractError` as the constructor does.
        """
        if isinstance(level, bool) or not isinstance(level, numbers.Real):
            raise ContractError(f"budget: expected level to be a number, got {level!r}.")
        # Twelve digits, so that 0.95 is 0.95 again when it is read back.
        if norm == "psnr":
            level = 255 * 10 ** (-level / 20)
        elif norm in ("ssim", "l0", "patch"):
            level = 255 * (1 - level if norm == "ssim" else level)
        return cls(norm=norm, eps_255=round(level, 12), **spend)

    @property
    def eps(self) -> float:
        """`eps_255` as a fraction; see the class."""
        return self.eps_255 / 255

    @property
    def size(self) -> str:
        """The norm and its size as people read it, such as `4/255`, `PSNR 40 dB` or `0.1 % of the pixels`."""
        decibels = -20 * math.log10(self.eps) if self.eps else math.inf
        return {
            "psnr": f"PSNR {decibels:.4g} dB",
            "linf": f"{self.eps_255:g}/255",
            "l2": f"{self.eps_255:g}/255 l2",
            "ssim": f"SSIM {1 - self.eps:.4g}",
            "l0": f"{100 * self.eps:.3g} % of the pixels",
            "patch": f"a square of {100 * self.eps:.3g} %",
        }[self.norm]


@dataclass(frozen=True, kw_only=True)
class Component:
    """A named thing of a spec: registry name, parameters, and the distribution it came from."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    """How tables call it; the name unless the track says otherwise."""
    distribution: str = ""
    version: str = ""

    @property
    def title(self) -> str:
        """What a table shows."""
        return self.label or self.name


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One cell, with every default filled in. Its digest is its name."""

    track: str
    dataset: Component
    manifest: str
    """Hash of the images and labels used."""
    model: Component
    weights_sha256: str | None
    score_range: tuple[float, float] | None
    """The track's frozen scale in native units, or the model's declared range."""
    defense: Component | None
    attack: Component
    goal: str
    target: float | None
    budget: Budget
    knowledge: str
    seed: int
    package_version: str

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise ContractError(f"goal: expected one of {', '.join(GOALS)}, got {self.goal!r}.")
        if self.knowledge not in KNOWLEDGE:
            raise ContractError(f"knowledge: expected one of {', '.join(KNOWLEDGE)}, got {self.knowledge!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the inverse of `from_dict`."""
        return json.loads(canonical(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunSpec:
        """Raises `RecordError` when a field is missing or unknown."""
        try:
            fields = dict(data)
            for name in ("dataset", "model", "attack"):
                fields[name] = Component(**fields[name])
            fields["defense"] = None if fields["defense"] is None else Component(**fields["defense"])
            fields["budget"] = Budget(**fields["budget"])
            if fields["score_range"] is not None:
                low, high = fields["score_range"]
                if not float(low) < float(high):
                    raise ValueError
                fields["score_range"] = low, high  # as they were written: the digest is of these
            return cls(**fields)
        except ContractError as error:
            raise RecordError(f"spec: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"spec: its fields are not those of schema {SCHEMA}.") from error

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON of the schema and the spec."""
        text = canonical({"schema": SCHEMA, **dataclasses.asdict(self)})
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a cell leaves: the spec, facts about model and dataset, the environment, flags, and a row per image."""

    spec: RunSpec
    status: str
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """`higher_is_better`, `mos_higher_is_better`, `mos_range`, `full_reference`, `n_missing`, weights' source, ..."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    probes: Mapping[str, float] = field(default_factory=dict)
    """Measurements of the model that flags are computed from."""
    flags: tuple[str, ...] = ()
    seconds: float = math.nan
    peak_memory_mb: float = math.nan
    images: pd.DataFrame = field(compare=False)
    explanations: Explanations | None = field(default=None, compare=False)
    """Of the first images, where the attacked model explains itself."""

    @property
    def digest(self) -> str:
        """The digest of the spec."""
        return self.spec.digest


def canonical(value: Any) -> str:
    """JSON with sorted keys and without spaces: equal values give equal text."""
    return json.dumps(nan_to_none(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def nan_to_none(value: Any) -> Any:
    """Values that JSON can hold: None for what is not finite, whole numbers without a fraction."""
    if isinstance(value, Mapping):
        return {str(key): nan_to_none(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [nan_to_none(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return value
