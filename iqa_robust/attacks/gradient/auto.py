"""The climb of Auto-PGD: steps that halve themselves, momentum, and returns to the best point."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch

from iqa_robust.attacks.gradient.climbing import Landing, project_each, spread
from iqa_robust.attacks.norms import steepest, unit_l1
from iqa_robust.attacks.objectives import Objective

RHO = 0.75
"""Share of the steps since the last checkpoint that must improve on the step before."""
ALPHA = 0.75
"""Weight of the gradient step; the rest is the step before."""

Finished = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Of points (n, 3, H, W), their values (n,) and their indices (n,): which images need no further step, (n,) bool."""


@dataclass(frozen=True)
class _State:
    """What the climb knows of every image that is still in it; every field has one entry per image."""

    index: torch.Tensor
    x: torch.Tensor
    radius: torch.Tensor
    z: torch.Tensor
    before: torch.Tensor
    """The point before `z`."""
    velocity: torch.Tensor
    """The accumulated gradient."""
    length: torch.Tensor
    """Of the next step."""
    last: torch.Tensor
    """Value of the point evaluated last."""
    rises: torch.Tensor
    """Steps since the last checkpoint that rose."""
    best: torch.Tensor
    best_value: torch.Tensor
    best_slope: torch.Tensor
    best_velocity: torch.Tensor
    """The velocity with which `best` was reached."""
    checked_value: torch.Tensor
    """Best value at the last checkpoint."""
    halved: torch.Tensor
    """Whether the last checkpoint halved the step."""

    def but(self, **fields: torch.Tensor) -> _State:
        return dataclasses.replace(self, **fields)

    def select(self, kept: torch.Tensor) -> _State:
        return _State(**{field.name: getattr(self, field.name)[kept] for field in dataclasses.fields(self)})


def checkpoints(steps: int) -> list[int]:
    """0 and the steps after which the length is reconsidered (Croce and Hein, section 3.1, rounded as in their code).

    The first interval is 0.22 of the steps, every other one 0.03 shorter than the one before, but at least 0.06; all
    in whole steps, rounded down, and at least one.
    """
    interval, least, less = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    marks = [0]
    while marks[-1] + interval < steps:
        marks.append(marks[-1] + interval)
        interval = max(interval - less, least)
    return marks


def auto_ascend(
    objective: Objective,
    start: torch.Tensor,
    x: torch.Tensor,
    norm: str,
    radius: torch.Tensor,
    steps: int,
    *,
    decay: float = 0.75,
    landing: Landing | None = None,
    index: torch.Tensor | None = None,
    finished: Finished | None = None,
) -> torch.Tensor:
    """Climb `objective` with at most `steps` gradients per image.

    With the step length h, first 2 radius, and the projection P, a step is

        z' = P(z_k + h steepest(g_k)),  z_{k+1} = P(z_k + 0.75 (z' - z_k) + 0.25 (z_k - z_{k-1})),

    where the velocity g_k = decay g_{k-1} + gradient / |gradient|_1 is the gradient itself for a decay of 0.

    At a checkpoint h is halved, and the climb goes back to its best point, where (1) fewer than three quarters of the
    steps since the last checkpoint rose, or (2) the last checkpoint did not halve h and the best value has not risen
    since. Every image decides for itself.

    Args:
        objective: what is climbed; it keeps the best point by itself.
        start: (n, 3, H, W), where to begin.
        x: (n, 3, H, W), the centers of the balls.
        norm: one of `climbing.BALLS`.
        radius: (n,) of the balls.
        steps: gradients per image.
        decay: what is kept of the velocity at every step.
        landing: shortens steps and rounds points toward a target; a shortened step has no momentum.
        index: (n,) the images of the objective's batch; all of them by default.
        finished: asked after every evaluation; the images it names leave, as do those without queries left.

    Returns:
        (n', 3, H, W) the last points, of the images that have not left.
    """
    index = torch.arange(len(x), device=x.device) if index is None else index
    lowest = torch.full_like(radius, -torch.inf)
    state = _State(
        index=index,
        x=x,
        radius=radius,
        z=start,
        before=start,
        velocity=torch.zeros_like(x),
        length=2 * radius,
        last=lowest,
        rises=torch.zeros_like(radius),
        best=start,
        best_value=lowest,
        best_slope=torch.zeros_like(x),
        best_velocity=torch.zeros_like(x),
        checked_value=lowest,
        halved=torch.ones_like(radius, dtype=torch.bool),
    )
    marks = checkpoints(steps)
    for step in range(steps):
        if finished is not None:
            state = state.select((objective.remaining()[state.index.cpu()] > 0).to(x.device))
            if len(state.index) == 0:
                break
        value, slope = objective.gradient(state.z, state.index)
        if finished is not None:
            stay = ~finished(state.z, value, state.index)
            if not bool(stay.any()):
                return state.z[stay]
            state, value, slope = state.select(stay), value[stay], slope[stay]
        state = _note(state, value, slope, first=step == 0)
        if step in marks[1:]:
            state, value, slope = _check(state, value, slope, step - marks[marks.index(step) - 1])
        state = _step(state, value, slope, norm, decay, landing, step)
    return state.z


def _note(state: _State, value: torch.Tensor, slope: torch.Tensor, *, first: bool) -> _State:
    """The state after `z` has been evaluated."""
    better = value > state.best_value
    best_value = torch.where(better, value, state.best_value)
    return state.but(
        last=value,
        rises=state.rises if first else state.rises + (value > state.last),
        best=torch.where(spread(better), state.z, state.best),
        best_value=best_value,
        best_slope=torch.where(spread(better), slope, state.best_slope),
        best_velocity=torch.where(spread(better), state.velocity, state.best_velocity),
        checked_value=best_value if first else state.checked_value,
    )


def _check(
    state: _State, value: torch.Tensor, slope: torch.Tensor, interval: int
) -> tuple[_State, torch.Tensor, torch.Tensor]:
    """The state after a checkpoint, `interval` steps after the last one, and value and slope of its `z`."""
    halve = (state.rises < RHO * interval) | (~state.halved & (state.best_value <= state.checked_value))
    state = state.but(
        z=torch.where(spread(halve), state.best, state.z),
        velocity=torch.where(spread(halve), state.best_velocity, state.velocity),
        length=torch.where(halve, state.length / 2, state.length),
        rises=torch.zeros_like(state.rises),
        checked_value=state.best_value,
        halved=halve,
    )
    return (
        state,
        torch.where(halve, state.best_value, value),
        torch.where(spread(halve), state.best_slope, slope),
    )


def _step(
    state: _State,
    value: torch.Tensor,
    slope: torch.Tensor,
    norm: str,
    decay: float,
    landing: Landing | None,
    step: int,
) -> _State:
    """The state after a step from `z`."""
    velocity = decay * state.velocity + unit_l1(slope)
    direction = steepest(velocity, norm)
    length = state.length if landing is None else landing.length(state.length, value, slope, direction)
    there = project_each(state.z + spread(length) * direction, state.x, norm, state.radius)
    if step > 0:
        weight = spread(torch.where(length < state.length, 1.0, ALPHA))
        there = state.z + weight * (there - state.z) + (1 - weight) * (state.z - state.before)
        there = project_each(there, state.x, norm, state.radius)
    if landing is not None:
        there = landing.point(there, step, state.index)
    return state.but(z=there, before=state.z, velocity=velocity)
