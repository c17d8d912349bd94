"""The conformance suite, for plugin authors: does a model, defense, attack or dataset keep its contract?

    report = iqa_robust.testing.check_defense("acme-iqa/wavelet")  # or an instance
    report.raise_if_failed()

Each check runs on small pictures and toy models on the CPU, in well under a minute. `iqa-robust check KIND NAME`
prints the same report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_robust.testing.report import Check, Report

if TYPE_CHECKING:
    from iqa_robust.attacks.base import Attack
    from iqa_robust.datasets.base import Dataset
    from iqa_robust.defenses.base import Defense
    from iqa_robust.models.base import IQAModel

__all__ = ["Check", "Report", "check_attack", "check_dataset", "check_defense", "check_model"]


def check_model(model: IQAModel | str) -> Report:
    """Check a model, or the one of that registry name with its default parameters.

    Raises:
        ContractError: `model` is neither.
        UnknownNameError, PluginError, RequestError: the name cannot be made into an instance.
        CheckpointError: the model's weights cannot be read.
    """
    from iqa_robust.testing import models

    return models.check(model)


def check_defense(defense: Defense | str) -> Report:
    """Check a defense, or the one of that registry name. Raises as `check_model`.

    A name stands for the default parameters, or for the class's `check_params` where these would take minutes.
    """
    from iqa_robust.testing import defenses

    return defenses.check(defense)


def check_attack(attack: Attack | str) -> Report:
    """Check an attack, or the one of that registry name with its default parameters. Raises as `check_model`."""
    from iqa_robust.testing import attacks

    return attacks.check(attack)


def check_dataset(dataset: Dataset | str) -> Report:
    """Check a dataset, or the one of that registry name with its default parameters. Raises as `check_model`.

    Labels are checked in full; pixels and the manifest on a sample of the rows, so that large datasets stay quick.
    """
    from iqa_robust.testing import datasets

    return datasets.check(dataset)
