"""The comparison of robust trainings: its recipes are shipped, its tracks are valid, and every method trains."""

from __future__ import annotations

import shutil
import sys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from scripts import scripts_of

from iqa_robust import models
from iqa_robust.defenses.codec.webp import WebP
from iqa_robust.errors import RequestError
from iqa_robust.harness.plan import Selection, make_plan
from iqa_robust.harness.run import run
from iqa_robust.harness.track import load_track
from iqa_robust.models.checkpoints import load
from iqa_robust.models.compact import PUBLISHED, WEIGHTS
from iqa_robust.tables.board import board
from iqa_robust.training import train
from iqa_robust.training.recipe import SHIPPED, read_recipe

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "robust_training"
SHIPPED_METHODS = (
    "at", "cas", "cifs", "correlation", "cprl-a", "cprl-b", "cprl-v2", "feature-denoising", "free", "nt", "orthogonal",
    "silu-correlation", "single-step", "sort-mask", "sort-mask-correlation", "ssim-labels", "trades",
    "wide-sort-mask-correlation", "wide-sort-mask-correlation-4",
)  # fmt: skip
CLEAN = ("clean", "clean-fp32")
COMPACT = {
    "at": "at",
    "correlation": "correlation",
    "trades": "trades",
    "nt": "nt",
    "cprl-style": "sort-mask-correlation",
}
"""Published weights of the compact network, and the methods that made them."""


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    with scripts_of(SCRIPTS) as found:
        yield found


@pytest.mark.parametrize("method", SHIPPED_METHODS)
def test_shipped_recipes_are_those_of_the_comparison(scripts: Any, method: str) -> None:
    data = scripts.databases.DATABASES["clive"]
    wanted = tomllib.loads(scripts.recipes.recipe(f"{method}-clive", scripts.methods.METHODS[method], data, 0))
    assert tomllib.loads((SHIPPED / f"{method}-clive.toml").read_text()) == wanted


@pytest.mark.parametrize(("name", "method"), COMPACT.items())
def test_recipes_of_published_robust_weights_are_those_of_the_comparison(scripts: Any, name: str, method: str) -> None:
    name = f"compact-{name}-photos"
    data = scripts.databases.DATABASES["compact"]
    wanted = tomllib.loads(scripts.recipes.recipe(name, scripts.methods.METHODS[method], data, 0))
    assert tomllib.loads((SHIPPED / f"{name}.toml").read_text()) == wanted


def test_all_recipes_are_valid_and_differ_in_the_method_only(scripts: Any, tmp_path: Path) -> None:
    for data in scripts.databases.DATABASES.values():
        plain: dict[str, Any] = {}
        for name, method in scripts.methods.METHODS.items():
            path = tmp_path / f"{name}.toml"
            path.write_text(scripts.recipes.recipe(name, method, data, 1))
            read = read_recipe(path)
            common = tomllib.loads(path.read_text())
            visits = read.inner.steps if read.inner is not None and read.inner.method == "free" else 1
            steps = common["optimization"].pop("epochs") * visits
            assert steps == data.epochs or (visits > 1 and abs(steps - data.epochs) < visits)  # whole epochs
            arithmetic = common["optimization"].pop("arithmetic")
            assert arithmetic == ("fp32" if name.endswith("-fp32") else "bf16")
            chosen_by = common["validation"].pop("eps_255", None)
            if data.validation:  # under attack, for all that are meant to resist one
                assert (read.judged_eps_255 == 2.0) == (name not in CLEAN)
                assert (chosen_by is None) == (name in CLEAN or read.inner is not None)
            same = {key: common[key] for key in ("seed", "data", "augment", "optimization", "validation")}
            plain = plain or same
            assert same == plain


def test_tracks_are_valid_and_name_no_folder_of_the_machine(scripts: Any, tmp_path: Path) -> None:
    for database in scripts.databases.DATABASES:
        found = [tmp_path / database / f"{name}.safetensors" for name in "ab"]
        path = tmp_path / f"robust-{database}.toml"
        path.write_text(scripts.tracks.track(database, found, tmp_path))
        track = load_track(path)
        assert [model.label for model in track.models] == ["a", "b"]
        assert [model.params["weights"] for model in track.models] == [
            f"{database}/{name}.safetensors" for name in "ab"
        ]
        assert {attack.name for attack in track.attacks} >= {"pgd", "score-reflection", "worst-case"}
        named = [tmp_path / database / f"{name}.safetensors" for name in ("at-seed0", "at-seed1", "trades-seed0")]
        path = tmp_path / f"leading-{database}.toml"
        path.write_text(scripts.tracks.leading_track(database, named, tmp_path))
        track = load_track(path)
        assert [model.label for model in track.models] == ["at-seed0", "at-seed1"]
        assert [attack.name for attack in track.attacks] == ["noise", "worst-case"]
        path = tmp_path / f"radii-{database}.toml"
        path.write_text(scripts.tracks.radii_track(database, named, tmp_path))
        track = load_track(path)
        assert [model.label for model in track.models] == ["at-seed0"]
        assert {attack.name for attack in track.attacks} == {"noise", "pgd", "worst-case"}
        path = tmp_path / f"purified-{database}.toml"
        names = ("clean-seed1", "clean-seed2", "cprl-b-seed0", "pretrained-wide-sort-mask-correlation-4-seed0")
        named = [tmp_path / database / f"{name}.safetensors" for name in names]
        path.write_text(scripts.tracks.purified_track(database, named, tmp_path))
        track = load_track(path)
        assert [defense.name for defense in track.defenses] == ["none", *scripts.tracks.PURIFIERS]
        assert [model.label for model in track.models] == ["clean-seed1", names[-1]]
        path = tmp_path / f"webp-{database}.toml"
        path.write_text(
            scripts.tracks.webp_track(database, [*named, tmp_path / database / "at-seed2.safetensors"], tmp_path)
        )
        track = load_track(path)
        assert [defense.name for defense in track.defenses] == ["none", "webp"]
        assert [model.label for model in track.models] == ["clean-seed1", names[-1], "at-seed2"]


def test_the_table_is_that_of_the_records(scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compact").mkdir()
    for label, published in (("clean-seed0", "photos"), ("at-seed0", "student"), ("at-seed1", "photos")):
        for suffix in (".safetensors", ".md"):
            source = WEIGHTS / Path(PUBLISHED[published]).with_suffix(suffix)
            shutil.copy(source, tmp_path / "compact" / f"{label}{suffix}")
    track = tmp_path / "robust-compact.toml"
    found = sorted((tmp_path / "compact").glob("*.safetensors"))
    track.write_text(scripts.tracks.track("compact", found, tmp_path))
    monkeypatch.chdir(tmp_path)
    plan = make_plan(load_track(track), selection=Selection(attacks=["noise", "pgd"], limit=5))
    records = run(plan, tmp_path / "results" / "robust-compact", device="cpu", precision="fp32")
    images, lines = scripts.table.lines("compact", tmp_path, "at")
    assert images == 5
    assert [line["method"] for line in lines] == ["`clean`", "`at`"]

    def under_attack(label: str) -> float:
        (record,) = [
            r
            for r in records
            if r.spec.model.title == label and (r.spec.attack.name, r.spec.budget.eps_255) == ("pgd", 2)
        ]
        return float(spearmanr(record.images["score_adv"], record.images["mos"]).statistic)

    clean, first, second = map(under_attack, ("clean-seed0", "at-seed0", "at-seed1"))
    assert lines[0]["2/255"] == f"{clean:.2f}"
    spread = f"({min(first, second):.2f} to {max(first, second):.2f})"
    assert lines[1]["2/255"] == f"{(first + second) / 2:.2f} {spread}"
    cells = board(records).query("eps_255 == 2 and attack == 'pgd'").set_index("model")
    assert lines[0]["shift, % MOS"] == f"{cells.loc['clean-seed0', 'shift_abs_mos']:.2f}"
    assert lines[0]["minus AT"].startswith(f"{clean - first:+.2f} (")
    assert (lines[0]["validation: clean"], lines[0]["worst-case"]) == ("0.74", "-")


def test_shifts_in_labels_are_shares_of_their_scale_from_the_system_s_own_clean_scores(scripts: Any) -> None:
    rng = np.random.default_rng(0)
    mos = np.linspace(0.1, 0.9, 40)
    clean = 100 * mos + rng.normal(0, 3, 40)
    images = pd.DataFrame({"mos": mos, "score_clean": clean, "score_def_clean": clean + 20, "score_adv": clean + 20})

    def shift(images: pd.DataFrame, top: float, defense: str | None) -> float:
        record = SimpleNamespace(images=images, facts={"mos_range": [0.0, top]}, spec=SimpleNamespace(defense=defense))
        return float(scripts.results.shift_in_labels(record))

    bare = shift(images, 1.0, None)
    assert 10 < bare < 20  # twenty hundredths of the scale, less where the curve levels off at its ends
    assert shift(images, 1.0, "webp") == 0.0
    assert shift(images.assign(mos=100 * mos), 100.0, None) == pytest.approx(bare, rel=1e-3)  # the curve's fit


def test_differences_behind_webp_are_of_scores_behind_it(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "compact").mkdir()
    found = [tmp_path / "compact" / f"{label}.safetensors" for label in ("at-seed3", "clean-seed3")]
    for path, published in zip(found, ("student", "photos"), strict=True):
        shutil.copy(WEIGHTS / PUBLISHED[published], path)
    (tmp_path / "webp-compact.toml").write_text(scripts.tracks.webp_track("compact", found, tmp_path))
    monkeypatch.chdir(tmp_path)
    plan = make_plan(load_track(tmp_path / "webp-compact.toml"), selection=Selection(attacks=["noise"], limit=7))
    run(plan, tmp_path / "results" / "webp-compact", device="cpu", precision="fp32")
    options = ("--out", str(tmp_path), "--databases", "compact", "--tracks", "webp", "--method", "at")
    scripts.differences.main(options)
    *_, line = capsys.readouterr().out.strip().splitlines()
    images, mos, _ = scripts.judged_images.images_of(scripts.databases.DATABASES["compact"], limit=7)
    coded = WebP().purify(images)
    ranks = [
        spearmanr(models.create("compact", weights=str(path)).eval()(coded).detach(), mos).statistic for path in found
    ]
    assert line.startswith(f"| `clean` | {ranks[0] - ranks[1]:+.2f} (")


def test_what_is_published_can_be_run_again(scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, to, folder = tmp_path / "out", tmp_path / "boards", tmp_path / "out" / "compact"
    folder.mkdir(parents=True)
    (out / "pretraining").mkdir()
    for label in (
        "compact/clean-seed0",
        "compact/at-seed0",
        "compact/pretrained-correlation-4-seed0",
        "pretraining/correlation-4-seed0",
    ):
        for suffix in (".safetensors", ".md"):
            shutil.copy(WEIGHTS / Path(PUBLISHED["student"]).with_suffix(suffix), out / f"{label}{suffix}")
        method = scripts.methods.METHODS[Path(label).name.removesuffix("-seed0")]
        text = scripts.recipes.recipe(Path(label).name, method, scripts.databases.DATABASES["compact"], 0)
        (out / f"{label}.toml").write_text(text)
    judged = [folder / f"{label}.safetensors" for label in ("clean-seed0", "pretrained-correlation-4-seed0")]
    (out / "robust-compact.toml").write_text(scripts.tracks.track("compact", judged, out))
    monkeypatch.chdir(out)
    plan = make_plan(load_track(out / "robust-compact.toml"), selection=Selection(attacks=["noise"], limit=5))
    run(plan, out / "results" / "robust-compact", device="cpu", precision="fp32")
    scripts.experiment.publish(out, "compact", to)
    sources = {path.relative_to(to / "sources").as_posix(): path for path in (to / "sources").rglob("*.*")}
    wanted = ("compact/clean-seed0", "compact/pretrained-correlation-4-seed0", "pretraining/correlation-4-seed0")
    assert set(sources) == {"robust-compact-v1.toml", *(f"{stem}{end}" for stem in wanted for end in (".toml", ".md"))}
    assert not any(str(tmp_path) in path.read_text() for path in sources.values())
    assert {path.name for path in to.iterdir()} == {"sources", "runs", "robust-compact-v1.csv"}
    recipe = read_recipe(sources["compact/clean-seed0.toml"])
    start = read_recipe(sources["compact/pretrained-correlation-4-seed0.toml"]).start
    assert (start.weights, start.head, start.trunk) == ("pretraining/correlation-4-seed0.safetensors", "ridge", None)
    model, _ = load_track(sources["robust-compact-v1.toml"]).models
    assert Path(model.params["weights"]) == Path("compact/clean-seed0.safetensors")
    assert recipe.digest() == read_recipe(folder / "clean-seed0.toml").digest()
    origin = out / "pretraining" / "correlation-4-seed0.md"
    shutil.copy(WEIGHTS / Path(PUBLISHED["photos"]).with_suffix(".md"), origin)
    with pytest.raises(RequestError, match=r"correlation-4-seed0\.safetensors: trained again after compact/pretrained"):
        scripts.experiment.publish(out, "compact", to)
    shutil.copy(WEIGHTS / Path(PUBLISHED["photos"]).with_suffix(".md"), folder / "clean-seed0.md")
    with pytest.raises(RequestError, match=r"clean-seed0\.safetensors: trained again after robust-compact-v1 was run"):
        scripts.experiment.publish(out, "compact", to)


def test_a_pre_training_comes_first(scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run_it(command: list[str], *, cwd: Path, check: bool, env: dict[str, str]) -> SimpleNamespace:
        ran.append((read_recipe(cwd / command[4]), command[6], env["IQA_ROBUST_DATA"]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(scripts.experiment.subprocess, "run", run_it)
    monkeypatch.setenv("IQA_ROBUST_DATA", "data")
    monkeypatch.chdir(tmp_path)
    name = "pretrained-correlation-4"
    assert scripts.experiment.train(Path("out"), name, scripts.methods.METHODS[name], "live", 2) == 0
    (first, made, root), (second, _, _) = ran
    assert (made, second.start.weights) == ("pretraining/correlation-4-seed2.safetensors",) * 2
    assert (first.data.dataset, second.data.dataset, root) == ("photos", "live", str(tmp_path / "data"))
    assert [term.weight for term in first.loss] == [term.weight for term in second.loss] == [1, 1, 4]
    assert "Kodak" in second.license and "LIVE" in second.license


def test_tuning_is_read_from_validation_alone(scripts: Any, tmp_path: Path) -> None:
    values = {"sort-mask-correlation": (0.5, 0.25), "threshold-1": (0.75, 0.5), "last": (0.25, 0.5)}
    for name, (clean, attacked) in values.items():
        for database, less in (("a", 0.0), ("b", 0.125)):
            folder = tmp_path / database if name == "sort-mask-correlation" else tmp_path / "tuning" / database
            folder.mkdir(parents=True, exist_ok=True)
            for seed, more in ((0, 0.1), (1, -0.1)):
                rows = (
                    ("validation", "srocc", clean),
                    ("validation", "srocc_attacked", attacked),
                    ("test", "srocc", 1),
                )
                text = [f"| {part} | {measure} | {value - less + more} |" for part, measure, value in rows]
                (folder / f"{name}-seed{seed}.md").write_text("\n".join(text))
    *_, own, first, second = scripts.tuning.table(tmp_path, ["threshold-1", "last"], ["a", "b"], [0, 1]).splitlines()
    assert own == "| `sort-mask-correlation` | 0.50 / 0.25 | 0.38 / 0.12 | 0.312 |"
    assert first == "| `threshold-1` | 0.75 / 0.50 | 0.62 / 0.38 | 0.562 |"
    assert second == "| `last` | 0.25 / 0.50 | 0.12 / 0.38 | 0.312 |"


def test_settings_change_what_makes_a_method_robust(scripts: Any, tmp_path: Path) -> None:
    for name, setting in scripts.tuning.SETTINGS.items():
        base = scripts.methods.METHODS[setting.base]
        assert setting.method != base
        path = tmp_path / f"{name}.toml"
        path.write_text(scripts.recipes.recipe(name, setting.method, scripts.databases.DATABASES["clive"], 0))
        read_recipe(path)
    weights = {
        name: [(term["name"], term.get("on"), term.get("weight")) for term in scripts.tuning.SETTINGS[name].method.loss]
        for name in ("correlation-4", "trades-2")
    }
    assert weights["correlation-4"] == [("plcc", None, None), ("mse", None, None), ("plcc", "attacked", 4.0)]
    assert weights["trades-2"] == [("plcc", None, None), ("mse", None, None), ("difference", None, 2.0)]


def _cell(label: str, scores: np.ndarray, contents: list[str | None]) -> Any:
    """What the differences read of a record."""
    images = {
        "image_id": [f"{i:02}" for i in range(len(scores))],
        "reference_id": contents,
        "mos": np.arange(len(scores), dtype=float),
        "score_adv": scores,
    }
    return SimpleNamespace(
        spec=SimpleNamespace(model=SimpleNamespace(title=label)),
        facts={"higher_is_better": True, "mos_higher_is_better": False},
        images=pd.DataFrame(images).sample(frac=1, random_state=0),
    )


def test_clean_scores_are_read_where_every_model_has_them(scripts: Any) -> None:
    def cell(title: str, attack: str, eps: float = 2.0, status: str = "ok") -> Any:
        spec = SimpleNamespace(
            model=SimpleNamespace(title=title),
            attack=SimpleNamespace(name=attack),
            budget=SimpleNamespace(eps_255=eps),
        )
        return SimpleNamespace(spec=spec, status=status)

    cells = [
        cell("clean-seed0", "noise"),
        cell("at-seed0", "noise"),
        cell("at-seed0", "worst-case"),
        cell("at-seed1", "worst-case", status="failed"),
        cell("at-seed1", "noise", eps=4.0),
    ]
    assert scripts.differences.found_in(cells) == {"at": {0: cells[2]}}
    controls = scripts.differences.found_in(cells, scripts.results.is_control)
    assert controls == {"clean": {0: cells[0]}, "at": {0: cells[1]}}


def test_of_the_ways_through_a_purifier_and_around_it_the_one_that_leaves_less_counts(scripts: Any) -> None:
    def cell(scores: list[float]) -> Any:
        made = _cell("at-seed3", np.array(scores), [None] * 4)
        made.status = "ok"
        return made

    through, around = cell([3, 1, 2, 0]), cell([3, 0, 1, 2])  # worse is better here: ranks .8 and .2 with -mos
    for cells in ([through, around], [around, through]):
        assert scripts.differences.found_in(cells, lambda _: True)["at"][3] is around


def test_differences_are_means_over_common_seeds_with_intervals_over_contents_and_seeds(scripts: Any) -> None:
    rng = np.random.default_rng(0)
    n, contents = 12, ["a", "a", "a", None, "b", "b", None, None, "c", "c", "c", "c"]
    scores = {(name, seed): rng.normal(size=n) - np.arange(n) / 4 for name in ("x", "y") for seed in (0, 1, 2)}
    del scores["y", 2]
    found: dict[str, dict[int, Any]] = {"x": {}, "y": {}}
    for (name, seed), values in scores.items():
        found[name][seed] = _cell(f"{name}-seed{seed}", values, contents)
    values = scripts.differences.difference(found, "x", "y", "score_adv", 0, draws=4000)

    def minus(seed: int, rows: np.ndarray) -> float:
        sides = [spearmanr(scores[name, seed][rows], -rows).statistic for name in ("x", "y")]
        return float(sides[0] - sides[1])

    everyone = np.arange(n)
    assert values[0] == pytest.approx((minus(0, everyone) + minus(1, everyone)) / 2)
    groups = [[0, 1, 2], [3], [4, 5], [6], [7], [8, 9, 10, 11]]
    again = []
    for _ in range(2000):
        rows = np.concatenate([groups[k] for k in rng.integers(0, 6, 6)])
        again.append(np.mean([minus(seed, rows) for seed in rng.integers(0, 2, 2)]))
    # quantiles of 4000 and 2000 draws of a spread of about a third
    np.testing.assert_allclose(
        np.nanpercentile(values[1:], [10, 50, 90]), np.nanpercentile(again, [10, 50, 90]), atol=0.05
    )
    assert scripts.differences.difference({"x": found["x"]}, "x", "y", "score_adv", 0) is None


@pytest.mark.slow
@pytest.mark.parametrize("method", SHIPPED_METHODS)
def test_every_method_trains_on_real_images(scripts: Any, data_root: Path, tmp_path: Path, method: str) -> None:
    text = scripts.recipes.recipe(method, scripts.methods.METHODS[method], scripts.databases.DATABASES["clive"], 0)
    text = text.replace("allow_missing = true", "allow_missing = true, limit = 12").replace("epochs = 8", "epochs = 1")
    text = text.replace("batch_size = 16", "batch_size = 4").replace("share = 0.1", "share = 0.2")
    path = tmp_path / f"{method}.toml"
    path.write_text(text)
    out = train(path, data_root=data_root, out=tmp_path / f"{method}.safetensors")
    stored = load(out)
    assert all(tensor.isfinite().all() for tensor in stored.tensors.values())
    assert "| test, attacked | srocc at 2/255 |" in out.with_suffix(".md").read_text()
