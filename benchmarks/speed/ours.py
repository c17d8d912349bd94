"""This package's attacks, as a user calls them: clean scores, search, and final scores in fp32."""

from __future__ import annotations

import torch
from task import Attack, Task

import iqa_robust as ir
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.prepared.twin import prepare
from iqa_robust.records import Budget


def attack(model: IQAModel, task: Task, x: torch.Tensor) -> Attack:
    """The search runs on a copy of the model in `task.precision`, as `iqa-robust run` makes it."""
    search = prepare(model, task.precision, x[:1])
    named, budget = ir.attacks.create(task.attack), _budget(task)
    return lambda z: named(model, z, goal="up", budget=budget, search=search).images


def search_alone(model: IQAModel, task: Task, x: torch.Tensor) -> Attack:
    """The search without the scores in fp32 before and after it, which the libraries leave to their user."""
    search = prepare(model, task.precision, x[:1])
    named, budget = ir.attacks.create(task.attack), _budget(task)
    return lambda z: named(Unscored(model.info), z, goal="up", budget=budget, search=search).images


class Unscored(IQAModel):
    """Scores that cost nothing: clean ones of zero, and then each far larger than the last.

    So what the attack returned stands; and a search that takes the clean score off its own loses no digits by that.
    """

    def __init__(self, info: ModelInfo) -> None:
        super().__init__()
        self.info, self.calls = info, 0

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,)."""
        scores = x.new_full((len(x),), 1e6 * self.calls)
        self.calls += 1
        return scores


def plain(model: IQAModel, task: Task, x: torch.Tensor) -> Attack:
    """The search runs on the very model the libraries get."""
    named, budget = ir.attacks.create(task.attack), _budget(task)
    return lambda z: named(model, z, goal="up", budget=budget).images


def passes(model: IQAModel, task: Task, x: torch.Tensor) -> Attack:
    """The floor: nothing but as many forward, or forward and backward, passes of the copy as the task may spend."""
    search = prepare(model, task.precision, x[:1])

    @torch.no_grad()
    def forward(z: torch.Tensor) -> torch.Tensor:
        for _ in range(task.queries):
            search(z)
        return z

    def forward_and_backward(z: torch.Tensor) -> torch.Tensor:
        for _ in range(1 if task.attack == "fgsm" else task.steps):
            leaf = z.detach().requires_grad_(True)
            torch.autograd.grad(search(leaf).sum(), leaf)
        return z

    return forward if task.attack == "square" else forward_and_backward


def _budget(task: Task) -> Budget:
    queries = task.queries if task.attack == "square" else None
    return Budget(eps_255=task.eps_255, steps=task.steps, queries=queries)
