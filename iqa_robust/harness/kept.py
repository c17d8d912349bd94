"""What jobs on one model share, so that nothing is computed twice in one process."""

from __future__ import annotations

from typing import TypeVar

from iqa_robust.attacks.known import Known
from iqa_robust.harness.system import Batch, System
from iqa_robust.models.base import IQAModel
from iqa_robust.models.prepared.twin import prepare
from iqa_robust.records import Component, RunSpec

KEPT_SLOPES = 8
"""Systems whose slopes are kept, which are images; cells come defense by defense. Scores are a few floats each."""

T = TypeVar("T")


class Kept:
    """Prepared twins of a bare model; clean scores, slopes and probes of it and of its defended forms.

    All of it depends on content only, so a cell gives the same numbers whatever ran before it.
    """

    def __init__(self) -> None:
        self._twins: dict[str, IQAModel] = {}
        self._known: dict[str, Known] = {}
        self._alone: dict[str, Known] = {}
        self._probes: dict[tuple[str, int], dict[str, float]] = {}

    def search_model(self, system: System, spec: RunSpec, precision: str, batch: Batch) -> IQAModel:
        """What an attack searches on: the prepared twin of the bare model, behind the defense if the attack is.

        `batch` gives an example image.
        """
        x, ref = batch.x[:1], batch.ref[:1] if system.bare.info.full_reference and batch.ref is not None else None
        if precision not in self._twins:
            self._twins[precision] = prepare(system.bare, precision, x, ref)
        twin = self._twins[precision]
        if system.attacked(spec.knowledge) is system.bare:
            return twin
        # A defense that puts a model of its own in the place of the bare one has not been prepared yet.
        return prepare(system.around(twin), precision, x, ref)

    def known(self, defense: Component | None) -> Known:
        """Clean scores and slopes of the bare model (None) or of its form behind a defense."""
        found = self._known.setdefault(repr(defense), Known())
        sloped = [known for known in self._known.values() if known.has_slopes]
        others = [known for known in sloped if known is not found and known is not self._known.get(repr(None))]
        for oldest in others[: max(0, len(sloped) - KEPT_SLOPES)]:
            oldest.drop_slopes()
        return found

    def alone(self, defense: Component | None) -> Known:
        """As `known`, but clean scores of images that were scored one at a time, which rounding may set apart."""
        return self._alone.setdefault(repr(defense), Known())

    def probes(self, spec: RunSpec) -> dict[str, float]:
        """Measurements of the system of a cell on clean images, to be filled by whoever takes them first."""
        return self._probes.setdefault((repr(spec.defense), spec.seed), {})
