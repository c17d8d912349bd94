"""docs/recipes.md: its tables are those of the code, nothing is missing from them, and its example is a recipe."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import torch

from iqa_robust.models.compact import CompactNetwork
from iqa_robust.models.gates import GATES
from iqa_robust.training.recipe import SHIPPED, ScoreRecipe, read_recipe
from iqa_robust.training.regressor import load_network

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "recipes.md"


def test_the_tables_are_those_of_the_code(tmp_path: Path) -> None:
    """Made anew from a page whose tables are gone; in a process of its own, as a person would make them."""
    text = PAGE.read_text("utf-8")
    marker = next(line for line in text.splitlines(keepends=True) if line.startswith("<!-- The rest is made by"))
    script = tmp_path / "recipe_tables.py"
    script.write_bytes((DOCS / "recipe_tables.py").read_bytes())
    (tmp_path / "recipes.md").write_text(text.partition(marker)[0] + marker, "utf-8")
    subprocess.run([sys.executable, str(script)], check=True, cwd=DOCS.parent)
    assert (tmp_path / "recipes.md").read_text("utf-8") == text


def test_every_key_of_the_shipped_recipes_and_every_gate_is_on_the_page() -> None:
    tables = PAGE.read_text("utf-8").partition("## Top-level keys")[2]
    keys = set(re.findall(r"^\| `(\w+)` \|", tables, re.MULTILINE))
    used: set[str] = set()
    for path in SHIPPED.glob("*.toml"):
        used |= _keys({**tomllib.loads(path.read_text("utf-8")), "data": {}})
    assert used - {"where"} <= keys  # `where` is explained in words, for it is no gate's own
    assert set(re.findall(r"^`([\w-]+)`: ", tables.partition("## `network.params.gate`")[2], re.MULTILINE)) == set(
        GATES
    )


def _keys(values: object) -> set[str]:
    if isinstance(values, dict):
        return set(values).union(*(_keys(value) for value in values.values()))
    return set().union(*map(_keys, values)) if isinstance(values, list) else set()


def test_the_example_is_a_recipe_that_fits_the_weights_it_starts_from(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    path = tmp_path / "my-robust.toml"
    path.write_text(text, "utf-8")
    recipe = read_recipe(path)
    assert isinstance(recipe, ScoreRecipe) and recipe.start.weights is not None and recipe.inner is not None
    params = {**recipe.network.params, "score_range": [0.0, 100.0]}  # of `photos`
    network = CompactNetwork(**params)
    before = network.head[2].weight.detach().clone()
    load_network(network, recipe.network.name, params, recipe.start.weights)
    assert not torch.equal(network.head[2].weight, before)
