"""Tracks: frozen protocols as TOML files, validated whole before anything runs."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from iqa_robust.errors import ContractError, RequestError
from iqa_robust.records import Budget

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BARE = "none"
"""Name of the row without a defense."""
NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
LABEL = r"^[A-Za-z0-9][A-Za-z0-9._/+-]*$"
SHA256 = r"^[0-9a-f]{64}$"
Label = Annotated[str, Field(pattern=LABEL, max_length=80)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DatasetEntry(_Section):
    """Which images, and in which form."""

    name: str
    params: dict[str, Any] = {}
    manifest: str | None = Field(default=None, pattern=SHA256)
    n_images: int | None = Field(default=None, ge=1)


class ModelEntry(_Section):
    """A model, its label in tables, and the frozen scale of its scores."""

    name: str
    label: Label | None = None
    params: dict[str, Any] = {}
    score_range: tuple[float, float] | None = None

    @field_validator("score_range", mode="before")
    @classmethod
    def _as_range(cls, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value)):
            low, high = map(_float, value)
            if -math.inf < low < high < math.inf:
                return low, high
        raise ValueError(f"expected [low, high], two finite numbers with low < high, got {value}")


class DefenseEntry(_Section):
    """A defense and its label; the name `none` is the bare model."""

    name: str
    label: Label | None = None
    params: dict[str, Any] = {}

    @model_validator(mode="after")
    def _bare(self) -> DefenseEntry:
        if self.name == BARE and self.params:
            raise ValueError(f"{BARE!r} is the bare model, which takes no `params`")
        return self


class AttackDefaults(_Section):
    """What an attack of the track may spend and where it wants the score, unless it says otherwise."""

    goal: Literal["up", "down", "away", "reflect", "target"] = "away"
    target: float | None = Field(default=None, allow_inf_nan=False)
    norm: Literal["linf", "l2", "psnr", "ssim", "l0", "patch"] = "linf"
    eps_255: tuple[float, ...] = Field(default=(4.0,), min_length=1)
    level: tuple[float, ...] | None = Field(default=None, min_length=1)
    """Instead of `eps_255`: the sizes in the norm's own unit, such as dB (`Budget.at`)."""
    steps: int = 10
    queries: int | None = None
    eot: int = 8
    knowledge: tuple[Literal["oblivious", "adaptive", "black-box"], ...] | None = Field(default=None, min_length=1)

    @field_validator("eps_255", "level", mode="before")
    @classmethod
    def _as_floats(cls, value: Any) -> Any:
        values = value if isinstance(value, (list, tuple)) else [value]
        if value is not None and not all(map(_is_number, values)):
            raise ValueError("expected a number or a list of numbers")
        return None if value is None else tuple(map(_float, values))

    @field_validator("target", mode="before")
    @classmethod
    def _as_float(cls, value: Any) -> Any:
        return _float(value) if _is_number(value) else value

    @field_validator("knowledge", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _possible(self) -> AttackDefaults:
        if self.goal == "target" and self.target is None:
            raise ValueError("goal 'target' needs `target`, the score to reach in the model's native units")
        if self.level is not None and "eps_255" in self.model_fields_set:
            raise ValueError("give `eps_255` or `level`, not both")
        if self.norm not in ("linf", "l2") and not {"eps_255", "level"} & self.model_fields_set:
            raise ValueError(f"norm {self.norm!r} needs `level`, its size")
        try:
            self.budgets()
        except ContractError as error:
            raise ValueError(str(error).removeprefix("budget: ")) from error
        return self

    def budgets(self) -> Iterator[Budget]:
        """One budget per size."""
        spend: dict[str, Any] = {"steps": self.steps, "queries": self.queries, "eot": self.eot}
        if self.level is not None:
            return iter([Budget.at(self.norm, level, **spend) for level in self.level])
        return iter([Budget(norm=self.norm, eps_255=eps, **spend) for eps in self.eps_255])


class AttackEntry(AttackDefaults):
    """An attack and what it may spend."""

    name: str
    label: Label | None = None
    params: dict[str, Any] = {}


class Track(_Section):
    """A frozen, versioned set of cells."""

    name: str = Field(pattern=NAME)
    version: int = Field(ge=1)
    title: str
    description: str = ""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    batch_size: int = Field(default=8, ge=1)
    dataset: DatasetEntry
    models: tuple[ModelEntry, ...] = Field(min_length=1)
    defenses: tuple[DefenseEntry, ...] = (DefenseEntry(name=BARE),)
    budget: AttackDefaults = AttackDefaults()
    attacks: tuple[AttackEntry, ...] = Field(min_length=1)

    @field_validator("seeds", "models", "defenses", "attacks", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="before")
    @classmethod
    def _fill_attacks(cls, data: Any) -> Any:
        """Give every attack the track's default budget where it does not state its own."""
        defaults = data.get("budget", {}) if isinstance(data, dict) else {}
        attacks = data.get("attacks") if isinstance(data, dict) else None
        if isinstance(defaults, dict) and isinstance(attacks, list):
            known = {key: value for key, value in defaults.items() if key in AttackDefaults.model_fields}
            filled = [_with_defaults(attack, known) if isinstance(attack, dict) else attack for attack in attacks]
            return {**data, "attacks": filled}
        return data

    @model_validator(mode="after")
    def _unique(self) -> Track:
        for kind in ("models", "defenses"):
            titles = [title(entry) for entry in getattr(self, kind)]
            twice = sorted({name for name in titles if titles.count(name) > 1})
            if twice:
                raise ValueError(f"{kind}: {twice[0]!r} appears twice; give each entry a `label` of its own")
        return self

    @property
    def id(self) -> str:
        """Name and version as they appear in records and boards."""
        return f"{self.name}-v{self.version}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _float(value: float) -> float:
    """The number as a float. Raises `ValueError` for a whole number that is too large for one."""
    try:
        return float(value)
    except OverflowError:
        raise ValueError("expected a number of at most 1.8e308") from None


def _with_defaults(attack: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """An attack with the track's defaults; a size is of one norm, so another norm does not inherit it."""
    if attack.get("norm", known.get("norm", "linf")) != known.get("norm", "linf") or {"eps_255", "level"} & set(attack):
        known = {key: value for key, value in known.items() if key not in ("eps_255", "level")}
    return {**known, **attack}


def title(entry: ModelEntry | DefenseEntry | AttackEntry) -> str:
    """How tables call an entry."""
    return entry.label or entry.name


def load_track(path: Path) -> Track:
    """Read and validate a track file.

    Raises:
        RequestError: every problem found, one per line, with the line of the file where it can be told.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = tomllib.loads(text)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:  # also of integers and nesting that the parser does not take
        raise RequestError(f"{path}: not a TOML file: {error}.") from error
    try:
        return Track.model_validate(data)
    except ValidationError as error:
        of_budget = {(item["loc"][1:], item["msg"]) for item in error.errors() if item["loc"][:1] == ("budget",)}
        problems = [
            _sentence(path, text, item["loc"], item["msg"], item.get("input"))
            for item in error.errors()
            if not (item["type"] == "too_short" and item.get("input"))  # its entries have errors of their own
            and not (item["loc"][:1] == ("attacks",) and (item["loc"][2:], item["msg"]) in of_budget)  # inherited
        ]
        raise RequestError("\n".join(dict.fromkeys(problems))) from error


_WORDING = (
    (r"^Value error, ", ""),
    (r"^Extra inputs are not permitted$", "unknown key"),
    (r"^Field required$", "is missing"),
    (r"^Tuple should have at least 1 item.*$", "expected at least one entry"),
    (r"^Input should be a valid dictionary or instance of .*$", "expected a table"),
    (r"^Input should be a valid tuple$", "expected a list"),
    (r"^Input should be ", "expected "),
    (r"^String should have ", "expected "),
    *(
        (f"^String should match pattern '{re.escape(pattern)}'$", f"expected {words}")
        for pattern, words in {
            NAME: "lower-case words joined by hyphens",
            LABEL: "letters, digits and any of `._/+-`, the first one a letter or a digit",
            SHA256: "64 hexadecimal digits in lower case",
        }.items()
    ),
)
"""The validation library's words, and those of this project."""


def _sentence(path: Path, text: str, location: tuple[int | str, ...], message: str, value: Any) -> str:
    keys = [str(part) for part in location]
    name = ".".join(keys) or "track"
    line = _line_of(text, location)
    got = "" if value is None or isinstance(value, (dict, list)) or "got" in message else f" (got {value!r})"
    for theirs, ours in _WORDING:
        message = re.sub(theirs, ours, message)
    if location in (("models",), ("defenses",), ("attacks",)) and message == "expected a list":
        message = f"expected tables, each below a line `[[{name}]]`"
    return f"{path}{f':{line}' if line else ''}: {name}: {message.removesuffix('.')}{got}."


def _line_of(text: str, location: tuple[int | str, ...]) -> int | None:
    """The line of a key, found by walking the headers of the file; None when it cannot be told."""
    section: list[int | str] = []
    counts: dict[str, int] = {}
    best = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\[\s*([\w.-]+)\s*\]\]", line):
            name = header[1]
            section = [name, counts.get(name, 0)]
            counts[name] = counts.get(name, 0) + 1
        elif header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            section = list(header[1].split("."))
        here = list(location[: len(section)]) == section and section != []
        if here and best is None and (header or len(location) == len(section)):
            best = number
        key = re.match(r"\s*([\w-]+)\s*=", line)
        if key and [*section, key[1]] == list(location[: len(section) + 1]):
            return number
    return best
