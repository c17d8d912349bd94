"""From a recipe to a checkpoint with its model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iqa_robust import datasets
from iqa_robust.datasets.splits import nested_sample
from iqa_robust.errors import CheckpointError, RequestError
from iqa_robust.models.checkpoints import load, save
from iqa_robust.records import target_file
from iqa_robust.training.cards import ATTACKED_CROP, ATTACKED_IMAGES, ATTACKED_RADII, ATTACKED_STEPS, Card
from iqa_robust.training.data import Sample, center_crops, open_split
from iqa_robust.training.denoiser import DenoiseTask
from iqa_robust.training.diffusion import DiffusionTask
from iqa_robust.training.loop import Task, fit, worth
from iqa_robust.training.patches import PatchTask
from iqa_robust.training.poisoning_search import search_trigger
from iqa_robust.training.progress import Listener
from iqa_robust.training.recipe import DenoiseRecipe, PatchRecipe, Recipe, ScoreRecipe, TriggerRecipe, read_recipe
from iqa_robust.training.regressor import ScoreTask, agreement


def run(name: str | Path, *, data_root: Path | None, out: Path | None, log: Path | None, listener: Listener) -> Path:
    """See `iqa_robust.training.train`."""
    recipe = read_recipe(name)
    out = Path(f"{recipe.name}.safetensors") if out is None else out
    if out.suffix != ".safetensors":
        raise RequestError(f"--out: expected a file name that ends in .safetensors, got {str(out)!r}.")
    for path, option in ((out, "--out"), (log, "--log")):
        if path is not None:
            target_file(path, option)  # hours before it is written
    if _is_finished(out, recipe):
        return out
    if isinstance(recipe, TriggerRecipe):
        return search_trigger(recipe, data_root=data_root, out=out, listener=listener)
    state, labels = out.with_suffix(".resume.pt"), out.with_suffix(".labels.csv")
    task: ScoreTask | PatchTask
    if isinstance(recipe, ScoreRecipe):
        task = ScoreTask(recipe, data_root=data_root, labels=labels, listener=listener)
    elif isinstance(recipe, DenoiseRecipe):
        task = DenoiseTask(recipe, data_root=data_root)
    else:
        task = DiffusionTask(recipe, data_root=data_root)
    history = fit(
        task, recipe.optimization, seed=recipe.seed, digest=recipe.digest(), state=state, log=log, listener=listener
    )
    manifests = task.manifests()
    save(out, task.network, _config(recipe, task, manifests), half=recipe.precision == "half")
    _write_card(recipe, task, out, manifests, history, data_root, listener)
    state.unlink(missing_ok=True)  # without epochs there is none
    return out


def _is_finished(out: Path, recipe: Recipe) -> bool:
    """Whether the file is there and was made by this very recipe. Another one's file is never overwritten."""
    if not out.exists():
        return False
    try:
        found = load(out).config.get("recipe_digest")
    except CheckpointError:
        found = None
    if found != recipe.digest():
        raise RequestError(f"--out: {out} exists and was not made by this recipe; choose another name or remove it.")
    return out.with_suffix(".md").exists()


def _config(
    recipe: ScoreRecipe | PatchRecipe, task: ScoreTask | PatchTask, manifests: dict[str, str]
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "network": recipe.network.name,
        "params": task.params,
        "training_datasets": sorted(manifests) if task.origin is None else task.origin.and_then(manifests),
        "license": recipe.license,
        "source": f"iqa-robust, recipe {recipe.name}",
        "recipe_digest": recipe.digest(),
    }
    if isinstance(task, ScoreTask):
        config["higher_is_better"] = datasets.get(recipe.data.dataset).mos_higher_is_better
    if isinstance(recipe, ScoreRecipe) and recipe.poison is not None:
        config["poison"] = recipe.poison.model_dump(mode="json")
    return config


def _write_card(
    recipe: ScoreRecipe | PatchRecipe,
    task: ScoreTask | PatchTask,
    out: Path,
    manifests: dict[str, str],
    history: list[dict[str, float]],
    data_root: Path | None,
    listener: Listener,
) -> None:
    """Judge the stored file, not the network in memory: half precision is part of what is shipped."""
    stored = load(out)
    task.network.load_state_dict(stored.tensors)
    task.network.eval()
    test = open_split(recipe.data, "test", data_root)
    counts = {"train": len(task.train), "validation": len(task.validation)}
    results: dict[str, dict[str, float]] = {}
    if task.validation:
        results["validation"] = task.validate(listener)
    if isinstance(task, ScoreTask):
        counts["test"] = len(test)
        samples = [Sample(test, row) for row in test.rows()]
        results["test"] = agreement(task.network, samples, "test", listener)
        results["test, attacked"] = _attacked(task, samples, listener)
    else:
        results["test"] = task.gains(test, listener)
    Card(
        recipe=recipe,
        weights=out,
        sha256=stored.sha256,
        parameters=sum(parameter.numel() for parameter in task.network.parameters()),
        origin=task.origin,
        manifests={**manifests, f"{recipe.data.dataset}:test": test.manifest()},
        counts=counts,
        epoch=_kept(history, task),
        results=results,
        history=history,
    ).write()


def _attacked(task: ScoreTask, samples: Sequence[Sample], listener: Listener) -> dict[str, float]:
    """SROCC of center crops of test images that are spread over the labels: clean, and at each of the card's radii."""
    keys = [(sample.row.mos, sample.row.image_id) for sample in samples]
    chosen = [samples[i] for i in nested_sample(keys, ATTACKED_IMAGES, seed=0)]  # the same ones for every recipe
    crops = center_crops(chosen, ATTACKED_CROP)
    clean = agreement(task.network, crops, "test", listener)["srocc"]
    found = task.attacked(crops, ATTACKED_RADII, ATTACKED_STEPS, listener)
    return {f"srocc at {eps:g}/255": value for eps, value in zip((0.0, *ATTACKED_RADII), (clean, *found), strict=True)}


def _kept(history: list[dict[str, float]], task: Task) -> int:
    """The epoch whose weights were kept, from 1: the first best one, or the last."""
    if task.chosen_by is None or not history:
        return len(history)
    values = [worth(epoch, task.chosen_by) for epoch in history]
    return values.index(max(values)) + 1
