"""In which arithmetic attacks look for images: decided once per run and model, by measuring on the machine at hand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from iqa_robust.errors import ContractError
from iqa_robust.harness.memory import is_out_of_memory, release
from iqa_robust.harness.strength import TRIAL, WEAKER, Trial
from iqa_robust.harness.system import Batch
from iqa_robust.models.base import IQAModel, score
from iqa_robust.models.changes.memory import Memory
from iqa_robust.models.prepared.twin import PRECISIONS, prepare
from iqa_robust.models.randomness import content_seeds

IMAGES = 8
"""Images that are looked at before it is known how many fit."""
REPEATS = 3
"""Timed calls."""
ROUNDING = 0.01
"""The largest root mean square error of a score's change, as a share of that change, for searches by scores."""
ROUNDING_OF_CHANGES = 0.03
"""The same where only changes are rounded, in proportion to their size: then a small one is as exact as a large one."""
PAYS = 1.1
"""The least gain in speed for which scores are rounded."""
WORTH = 0.01
"""Seconds of a float32 gradient pass of the images below which nothing is gained: the attack's own arithmetic rules."""


@dataclass(frozen=True)
class Precision:
    """The arithmetic of an attack's search, of `PRECISIONS`; final scores are float32 in any case."""

    gradients: str = "fp32"
    """For attacks that differentiate."""
    queries: str = "fp32"
    """For attacks that compare scores, which need finer ones."""
    reason: str = ""
    """What was measured, for people."""

    @property
    def summary(self) -> str:
        """One sentence for people."""
        same = self.gradients == self.queries
        used = self.gradients if same else f"{self.gradients} by gradients, {self.queries} by queries"
        return f"attacks search in {used}" + (f": {self.reason}" if self.reason else "")

    def of(self, access: str) -> str:
        """The arithmetic for an attack of this access."""
        return self.gradients if access == "white" else self.queries


FP32 = Precision()
UNMEASURED = Precision(reason="there is too little memory to measure bf16")
"""What is taken for now where memory runs out on a single image; the next run may have more of it."""


def choose_precision(asked: str, model: IQAModel, batch: Batch | None) -> Precision:
    """The precision that was asked for; for `auto` what is measured on `batch`, float32 if there are no images.

    Fewer images are taken where memory runs out.

    Raises:
        ContractError: there is no such precision.
    """
    if asked == "auto":
        return FP32 if batch is None else _measured(model, batch)
    if asked not in PRECISIONS:
        raise ContractError(f"precision: expected one of auto, {', '.join(PRECISIONS)}, got {asked!r}.")
    return Precision(asked, asked, "as asked for")


def _measured(model: IQAModel, batch: Batch) -> Precision:
    size = len(batch.ids)
    while True:
        try:
            return decide(model, batch.part(slice(0, size)))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        release(batch.x.device)
        if size == 1:
            return UNMEASURED
        size = math.ceil(size / 2)


def decide(model: IQAModel, batch: Batch) -> Precision:
    """Measure a bare model on a few images: speed in float32 and in bfloat16, and, where bfloat16 is faster, strength.

    bfloat16 serves gradient attacks where shifts, scored in float32, are at most `WEAKER` smaller: those of a climb and
    those of single steps. It serves searches by scores where a random change moves the rounded score as it moves the
    exact one, up to `ROUNDING`, and random search finds shifts that are at most `WEAKER` smaller. Where it does not,
    and the model can score images by what changed in them, changes alone are rounded, if they pass the same two tests
    with up to `ROUNDING_OF_CHANGES`. How chance counts, says `Share`.

    Raises:
        RuntimeError, MemoryError: memory ran out, which says nothing of either.
    """
    x, ref = batch.x, batch.ref if model.info.full_reference else None
    try:
        twins = {name: prepare(model, name, x[:1], None if ref is None else ref[:1]) for name in ("fp32", "bf16")}
        slopes = {name: _seconds(partial(_differentiate, twin, x, ref), x.device) for name, twin in twins.items()}
        passes = {name: _seconds(partial(_query, twin, x, ref), x.device) for name, twin in twins.items()}
        gain, gain_queries = slopes["fp32"] / slopes["bf16"], passes["fp32"] / passes["bf16"]
        on_images = f"(on {len(x)} images of {x.shape[-1]} x {x.shape[-2]})"
        speed = f"bf16 takes gradients at {gain:.2f} and scores at {gain_queries:.2f} times the speed of fp32"
        if slopes["fp32"] < WORTH:
            return Precision(
                reason=f"gradients take {1000 * slopes['fp32']:.1f} ms, too little to gain by bf16 {on_images}"
            )
        trial = Trial(model, twins["fp32"], twins["bf16"], x, ref)
        gradients, by_gradients = _for_gradients(trial) if gain >= PAYS else ("fp32", "")
        queries, by_queries = _for_queries(trial) if gain_queries >= PAYS else ("fp32", "")
    except Exception as failure:  # no bfloat16 form of an operation; a model that always fails does so in its cells
        if is_out_of_memory(failure):
            raise
        return Precision(reason=f"bf16 fails ({' '.join(str(failure).split())})")
    found = "; ".join(filter(None, [speed, by_gradients, by_queries]))
    return Precision(gradients, queries, f"{found} {on_images}")


def _for_gradients(trial: Trial) -> tuple[str, str]:
    """The arithmetic for attacks that differentiate, and what was found, for people."""
    climb, step = trial.climb(), trial.step()
    suffices = climb.typical >= 1 - WEAKER and climb.suffices and step.suffices
    found = (
        f"by gradients it reaches {climb} of fp32's shift in {TRIAL.steps} steps ({climb.typical:.3f} on a typical"
        f" image) and {step} in one"
    )
    return "bf16" if suffices else "fp32", found + _verdict(suffices)


def _for_queries(trial: Trial) -> tuple[str, str]:
    """The arithmetic for attacks that compare scores, and what was found, for people."""
    x, ref = trial.x, trial.ref
    mixed = replace(trial, rounded=prepare(trial.model, "mixed", x[:1], None if ref is None else ref[:1]))
    exact, changes = _moves(trial.exact, x, ref), _moves_by_changes(mixed.rounded, x, ref)
    # A model that scores images by what changed in them shows its rounded maps only to a search that changes all.
    norms = ("linf",) if changes is None else ("linf", "psnr")
    suffices, found = _judged(trial, _error(exact, _moves(trial.rounded, x, ref)), ROUNDING, norms)
    found = f"its scores are off by {found}"
    if suffices or changes is None:
        return "bf16" if suffices else "fp32", found
    suffices, more = _judged(mixed, _error(exact, changes), ROUNDING_OF_CHANGES, ("linf",))
    return "mixed" if suffices else "fp32", f"{found}; where changes alone are rounded, by {more}"


def _judged(trial: Trial, error: float, most: float, norms: Sequence[str]) -> tuple[bool, str]:
    """Whether scores with that error serve searches, of which some are tried, and what was found, for people."""
    suffices, found = error <= most, f"{error:.3f} of a change of {TRIAL.eps_255:g}/255"
    for norm in norms:
        if suffices:
            share = trial.search(norm)
            suffices = share.suffices
            found += f", random search reaches {share} of fp32's shift ({norm})"
    return suffices, found + _verdict(suffices)


def _verdict(suffices: bool) -> str:
    return "" if suffices else ", which is not enough"


def _moved(x: torch.Tensor) -> torch.Tensor:
    """Images with a random change of the trial's radius."""
    signs = torch.where(torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) > 0.5, 1.0, -1.0)
    return (x + TRIAL.eps * signs.to(x.device)).clamp(0, 1)


@torch.no_grad()
def _moves(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> torch.Tensor:
    """Changes of the scores (N,) by that change."""
    seeds = content_seeds(x, 0)
    return score(model, _moved(x), ref, seeds=seeds) - score(model, x, ref, seeds=seeds)


@torch.no_grad()
def _moves_by_changes(twin: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> torch.Tensor | None:
    """The same by a twin that scores images by what changed in them; None where it does not."""
    memory, everyone = Memory(), torch.arange(len(x), device=x.device)
    memory.propose(everyone, None)
    clean = twin.score_changed(x, ref, memory)
    if not memory.maps:
        return None
    memory.propose(everyone, None)
    return twin.score_changed(_moved(x), ref, memory) - clean


def _error(exact: torch.Tensor, rounded: torch.Tensor) -> float:
    """Root mean square error, as a share of what is exact."""
    size = float(exact.square().mean().sqrt())
    return float((rounded - exact).square().mean().sqrt()) / size if size > 0 else float("inf")


def _differentiate(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> None:
    leaf = x.clone().requires_grad_(True)
    torch.autograd.grad(model(leaf, ref).sum(), leaf, allow_unused=True)


@torch.no_grad()
def _query(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> None:
    model(x, ref)


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """The shortest of a few calls after one that is not timed: other work only slows a call down.

    On a CPU it is the processor's time, which other processes change less than the clock's.
    """
    now = time.process_time if device.type == "cpu" else time.perf_counter
    work()
    taken = []
    for _ in range(REPEATS):
        start = now()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(now() - start)
    return min(taken)
