"""What the query attacks share: how much they may ask, random search, searches side by side, a goal by half-range."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from functools import partial

import torch

from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.models.base import IQAModel
from iqa_robust.models.changes.memory import Memory
from iqa_robust.models.changes.windows import Windows
from iqa_robust.records import STANDARD_QUERIES, Budget

AT_ONCE = 64
"""Images evaluated in one call of the model by attacks that have many candidates ready; it bounds the memory."""

State = tuple[torch.Tensor, ...]
"""What a random search remembers of its best candidates; the first dimension of every tensor is that of the images."""

Search = Generator[torch.Tensor, torch.Tensor, None]
"""The search of one image: yields candidates (k, 3, H, W), is sent their values (k,)."""


def evaluations(objective: Objective, budget: Budget) -> int:
    """Evaluations an image may use, each of `objective.draws` queries: the budget's or the standard number."""
    queries = STANDARD_QUERIES if budget.queries is None else budget.queries
    return min(queries // objective.draws, int(objective.remaining().max()))


def running(objective: Objective, least: int = 1) -> torch.Tensor:
    """Indices of the images that have `least` evaluations left and have not reached all that counts."""
    active = (objective.remaining() >= least) & ~objective.reached().cpu()
    return active.nonzero().squeeze(1).to(objective.score_clean.device)


def random_search(
    objective: Objective,
    state: State,
    render: Callable[[State, torch.Tensor], torch.Tensor],
    propose: Callable[[int, State, torch.Tensor], tuple[State, Windows | None]],
    tries: int,
    *,
    steady: bool = False,
) -> torch.Tensor:
    """Greedy random search, all images side by side; (N, 3, H, W), the best image of each.

    Args:
        objective: what rises; a candidate is kept where it is higher than the best so far.
        state: the first candidates, edited in place.
        render: images (n, 3, H, W) of some states, given with the indices (n,) of their images.
        propose: new candidates from the number of the try, the best states, which it leaves as they are, and the
            indices of their images; and the windows outside of which their images are as before: always, or never.
        tries: evaluations an image may use, the first candidate's among them.
        steady: whether the size of the windows follows from the try alone, never from the images; then a model may wait
            with remembering until they are small, and what it rounds does not hang on the batch.
    """
    everyone = torch.arange(len(state[0]), device=state[0].device)
    value = torch.full((len(everyone),), -torch.inf, device=everyone.device)
    memory: Memory | None = Memory()
    for i in range(tries):
        index = running(objective)
        if len(index) == 0:
            break
        everyone_runs = len(index) == len(everyone)
        best = trial = state if everyone_runs else tuple(part.index_select(0, index) for part in state)
        windows = None
        if i > 0:
            trial, windows = propose(i - 1, best, index)
            memory = None if windows is None else memory  # where all changes, scores of the whole are faster
        if memory is not None:
            memory.propose(index, windows, partial(render, best, index) if steady else None)
        reached = objective(render(trial, index), None if everyone_runs else index, memory)
        wins = reached > value[index]
        if i > 0 and memory is not None:  # the first candidates are where the search begins, whatever they reach
            memory.settle(wins)
        better = wins.nonzero().squeeze(1)
        winners = index[better]
        for part, new in zip(state, trial, strict=True):
            part.index_copy_(0, winners, new.index_select(0, better))
        value[winners] = reached[better]
    return render(state, everyone)


def side_by_side(objective: Objective, searches: Sequence[Search], tries: int) -> None:
    """Run one search per image, evaluating what they ask for together.

    A search ends by itself, when its image has used `tries` evaluations or has none left, or when the goal is
    reached. Of a request that is larger than what is left, the first candidates are still evaluated. The images
    found are in the objective's memory.
    """
    asked: dict[int, torch.Tensor] = {}
    left = objective.remaining().clamp(max=tries).tolist()
    for i, search in enumerate(searches):
        _resume(asked, i, search, None)
    while asked:
        reached = objective.reached().tolist()
        for i in [i for i in asked if left[i] < 1 or reached[i]]:
            searches[i].close()
            del asked[i]
        if not asked:
            break
        candidates = {i: images[: left[i]] for i, images in asked.items()}
        unfinished = {i for i, images in asked.items() if len(images) > left[i]}
        values = evaluate_all(objective, list(candidates.values()), list(candidates))
        asked = {}
        for (i, images), answer in zip(candidates.items(), values, strict=True):
            left[i] -= len(images)
            if i in unfinished:
                searches[i].close()
            else:
                _resume(asked, i, searches[i], answer)


def _resume(asked: dict[int, torch.Tensor], i: int, search: Search, answer: torch.Tensor | None) -> None:
    """Note what the search of image `i` asks for next, unless it ends; `answer` is None at its start."""
    with contextlib.suppress(StopIteration):
        asked[i] = next(search) if answer is None else search.send(answer)


def evaluate_all(objective: Objective, candidates: list[torch.Tensor], images: list[int]) -> list[torch.Tensor]:
    """Values of several candidates (k, 3, H, W) per image, -inf where they are not numbers, `AT_ONCE` in a call."""
    sizes = [len(group) for group in candidates]
    flat = torch.cat(candidates)
    index = torch.tensor(images, device=flat.device).repeat_interleave(torch.tensor(sizes, device=flat.device))
    values = [
        objective(flat[start : start + AT_ONCE], index[start : start + AT_ONCE])
        for start in range(0, len(flat), AT_ONCE)
    ]
    return list(torch.cat(values).nan_to_num(nan=-torch.inf).split(sizes))


def away_from_middle(model: IQAModel, score_clean: torch.Tensor) -> Goal:
    """The bi-directional goal: lower the score where it lies above the middle of the range, else raise it.

    Where the model's range is unknown, any distance from the clean score counts.
    """
    if model.info.score_range is None:
        return Goal()
    one = torch.ones_like(score_clean)
    return Goal(sign=torch.where(score_clean > sum(model.info.score_range) / 2, -one, one))
