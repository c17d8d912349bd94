"""Cells -> records: shared attacks, memory, failures, and what a record holds; on stub components of known answer."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from brightness import Brightness

import iqa_robust as ir
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective
from iqa_robust.datasets.base import Dataset, Row
from iqa_robust.defenses.base import Defense, DifferentiablePurifier
from iqa_robust.errors import ContractError, StorageError
from iqa_robust.harness.execute import Job, give_up, run_job
from iqa_robust.harness.run import group_by_attack
from iqa_robust.harness.store import Store
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget, Component, RunSpec

PHOTOS = ir.datasets.create("photos", limit=5, crop=48)


class Brighten(Attack):
    """Adds eps everywhere and counts how often it is asked to."""

    def __init__(self) -> None:
        self.batches = 0

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        self.batches += 1
        return x + budget.eps


class Halve(DifferentiablePurifier):
    """Half the brightness, so a defended score is half the bare one."""

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


class Broken(DifferentiablePurifier):
    """Cannot purify."""

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("by design")


class NotANumber(DifferentiablePurifier):
    """Every second image becomes NaN."""

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[..., 0, 0] = torch.where(x[..., 0, 0] > 0.3, torch.nan, x[..., 0, 0])
        return x


def spec(defense: str | None = None, knowledge: str = "adaptive", **changes: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "track": "t-v1",
        "dataset": Component(name="photos", params={"limit": 5}),
        "manifest": PHOTOS.manifest(),
        "model": Component(name="brightness"),
        "weights_sha256": None,
        "score_range": (0.0, 1.0),
        "defense": None if defense is None else Component(name=defense),
        "attack": Component(name="brighten"),
        "goal": "away",
        "target": None,
        "budget": Budget(eps_255=4),
        "knowledge": knowledge,
        "seed": 0,
        "package_version": "0",
    }
    return RunSpec(**{**fields, **changes})


def job(
    specs: Sequence[RunSpec],
    defenses: Sequence[Defense | None],
    *,
    dataset: Dataset = PHOTOS,
    batch_size: int = 2,
    model: IQAModel | None = None,
    attack: Attack | None = None,
) -> Job:
    return Job(
        specs=tuple(specs),
        dataset=dataset,
        model=model or Brightness(),
        defenses=tuple(defenses),
        attack=attack or Brighten(),
        device=torch.device("cpu"),
        batch_size=batch_size,
    )


def test_scores_and_distances_are_those_of_the_closed_form() -> None:
    bare, defended = run_job(job([spec(), spec("halve", "oblivious")], [None, Halve()], batch_size=3))
    items = list(PHOTOS)
    assert list(bare.images["image_id"]) == [item.image_id for item in items]
    clean = np.array([float(item.x.double().mean()) for item in items])
    adv = np.array([float((item.x.double() + 4 / 255).clamp(max=1).mean()) for item in items])
    # float32 means of 6,912 values in [0, 1] carry errors of about 1e-7.
    np.testing.assert_allclose(bare.images["score_clean"], clean, atol=1e-6)
    np.testing.assert_allclose(bare.images["score_adv"], adv, atol=1e-6)
    assert bare.images["score_def_clean"].isna().all()
    np.testing.assert_allclose(defended.images["score_clean"], clean, atol=1e-6)
    np.testing.assert_allclose(defended.images["score_def_clean"], clean / 2, atol=1e-6)
    np.testing.assert_allclose(defended.images["score_adv"], adv / 2, atol=1e-6)
    np.testing.assert_allclose(bare.images["linf"] * 255, 4, atol=1e-4)
    assert (bare.status, bare.facts["mos_range"]) == ("ok", [0.0, 100.0])


def test_oblivious_cells_share_the_attack_of_the_bare_cell() -> None:
    specs = [spec(), spec("halve", "oblivious"), spec("halve"), spec("half", "oblivious")]
    groups = group_by_attack(specs)
    assert [[cell.defense and cell.defense.name for cell in group] for group in groups] == [
        [None, "halve", "half"],
        ["halve"],
    ]
    attack = Brighten()
    run_job(job(groups[0], [None, Halve(), Halve()], attack=attack, batch_size=5))
    assert attack.batches == 1


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing() -> None:
    whole = run_job(job([spec()], [None], batch_size=5))[0]

    class Tightening(Brighten):
        def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
            if len(x) > 2:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
            return super().perturb(objective, x, budget, rng)

    attack = Tightening()
    halved = run_job(job([spec()], [None], attack=attack, batch_size=5))[0]
    assert halved.status == "ok"
    assert whole.images.equals(halved.images)
    assert attack.batches >= 3


class Narrow(Brighten):
    """Runs out of memory above two images, and watches its tries and what becomes of their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.tried: list[int] = []
        self.failed: list[weakref.ref[torch.Tensor]] = []
        self.alive = 0

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        self.tried.append(len(x))
        self.alive += sum(tensor() is not None for tensor in self.failed)
        if len(x) > 2:
            held = x + 1
            self.failed.append(weakref.ref(held))
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return super().perturb(objective, x, budget, rng)


def test_a_failed_try_leaves_nothing_behind_and_nothing_larger_is_tried_again() -> None:
    dataset = ir.datasets.create("photos", limit=13, crop=48)
    attack = Narrow()
    record = run_job(job([spec()], [None], attack=attack, batch_size=8, dataset=dataset))[0]
    assert record.status == "ok"
    assert attack.tried == [8, 4, 2, 2, 2, 2, 2, 2, 1]
    assert len(attack.failed) == 2 and attack.alive == 0


def test_memory_that_runs_out_while_probing_halves_the_batch() -> None:
    class Small(Brightness):
        def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x, ref)

    record = run_job(job([spec()], [None], model=Small(), batch_size=5))[0]
    assert record.status == "ok"
    assert record.images.equals(run_job(job([spec()], [None], batch_size=2))[0].images)
    assert record.probes["repeat_difference"] == 0 and record.probes["milliseconds"] > 0


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    class Wrong(Brighten):
        def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
            self.batches += 1
            raise ValueError("out of memory of what it was told")

    attack = Wrong()
    record = run_job(job([spec()], [None], attack=attack, batch_size=5))[0]
    assert (record.status, attack.batches) == ("failed", 1)
    assert record.reason == "Wrong.perturb: ValueError: out of memory of what it was told"


def test_a_defense_that_breaks_fails_alone() -> None:
    bare, broken = run_job(job([spec(), spec("broken", "oblivious")], [None, Broken()]))
    assert (bare.status, broken.status) == ("ok", "failed")
    assert broken.reason == "Broken.purify: ZeroDivisionError: by design"
    assert broken.images["score_adv"].isna().all() and len(broken.images) == 5


def test_scores_that_are_not_finite_are_failed_images_not_dropped_ones() -> None:
    record = run_job(job([spec("nan")], [NotANumber()]))[0]
    assert len(record.images) == 5
    failed = record.images["status"] == "failed"
    assert 0 < failed.sum() <= 5
    assert set(record.images.loc[failed, "reason"]) == {"score is not finite"}


def test_finished_batches_are_not_run_again(tmp_path) -> None:
    store = Store(tmp_path)

    class Stops(Brighten):
        def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
            if self.batches == 2:
                raise KeyboardInterrupt
            return super().perturb(objective, x, budget, rng)

    with pytest.raises(KeyboardInterrupt):
        run_job(job([spec()], [None], attack=Stops()), store)
    parts = store.parts(spec().digest)
    assert parts is not None and len(parts) == 4

    attack, seen = Brighten(), []
    resumed = run_job(job([spec()], [None], attack=attack), store, seen.append)[0]
    assert attack.batches == 1
    assert seen == [4, 1]
    assert resumed.images.equals(run_job(job([spec()], [None]))[0].images)
    assert store.parts(spec().digest) is None
    assert store.finished(spec().digest)


def test_a_store_that_cannot_be_written_ends_the_run(tmp_path) -> None:
    class Full(Store):
        def write_part(self, digest: str, rows: Any) -> None:
            raise StorageError("the disk is full.")

    seen: list[int] = []
    with pytest.raises(StorageError, match="the disk is full"):
        run_job(job([spec()], [None]), Full(tmp_path), seen.append)
    assert seen == [0]  # no image counts whose rows are not kept


def test_a_part_that_was_cut_short_counts_as_not_there(tmp_path) -> None:
    store = Store(tmp_path)
    record = run_job(job([spec()], [None]))[0]
    store.write_part(spec().digest, record.images.iloc[:2])
    part = next(tmp_path.rglob("*.parts/*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    assert store.parts(spec().digest) is None
    assert not part.exists()


def test_a_job_that_is_given_up_keeps_what_is_finished_and_is_run_again(tmp_path) -> None:
    class Untouchable(Brightness):
        def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
            raise AssertionError("looked at")

    store, specs = Store(tmp_path), [spec(), spec("halve", "oblivious")]
    whole = run_job(job([spec()], [None]))[0]
    store.write_part(spec().digest, whole.images.iloc[:2])
    records = give_up(job(specs, [None, Halve()], model=Untouchable()), store, "3 workers died", spent=60.0)
    for record in records:
        assert (record.status, record.reason) == ("failed", "3 workers died")
        assert record.seconds >= 60
        assert store.has(record.digest) and not store.finished(record.digest)
    assert list(records[0].images["status"]) == ["ok"] * 2 + ["failed"] * 3
    assert list(records[1].images["reason"]) == ["3 workers died"] * 5

    attack = Brighten()
    again = run_job(job([spec()], [None], attack=attack), store)[0]
    assert (again.status, attack.batches) == ("ok", 2)  # three images in batches of two
    assert again.images.equals(whole.images)


def test_images_of_different_sizes_are_grouped_not_resized() -> None:
    sizes: list[tuple[int, ...]] = []

    class Watching(Brightness):
        def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
            sizes.append(tuple(x.shape[-2:]))
            return super().forward(x, ref)

    class TwoSizes(type(PHOTOS)):  # type: ignore[misc]
        def load(self, row: Row) -> Any:
            item = super().load(row)
            import dataclasses

            cut = self.size(row)[1]
            return dataclasses.replace(item, x=item.x[..., :cut], ref=None)

        def size(self, row: Row) -> tuple[int, int]:
            return 48, 48 if self.rows().index(row) % 2 else 32

    record = run_job(job([spec()], [None], dataset=TwoSizes(limit=5, crop=48), model=Watching()))[0]
    assert record.status == "ok"
    assert set(sizes) == {(48, 48), (48, 32)}
    assert list(record.images["image_id"]) == [row.image_id for row in TwoSizes(limit=5, crop=48).rows()]


def test_evaluate_gives_a_record_with_measures_from_python() -> None:
    record = ir.evaluate(Brightness(), PHOTOS, Brighten(), Halve(), budget=ir.Budget(eps_255=2))
    assert record.status == "ok"
    assert len(record.images) == 5
    measures = record.measures()
    own = record.images
    assert measures["shift_mean"] == pytest.approx((own["score_adv"] - own["score_clean"]).mean(), rel=1e-9)
    assert measures["linf_max_255"] == pytest.approx(2, abs=1e-4)


def test_evaluate_says_what_kind_of_attacker_it_was_and_whose_network() -> None:
    one, two = (
        torch.nn.Sequential(torch.nn.Conv2d(3, 1, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        for _ in range(2)
    )
    first = ir.evaluate(one, PHOTOS, "noise", Halve())
    second = ir.evaluate(two, PHOTOS, "noise", Halve())
    assert first.measures()["knowledge"] == "black-box"
    assert first.measures()["model"] == "torch.nn.modules.container.Sequential"
    assert first.measures()["run"] != second.measures()["run"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"goal": "target"}, "goal 'target': give the score to reach as `target`, in the model's native units."),
        ({"budget": {}}, "budget: expected a Budget, got dict."),
        ({"budget": {"eps_255": 2}}, "budget: expected a Budget, got dict."),
        ({"attack": Brighten}, f"attack: expected Attack or a registry name, got {Brighten!r}."),
        ({"seed": "a"}, "seed: expected a whole number >= 0, got 'a'."),
        (
            {"knowledge": "black-box"},
            "Brighten differentiates the model: expected knowledge oblivious or adaptive, got 'black-box'.",
        ),
    ],
)
def test_evaluate_refuses_wrong_requests_before_anything_runs(arguments: dict[str, Any], sentence: str) -> None:
    given: dict[str, Any] = {"attack": Brighten(), **arguments}
    with pytest.raises(ContractError) as caught:
        ir.evaluate(Brightness(), PHOTOS, **given)
    assert str(caught.value) == sentence


def test_evaluate_leaves_the_model_as_it_was() -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 1, 3), torch.nn.Dropout(), torch.nn.Flatten(), torch.nn.LazyLinear(1)
    )
    module(torch.zeros(1, 3, 48, 48))
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    ir.evaluate(module, PHOTOS, Brighten())
    assert all(part.training for part in module.modules())
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())


def test_evaluate_hashes_the_tensors_of_a_network_with_batch_norm() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.AdaptiveAvgPool2d(1))
    module.append(torch.nn.Flatten()).append(torch.nn.Linear(2, 1))  # `num_batches_tracked` is a scalar
    first = ir.evaluate(ir.models.wrap(module.eval()), PHOTOS, Brighten(), budget=ir.Budget(eps_255=2))
    with torch.no_grad():
        module[-1].bias += 1
    second = ir.evaluate(ir.models.wrap(module), PHOTOS, Brighten(), budget=ir.Budget(eps_255=2))
    assert first.measures()["shift_mean"] == pytest.approx(second.measures()["shift_mean"], abs=1e-5)  # float32
    assert first.record.spec.weights_sha256 != second.record.spec.weights_sha256
