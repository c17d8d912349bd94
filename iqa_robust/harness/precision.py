"""In which arithmetic attacks look for images: decided once per run and model, by measuring on the machine at hand."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from scipy.stats import trim_mean

from iqa_robust import attacks
from iqa_robust.errors import ContractError
from iqa_robust.harness.memory import is_out_of_memory, release
from iqa_robust.harness.system import Batch
from iqa_robust.models.base import IQAModel, score
from iqa_robust.models.changes.memory import Memory
from iqa_robust.models.prepared.twin import PRECISIONS, prepare
from iqa_robust.models.randomness import content_seeds
from iqa_robust.records import Budget

IMAGES = 8
"""Images that are looked at before it is known how many fit."""
REPEATS = 3
"""Timed calls."""
WEAKER = 0.01
"""The share by which shifts found in bfloat16, scored in float32, may fall short; see `_strength`."""
ROUNDING = 0.01
"""The largest root mean square error of a score's change, as a share of that change, for searches by scores."""
ROUNDING_OF_CHANGES = 0.03
"""The same where only changes are rounded, in proportion to their size: then a small one is as exact as a large one."""
PAYS = 1.1
"""The least gain in speed for which scores are rounded."""
WORTH = 0.01
"""Seconds of a float32 gradient pass of the images below which nothing is gained: the attack's own arithmetic rules."""
OUTLIERS = 0.2
"""Share of the trials that are left out at either end: an image that a climb leads to another optimum in one arithmetic
and not in the other says nothing of either, and a single one can be 2 % of the shift of all."""
TRIAL = Budget(norm="linf", eps_255=2, steps=10)
"""The attack that is tried; also the size of the random change whose score is compared."""


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
    """Measure a bare model on a few images: speed and strength in float32 and in bfloat16.

    bfloat16 serves gradient attacks where it is faster and shifts, scored in float32, are at most `WEAKER` smaller; it
    serves searches by scores where it is faster and a random change moves the rounded score as it moves the exact
    one, up to `ROUNDING`. Where it does not, and the model can score images by what changed in them, changes alone are
    rounded, up to `ROUNDING_OF_CHANGES`.

    Raises:
        RuntimeError, MemoryError: memory ran out, which says nothing of either.
    """
    x, ref = batch.x, batch.ref if model.info.full_reference else None
    try:
        twins = {name: prepare(model, name, x[:1], None if ref is None else ref[:1]) for name in ("fp32", "bf16")}
        strength = _strength(model, twins, x, ref)
        exact, rounded = (_moves(twin, x, ref) for twin in twins.values())
        error = _error(exact, rounded)
        slopes = {name: _seconds(partial(_differentiate, twin, x, ref), x.device) for name, twin in twins.items()}
        passes = {name: _seconds(partial(_query, twin, x, ref), x.device) for name, twin in twins.items()}
    except Exception as failure:  # no bfloat16 form of an operation; a model that always fails does so in its cells
        if is_out_of_memory(failure):
            raise
        return Precision(reason=f"bf16 fails ({' '.join(str(failure).split())})")
    worth = slopes["fp32"] >= WORTH
    gain, gain_queries = slopes["fp32"] / slopes["bf16"], passes["fp32"] / passes["bf16"]
    queries, more = "fp32", ""
    if worth and gain_queries >= PAYS:
        changes = None if error <= ROUNDING else _moves_by_changes(model, x, ref)
        if error <= ROUNDING:
            queries = "bf16"
        elif changes is not None:
            error_of_changes = _error(exact, changes)
            queries = "mixed" if error_of_changes <= ROUNDING_OF_CHANGES else "fp32"
            more = f", by {error_of_changes:.3f} where changes alone are rounded"
    return Precision(
        gradients="bf16" if worth and gain >= PAYS and strength >= 1 - WEAKER else "fp32",
        queries=queries,
        reason=(
            f"bf16 takes gradients {gain:.2f} times as fast and reaches {strength:.3f} of the shift; it takes scores"
            f" {gain_queries:.2f} times as fast and is off by {error:.3f} of a change of {TRIAL.eps_255:g}/255{more}"
            f" (on {len(x)} images of {x.shape[-1]} x {x.shape[-2]})"
        ),
    )


def _strength(model: IQAModel, twins: Mapping[str, IQAModel], x: torch.Tensor, ref: torch.Tensor | None) -> float:
    """The shift found in bfloat16 as a share of that in float32: the trimmed mean over images and directions.

    Zero where no image moves in float32.
    """
    shifts: dict[str, torch.Tensor] = {}
    for name, twin in twins.items():
        attack = attacks.create(attacks.TYPICAL)
        results = [attack(model, x, ref, goal=goal, budget=TRIAL, search=twin) for goal in ("up", "down")]
        shifts[name] = torch.cat([result.score_adv - result.score_clean for result in results]).abs()
    moved = shifts["fp32"] > 0
    shares = (shifts["bf16"][moved] / shifts["fp32"][moved]).tolist()
    return float(trim_mean(shares, OUTLIERS)) if shares else 0.0


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
def _moves_by_changes(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> torch.Tensor | None:
    """The same by a twin that scores images by what changed in them; None where there is none."""
    twin = prepare(model, "mixed", x[:1], None if ref is None else ref[:1])
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
