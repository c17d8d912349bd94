"""The tables of docs/recipes.md: every key that a recipe takes, from the classes that read it.

    python docs/recipe_tables.py

What stands in the page above the marker is written by hand and stays. Types, defaults and limits are those of the
fields; meanings are the docstrings under them.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types
from pydantic.fields import FieldInfo
from torch import nn

from iqa_robust.models.compact import CompactNetwork
from iqa_robust.models.gates import GATES
from iqa_robust.models.gates.base import Gate
from iqa_robust.models.gates.soft_rank import OPERATORS
from iqa_robust.models.trunk_regressor import TrunkNetwork
from iqa_robust.training import recipe as recipes
from iqa_robust.training import sections
from iqa_robust.training.adversarial.settings import Inner, Interventions, Latent, LossTerm
from iqa_robust.training.denoiser import NETWORKS as DENOISERS
from iqa_robust.training.diffusion import DiffusionUNet
from iqa_robust.training.strict import Strict

PAGE = Path(__file__).with_name("recipes.md")
MARKER = "<!-- The rest is made by `python docs/recipe_tables.py`. -->\n"
TOP: Mapping[str, type[Strict]] = {
    "Tasks `score`, `denoise` and `diffusion`": recipes._Recipe,
    "Task `score`, besides": recipes.ScoreRecipe,
    "Tasks `denoise` and `diffusion`, besides": recipes.PatchRecipe,
    "Task `denoise`, besides": recipes.DenoiseRecipe,
    "Task `diffusion`, besides": recipes.DiffusionRecipe,
    "Task `trigger`": recipes.TriggerRecipe,
}
"""Tables of top-level keys: those that a class itself declares."""
SECTIONS: Mapping[str, type[Strict]] = {
    "[network]": sections.Network,
    "[start]": sections.Start,
    "[data]": sections.Data,
    "[[pristine]]": sections.Pristine,
    "[augment]": sections.Augment,
    "[optimization]": sections.Optimization,
    "[validation]": sections.Validation,
    "[[loss]]": LossTerm,
    "[inner]": Inner,
    "[interventions]": Interventions,
    "[latent]": Latent,
    "[poison]": sections.Poison,
    "[noise]": sections.Noise,
    "[attack]": sections.Attacked,
    "[teacher], [surrogate], poison.trigger, poison.surrogate, attack.models, attack.attacks": sections.Named,
}
NETWORKS: Mapping[str, type[nn.Module]] = {
    "compact": CompactNetwork,
    "trunk-regressor": TrunkNetwork,
    **DENOISERS,
    "diffusion": DiffusionUNet,
}
SET_BY_TRAINING = ("score_range",)
"""Parameters of networks that come from the data."""
SAME = {
    "name": "Its registry name.",
    "params": "What the constructor of its class takes.",
    "seed": "Of everything random.",
    "batch_size": "Images, or patches, per step.",
}
"""Meanings of keys that several classes have, where the class does not say it itself."""
WORDS = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "`true` or `false`",
    Sequence[int]: "list of integers",
    Sequence[Gate]: "list of tables",
    tuple[int, int]: "two integers",
}


def main() -> None:
    """Write the page with its tables as the code has them."""
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")


def page(text: str) -> str:
    """The page with everything after the marker made anew."""
    by_hand, marker, _ = text.partition(MARKER)
    if not marker:
        raise ValueError(f"{PAGE.name}: expected the line {MARKER!r}")
    return by_hand + MARKER + "\n" + "\n".join(_parts())


def _parts() -> Iterator[str]:
    yield "## Top-level keys\n"
    for title, cls in TOP.items():
        yield f"{title}:\n"
        yield _table(_rows(cls))
    yield "## Sections\n"
    for title, cls in SECTIONS.items():
        yield f"### {', '.join(f'`{name}`' for name in title.split(', '))}\n"
        about = " ".join((inspect.getdoc(cls) or "").split())
        yield textwrap.fill(about, 120, break_long_words=False, break_on_hyphens=False) + "\n"
        yield _table(_rows(cls))
    yield "## `network.params`\n"
    for name, network in NETWORKS.items():
        yield f"`{name}`:\n"
        yield _table(_parameters(network, SET_BY_TRAINING))
    yield "## `network.params.gate`\n"
    yield (
        'Of `compact` and `trunk-regressor`: `gate = { name = "...", where = "...", ... }`. `where` is `"last"`'
        ' (default) or\n`"every"`: after the last pooled stage or after each. The other keys are the gate\'s own.\n'
    )
    for name, gate in GATES.items():
        yield f"`{name}`: {_first_sentence(gate)}\n"
        yield _table(_parameters(gate, ("channels",)))
    usual = ", ".join(f"{operator.temperature:g} for `{name}`" for name, operator in OPERATORS.items())
    yield f"The operators' own temperatures are {usual}.\n"


def _table(rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    if not lines:
        return "No parameters.\n"
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *lines]) + "\n"


def _rows(cls: type[Strict]) -> Iterator[tuple[str, str, str, str]]:
    meanings = _docstrings(cls)
    for key in inspect.get_annotations(cls):
        field = cls.model_fields[key]
        section = _section(field.annotation)
        meaning = meanings.get(key) or (_first_sentence(section) if section else SAME.get(key))
        if key == "task":
            meaning = _first_sentence(cls)
        if not meaning:
            raise ValueError(f"{cls.__name__}.{key}: expected a docstring under the field")
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        yield f"`{key}`", _limited(field), default, meaning


def _docstrings(cls: type) -> dict[str, str]:
    """The strings under the fields, each as one line."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    found = {}
    for field, below in pairwise(node.body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def _first_sentence(cls: type) -> str:
    text = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0]


def _section(annotation: Any) -> type[Strict] | None:
    """The section that a field holds one or several of."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Strict):
            return kind
    return None


def _limited(field: FieldInfo) -> str:
    """The type with its limits, such as `number in [0, 1)`."""
    low = high = ""
    for limit in field.metadata:
        if isinstance(limit, annotated_types.Ge):
            low = f"[{limit.ge:g}"
        elif isinstance(limit, annotated_types.Gt):
            low = f"({limit.gt:g}"
        elif isinstance(limit, annotated_types.Le):
            high = f"{limit.le:g}]"
        elif isinstance(limit, annotated_types.Lt):
            high = f"{limit.lt:g})"
    kind = _kind(field.annotation)
    if any(isinstance(limit, annotated_types.MinLen) for limit in field.metadata):
        kind += ", not empty"
    if low and high:
        return f"{kind} in {low}, {high}"
    return f"{kind} {'≥' if low[0] == '[' else '>'} {low[1:]}" if low else kind


def _kind(annotation: Any) -> str:
    if annotation in WORDS:
        return WORDS[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(kind) for kind in inner if kind is not types.NoneType)
    if origin is Literal:
        return _either([f"`{choice}`" for choice in inner])
    if origin is tuple:
        return f"list of {'sections' if _section(inner[0]) else 'strings' if inner[0] is str else _kind(inner[0])}"
    if origin in (dict, Mapping):
        return "table"
    if _section(annotation):
        return "section"
    raise ValueError(f"expected a type that has words here, got {annotation}")


def _either(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Strict):
        changed = value.model_dump(exclude_defaults=True)
        return ", ".join(f"`{key} = {item}`" for key, item in changed.items()) or "its defaults"
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, Sequence):
        return f"`[{', '.join(map(str, value))}]`" if value else "empty"
    return "empty" if isinstance(value, Mapping) else f"`{value}`"


def _parameters(cls: type, without: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Rows for the parameters of a constructor, explained by the `Args` of its class."""
    meanings, hints = _arguments(cls), get_type_hints(cls.__init__)
    for name, parameter in inspect.signature(cls).parameters.items():
        if name not in without:
            yield f"`{name}`", _kind(hints[name]), _default(parameter.default), meanings[name]


def _arguments(cls: type) -> dict[str, str]:
    """The entries under `Args:`; one may stand for several names."""
    part = (inspect.getdoc(cls) or "").partition("Args:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?= {4}\S)", part):
        names, _, meaning = entry.strip().partition(": ")
        found |= dict.fromkeys(names.split(", "), meaning[:1].upper() + " ".join(meaning.split())[1:])
    return found


if __name__ == "__main__":
    main()
