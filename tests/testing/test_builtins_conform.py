"""Everything the package registers keeps its contract, by the same suite that plugin authors use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from any_attack import OWN, skip_without_weights

from iqa_robust import attacks, datasets, defenses, models, testing
from iqa_robust.datasets.base import Dataset
from iqa_robust.errors import DataError, RequestError
from iqa_robust.registry import OWN_DISTRIBUTION, Registry


def own(registry: Registry[Any]) -> list[str]:
    return [name for name in registry.names() if registry.entry(name).distribution == OWN_DISTRIBUTION]


def created(registry: Registry[Any], name: str, **params: Any) -> Any:
    """An instance with its default parameters, or a skip where it needs what only a user can give."""
    status, detail = registry.status(name)
    if status == "not-installed":
        pytest.skip(f"{name} needs the package {detail}, which is not installed")
    try:
        return registry.create(name, **params)
    except RequestError as error:
        pytest.skip(f"{name} has no default configuration: {error}")


@pytest.mark.parametrize("name", own(models.registry))
def test_model(name: str) -> None:
    testing.check_model(created(models.registry, name)).raise_if_failed()


SLOW = {"bilateral", "denoised-median-smoothing", "diffpure", "non-local-means"}
"""Defenses that take tens of seconds; so do those of other libraries together."""

SOUND = [name for name in own(defenses.registry) if not defenses.get(name).canary]
"""All but those that are there to be caught (tests/defenses/test_canaries.py)."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW or "/" in n else ()) for n in SOUND]
)
def test_defense(name: str) -> None:
    created(defenses.registry, name)
    testing.check_defense(name).raise_if_failed()


QUICK = {"noise", "fgsm", "apgd", "one-pixel", "rank-flip", "score-reflection"}
"""Attacks whose whole suite is asked every time; every attack runs in tests/attacks/test_attack_every.py."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in OWN])
def test_attack(name: str) -> None:
    skip_without_weights(name)
    testing.check_attack(created(attacks.registry, name)).raise_if_failed()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in own(attacks.registry) if name not in OWN])
def test_attack_of_another_library(name: str) -> None:
    testing.check_attack(created(attacks.registry, name)).raise_if_failed()


@pytest.mark.parametrize("name", [name for name in own(datasets.registry) if not datasets.get(name).folders])
def test_dataset_that_needs_no_folder(name: str) -> None:
    testing.check_dataset(created(datasets.registry, name)).raise_if_failed()


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in own(datasets.registry) if datasets.get(name).folders])
def test_dataset_in_a_folder(name: str, data_root: Path) -> None:
    cls: type[Dataset] = datasets.get(name)
    try:
        root = cls.locate(data_root)
    except DataError as error:
        pytest.skip(str(error))
    dataset = created(datasets.registry, name, root=str(root), split="all", allow_missing=True)
    testing.check_dataset(dataset).raise_if_failed()
