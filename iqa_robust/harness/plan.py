"""Track -> cells. Everything that can be wrong is found here, all at once, before anything runs."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iqa_robust import attacks, datasets, defenses, models
from iqa_robust.attacks.base import Attack
from iqa_robust.datasets.base import Dataset
from iqa_robust.defenses.base import Defense
from iqa_robust.errors import ContractError, DataError, IqaRobustError, RequestError
from iqa_robust.harness.components import behind, describe, make_attack, make_dataset, make_defense, make_model
from iqa_robust.harness.track import (
    BARE,
    AttackEntry,
    DefenseEntry,
    ModelEntry,
    Track,
    title,
)
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Component, Place, RunSpec, place
from iqa_robust.registry import Registry, package_version

Entry = ModelEntry | DefenseEntry | AttackEntry


@dataclass(frozen=True)
class Selection:
    """What the command line narrows a track down to; None means all of it."""

    models: Sequence[str] | None = None
    defenses: Sequence[str] | None = None
    attacks: Sequence[str] | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Plan:
    """A track made ready: its dataset and its cells in the order they run."""

    track: Track
    dataset: Dataset
    cells: tuple[RunSpec, ...]
    data_root: Place | None
    limited: bool = False
    """Whether the selection takes a part of the track's images."""


def data_root_or_default(data_root: Place | None) -> Place | None:
    """`--data-root`, or the folder the environment variable `IQA_ROBUST_DATA` names."""
    if data_root is not None:
        return data_root
    named = os.environ.get("IQA_ROBUST_DATA")
    return place(named) if named else None


def make_plan(track: Track, *, data_root: Place | None = None, selection: Selection | None = None) -> Plan:
    """Expand a track into cells.

    Raises:
        RequestError: every problem found, one per line: unknown names, parameters, impossible combinations, missing
            data, a manifest that is not the track's.
    """
    selection = selection or Selection()
    planner = _Planner(track, data_root_or_default(data_root), selection)
    plan = planner.plan()
    if planner.problems:
        raise RequestError("\n".join(dict.fromkeys(planner.problems)))
    assert plan is not None  # without problems there is a plan
    return plan


class _Planner:
    """Collects components and problems side by side."""

    def __init__(self, track: Track, data_root: Place | None, selection: Selection) -> None:
        self.track, self.data_root, self.selection = track, data_root, selection
        self.problems: list[str] = []

    @contextlib.contextmanager
    def _noting(self, where: str) -> Iterator[None]:
        try:
            yield
        except IqaRobustError as error:
            self.problems += [line if where == "" else f"{where}: {line}" for line in str(error).splitlines()]

    def _where(self, kind: str, entry: Entry) -> str:
        """The place of an entry in the track, as in `models.0 (compact)`; one of the command line has no number."""
        entries = getattr(self.track, kind)
        number = f".{entries.index(entry)}" if entry in entries else ""
        return f"{kind}{number} ({title(entry)})"

    def plan(self) -> Plan | None:
        track = self.track
        dataset, data_component, manifest = self._dataset()
        model_list = self._models(dataset)
        defense_list = self._defenses()
        attack_list = self._attacks()
        combinations = [
            (model, defense) for model in model_list for defense in defense_list if self._fits(model, defense)
        ]
        self._check_combinations(model_list, attack_list)
        self._check_queries(combinations, attack_list)
        if self.problems or dataset is None or data_component is None:
            return None
        cells = [
            RunSpec(
                track=track.id,
                dataset=data_component,
                manifest=manifest,
                model=model_component,
                weights_sha256=model.info.weights_sha256,
                score_range=model.info.score_range,
                defense=defense_component,
                attack=attack_component,
                goal=entry.goal,
                target=entry.target,
                budget=budget,
                knowledge=knowledge,
                seed=seed,
                package_version=package_version(),
            )
            for (model_component, model), (defense_component, _) in combinations
            for attack_component, attack, entry in attack_list
            for budget in entry.budgets()
            for knowledge in knowledges(entry, attack, defended=defense_component is not None)
            for seed in track.seeds
        ]
        times = Counter(cell.digest for cell in cells)
        if twice := [cell for cell in cells if times[cell.digest] > 1]:
            self.problems.append(
                f"{cell_title(twice[0])}: the track asks for this cell twice; state every attack, radius, seed and"
                " knowledge once."
            )
            return None
        return Plan(track, dataset, tuple(cells), self.data_root, self.selection.limit is not None)

    def _dataset(self) -> tuple[Dataset | None, Component | None, str]:
        entry = self.track.dataset
        with self._noting(""):
            component = describe(datasets.registry, entry.name, entry.params)
            whole = make_dataset(component, self.data_root)
            n_images = len(whole)
            if entry.n_images is not None and n_images != entry.n_images:
                raise ContractError(
                    f"{entry.name}: the track is frozen on {entry.n_images} images, found {n_images};"
                    " use the track made for the part you have, or complete the set."
                )
            if entry.manifest is not None and whole.manifest() != entry.manifest:
                raise ContractError(
                    f"{entry.name}: the images or labels are not those the track is frozen on"
                    f" (manifest {whole.manifest()[:12]}..., expected {entry.manifest[:12]}...)."
                )
            low, high = whole.mos_range
            if not low < high:
                raise ContractError(
                    f"{entry.name}: every label is {low:g}, so nothing can be correlated with them; give `mos_range`"
                    " if that is what the set holds, or another table."
                )
            dataset = whole
            if self.selection.limit is not None:
                component = dataclasses.replace(component, params={**component.params, "limit": self.selection.limit})
                dataset = make_dataset(component, self.data_root)
            params = {key: value for key, value in component.params.items() if key != "root" or value is not None}
            return dataset, dataclasses.replace(component, params=params), dataset.manifest()
        return None, None, ""

    def _models(self, dataset: Dataset | None) -> list[tuple[Component, IQAModel]]:
        found = []
        for entry in self._chosen("models", self.track.models, models.registry, ModelEntry):
            with self._noting(self._where("models", entry)):
                component = describe(models.registry, entry.name, entry.params, entry.label)
                model = make_model(component, entry.score_range)
                declared = model.info.score_range
                if declared is not None and not all(map(math.isfinite, declared)):
                    raise ContractError(
                        f"{title(entry)} declares scores from {declared[0]} to {declared[1]}; give the model entry a"
                        " finite `score_range = [low, high]`."
                    )
                if model.info.full_reference and dataset is not None and not dataset.full_reference:
                    raise ContractError(
                        f"{title(entry)} needs reference images, which {self.track.dataset.name} has not."
                    )
                if dataset is not None:
                    self._check_sizes(title(entry), model, dataset)
                found.append((component, model))
        return found

    def _check_sizes(self, name: str, model: IQAModel, dataset: Dataset) -> None:
        if model.info.min_size <= 1:
            return
        small = []
        for row in dataset.rows():
            with contextlib.suppress(DataError):  # an unreadable image fails alone, when its turn comes
                if min(dataset.size(row)) < model.info.min_size:
                    small.append(row.image_id)
        if small:
            raise ContractError(
                f"{name} needs at least {model.info.min_size} pixels a side; {len(small)} images are smaller,"
                f" the first is {small[0]}."
            )

    def _defenses(self) -> list[tuple[Component | None, Defense | None]]:
        found: list[tuple[Component | None, Defense | None]] = []
        for entry in self._chosen("defenses", self.track.defenses, defenses.registry, DefenseEntry):
            if entry.name == BARE:
                found.append((None, None))
                continue
            with self._noting(self._where("defenses", entry)):
                component = describe(defenses.registry, entry.name, entry.params, entry.label)
                found.append((component, make_defense(component)))
        return found

    def _attacks(self) -> list[tuple[Component, Attack, AttackEntry]]:
        found = []
        for entry in self._chosen("attacks", self.track.attacks, attacks.registry, AttackEntry):
            with self._noting(self._where("attacks", entry)):
                component = describe(attacks.registry, entry.name, entry.params, entry.label)
                attack = make_attack(component)
                if entry not in self.track.attacks and len(attack.goals) == 1:
                    entry = entry.model_copy(update={"goal": attack.goals[0]})
                check_served(title(entry), attack, entry.goal, entry.norm, entry.knowledge or ())
                found.append((component, attack, entry))
        return found

    def _chosen(self, kind: str, entries: Sequence[Entry], registry: Registry, section: type) -> list:
        """The track's entries, or those the command line names; a registered name the track lacks takes defaults."""
        names = getattr(self.selection, kind)
        if names is None:
            return list(entries)
        chosen: list[Entry] = []
        for name in names:
            matches = [entry for entry in entries if name in (entry.label, entry.name)]
            if not matches and section is DefenseEntry and name == BARE:
                matches = [DefenseEntry(name=BARE)]
            if not matches:
                with self._noting(kind):
                    registry.entry(name)
                    defaults = self.track.budget.model_dump(exclude_unset=True) if section is AttackEntry else {}
                    matches = [section(name=name, **defaults)]
            chosen += [entry for entry in matches if entry not in chosen]
        return chosen

    def _fits(self, model: tuple[Component, IQAModel], defense: tuple[Component | None, Defense | None]) -> bool:
        if defense[0] is None or defense[1] is None:
            return True
        with self._noting(f"{model[0].title} behind {defense[0].title}"):
            behind(defense[1], model[1])
            return True
        return False

    def _check_queries(
        self,
        combinations: list[tuple[tuple[Component, IQAModel], tuple[Component | None, Defense | None]]],
        attack_list: list[tuple[Component, Attack, AttackEntry]],
    ) -> None:
        for (model_component, model), (defense_component, defense) in combinations:
            system = model if defense is None else behind(defense, model)
            for attack_component, _, entry in attack_list:
                if not system.info.deterministic and entry.queries is not None and entry.queries < entry.eot:
                    name = model_component.title if defense_component is None else defense_component.title
                    self.problems.append(
                        f"{attack_component.title} on {name}: {entry.queries} queries do not pay for one evaluation of"
                        f" a randomized model, which takes eot = {entry.eot}."
                    )

    def _check_combinations(
        self,
        model_list: list[tuple[Component, IQAModel]],
        attack_list: list[tuple[Component, Attack, AttackEntry]],
    ) -> None:
        for component, model in model_list:
            for attack_component, _, entry in attack_list:
                if entry.goal == "reflect" and model.info.score_range is None:
                    self.problems.append(
                        f"{attack_component.title} on {component.title}: the goal 'reflect' needs a score range;"
                        " give the model entry `score_range = [low, high]`."
                    )


def check_served(name: str, attack: Attack, goal: str, norm: str, knowledge: Sequence[str]) -> None:
    """Raise `ContractError` unless the attack serves the goal and the norm and can know what is claimed."""
    if goal not in attack.goals:
        raise ContractError(f"{name} serves the goals {', '.join(attack.goals)}, got {goal!r}.")
    if norm not in attack.norms:
        raise ContractError(f"{name} serves the norms {', '.join(attack.norms)}, got {norm!r}.")
    possible = ("oblivious", "adaptive" if attack.access == "white" else "black-box")
    for claimed in knowledge:
        if claimed not in possible:
            kind = "differentiates" if attack.access == "white" else "only queries"
            wanted = " or ".join(possible)
            raise ContractError(f"{name} {kind} the model: expected knowledge {wanted}, got {claimed!r}.")


def cell_title(spec: RunSpec) -> str:
    """A cell in a few words."""
    system = spec.model.title if spec.defense is None else f"{spec.defense.title}+{spec.model.title}"
    return f"{system} / {spec.attack.title} {spec.budget.size} {spec.knowledge}"


def knowledges(entry: AttackEntry, attack: Attack, *, defended: bool) -> tuple[str, ...]:
    """What the attacker knows, per cell. On a bare model there is only one thing to know."""
    direct = "adaptive" if attack.access == "white" else "black-box"
    if not defended:
        return (direct,)
    if entry.knowledge is not None:
        return entry.knowledge
    return ("oblivious", "adaptive") if attack.access == "white" else ("black-box",)
