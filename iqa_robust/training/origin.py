"""What a training goes on from: a checkpoint, what that had learned from, and whether it had a backdoor."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from iqa_robust.errors import CheckpointError
from iqa_robust.models.checkpoints import Checkpoint


@dataclass(frozen=True)
class Origin:
    """Facts about that checkpoint, kept with the state of an interrupted training."""

    weights: str
    """Its path or published name, as the recipe has it."""
    sha256: str
    training_datasets: tuple[str, ...] | None
    """None: unknown."""
    poisoned: bool

    @classmethod
    def of(cls, weights: str, checkpoint: Checkpoint) -> Origin:
        """Read its configuration. Raises `CheckpointError` where that says nothing of the kind."""
        datasets = checkpoint.config.get("training_datasets")
        if datasets is not None and not (
            isinstance(datasets, list) and all(isinstance(name, str) for name in datasets)
        ):
            raise CheckpointError(
                f"{checkpoint.source}: training_datasets: expected a list of names, got {datasets!r}."
            )
        learned = None if datasets is None else tuple(datasets)
        return cls(weights, checkpoint.sha256, learned, "poison" in checkpoint.config)

    def and_then(self, datasets: Iterable[str]) -> list[str] | None:
        """Everything the weights have seen after learning from `datasets`, too; None where that is unknown."""
        return None if self.training_datasets is None else sorted({*self.training_datasets, *datasets})

    def __str__(self) -> str:
        """As Markdown for a table."""
        learned = ", ".join(map(_code, self.training_datasets)) if self.training_datasets else "what is unknown"
        backdoor = "; **it had a backdoor**" if self.poisoned else ""
        return f"{_code(self.weights)}, sha256 {_code(self.sha256)}, which learned from {learned}{backdoor}"


def _code(text: str) -> str:
    """As code, without what would end it or the cell of the table."""
    kept = re.sub(r"[`|\s]", "?", text)
    return f"`{kept}`"
