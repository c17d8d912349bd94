"""The training loop: one for every recipe.

Plain PyTorch: an epoch is twenty lines, and the promise that an interrupted training ends in the same weights is kept
by what is written here, where a framework's callbacks would spread it over several places.

Everything random in epoch k follows from (seed, k), so a resumed training needs no generator states.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iqa_robust.errors import CheckpointError, ContractError
from iqa_robust.models.randomness import derive_seed
from iqa_robust.training.log import write_log
from iqa_robust.training.origin import Origin
from iqa_robust.training.progress import Clock, Listener, Progress
from iqa_robust.training.sections import Optimization

Batch = tuple[torch.Tensor, torch.Tensor]


class Task(ABC):
    """What is trained: a network, its batches, its loss, and how an epoch is judged."""

    network: nn.Module
    device: torch.device = torch.device("cpu")
    """Where it is trained."""
    origin: Origin | None = None
    """What it goes on from, once it has started."""
    batches_per_epoch: int
    chosen_by: str | None
    """The measure of `validate` whose maximum chooses the epoch; None keeps the last one."""

    @abstractmethod
    def start(self, listener: Listener) -> None:
        """Prepare the network; called only where training does not resume."""

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[Batch]:
        """`batches_per_epoch` batches, the same ones for the same epoch."""

    @abstractmethod
    def loss(self, batch: Batch) -> torch.Tensor:
        """Scalar loss of the network on a batch."""

    @abstractmethod
    def validate(self, listener: Listener) -> dict[str, float]:
        """Measures on the validation part; empty where there is none."""


def fit(
    task: Task,
    settings: Optimization,
    *,
    seed: int,
    digest: str,
    state: Path,
    log: Path | None = None,
    listener: Listener,
) -> list[dict[str, float]]:
    """Train to the end, from the file `state` where it exists, and leave the chosen weights in the network.

    `state` is replaced after every epoch in one step, so a killed training loses at most one epoch; so is the table
    `log`, with a row per epoch.

    Returns:
        One dict of measures per epoch: `loss` and what `validate` gives.

    Raises:
        CheckpointError: `state` belongs to another recipe or is broken.
        ContractError: the loss is not finite any more.
    """
    network = task.network.to(device=task.device).to(memory_format=torch.channels_last)
    history: list[dict[str, float]] = []
    best: dict[str, torch.Tensor] = {}
    best_value = -math.inf
    stored = _read_state(state, digest)
    if stored is None:
        task.start(listener)
        network.to(device=task.device).to(memory_format=torch.channels_last)
    optimizer = _optimizer(network, settings)  # only now: a start from a checkpoint replaces the parameters
    rates = [group["lr"] for group in optimizer.param_groups]
    if stored is not None:
        network.load_state_dict(stored["network"])
        optimizer.load_state_dict(stored["optimizer"])
        history, best, best_value = stored["history"], stored["best"], stored["best_value"]
        task.origin = None if stored["origin"] is None else Origin(**stored["origin"])
    total = settings.epochs * task.batches_per_epoch
    clock = Clock()
    for epoch in range(len(history) + 1, settings.epochs + 1):
        network.train()
        sum_loss = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "epoch", epoch))
            for number, batch in enumerate(task.batches(epoch), start=1):
                done = (epoch - 1) * task.batches_per_epoch + number
                factor = _rate_factor((done - 0.5) / total, settings)
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * factor
                images = batch[0].to(task.device, memory_format=torch.channels_last)
                with torch.autocast(task.device.type, torch.bfloat16, enabled=settings.arithmetic == "bf16"):
                    loss = task.loss((images, batch[1].to(task.device)))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                sum_loss += loss.item()
                if not math.isfinite(sum_loss):
                    raise ContractError(f"training: the loss is {loss.item()} in epoch {epoch}; lower learning_rate.")
                clock.images += len(batch[0])
                listener(
                    Progress(
                        "train",
                        done=number,
                        total=task.batches_per_epoch,
                        epoch=epoch,
                        epochs=settings.epochs,
                        rate=clock.rate(),
                        seconds_left=(total - done) * settings.batch_size / clock.rate(),
                        loss=sum_loss / number,
                        validation=history[-1] if history else {},
                    )
                )
        network.eval()
        measures = task.validate(listener)
        history.append({"loss": sum_loss / task.batches_per_epoch, **measures})
        if log is not None:
            write_log(log, history)
        value = worth(history[-1], task.chosen_by) if task.chosen_by else float(epoch)
        if value > best_value or not best:
            best_value = value
            best = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
        _write_state(
            state,
            {
                "digest": digest,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "history": history,
                "best": best,
                "best_value": best_value,
                "origin": None if task.origin is None else asdict(task.origin),
            },
        )
    if best:
        network.load_state_dict(best)
    network.eval()
    return history


def worth(measures: dict[str, float], chosen_by: str) -> float:
    """What an epoch is chosen by; a measure that does not exist, as the rank of equal scores, is worth nothing."""
    value = measures[chosen_by]
    return -math.inf if math.isnan(value) else value


def _optimizer(network: nn.Module, settings: Optimization) -> torch.optim.Optimizer:
    """Weights under `trunk.` have a rate of their own; biases and normalizations are not decayed."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault((name.startswith("trunk."), parameter.ndim > 1), []).append(parameter)
    options: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": settings.learning_rate * (settings.trunk_rate if in_trunk else 1.0),
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (in_trunk, decays), parameters in sorted(groups.items(), key=lambda entry: entry[0])
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(options, lr=settings.learning_rate, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(options, lr=settings.learning_rate)


def _rate_factor(share_done: float, settings: Optimization) -> float:
    """Share of the learning rate in force after `share_done` of all steps: a linear rise, then the schedule."""
    if share_done < settings.warmup:
        return share_done / settings.warmup
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (share_done - settings.warmup) / (1 - settings.warmup)))


def _read_state(path: Path, digest: str) -> dict[str, Any] | None:
    """The state of an interrupted training: tensors, numbers and names only, so nothing in it can run."""
    if not path.exists():
        return None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        found, _ = stored["digest"], stored["origin"]
    except Exception as error:  # a broken file fails in many ways inside torch
        raise CheckpointError(
            f"{path}: not the state of a training ({type(error).__name__}); delete it to start anew."
        ) from error
    if found != digest:
        raise CheckpointError(
            f"{path}: belongs to another recipe or another version of this one; delete it to start anew,"
            " or choose another --out."
        )
    return stored


def _write_state(path: Path, state: dict[str, Any]) -> None:
    """One file, not weights beside the rest: two files cannot be replaced in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(state, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
