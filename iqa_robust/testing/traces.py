"""What a well-behaved component leaves as it found it: models, global generators."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from iqa_robust.models.base import IQAModel
from iqa_robust.testing.report import expect

UNUSUAL_SEED = 3_141_592_653


@contextlib.contextmanager
def untouched(model: IQAModel) -> Iterator[None]:
    """Raise `ViolationError` if state, modes, gradients or `info` of `model` differ after the block."""
    before = _describe(model)
    yield
    after = _describe(model)
    for name, found in before.items():
        expect(found == after[name], f"expected the model to be left as it was; its {name} changed.")


@contextlib.contextmanager
def no_global_randomness() -> Iterator[None]:
    """Raise `ViolationError` if the block draws from, or seeds, a global generator. All of them continue as before."""
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            # From an unusual seed: `manual_seed(0)` in the block must not lead back to where it began.
            random.seed(UNUSUAL_SEED)
            np.random.seed(UNUSUAL_SEED)
            torch.default_generator.manual_seed(UNUSUAL_SEED)
            before = _generators()
            yield
            after = _generators()
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
    for name, state in after.items():
        expect(
            state == before[name],
            f"expected the global generator of {name} to be left alone; draw from the generators given"
            " (`rng`, or `iqa_robust.models.randomness.draws`).",
        )


def _describe(model: IQAModel) -> dict[str, Any]:
    parameters = dict(model.named_parameters())
    return {
        "state": {key: _digest(value) for key, value in model.state_dict().items()},
        "training mode": {name: module.training for name, module in model.named_modules()},
        "requires_grad": {name: parameter.requires_grad for name, parameter in parameters.items()},
        "stored gradients": {
            name: None if parameter.grad is None else _digest(parameter.grad) for name, parameter in parameters.items()
        },
        "info": model.info,
    }


def _digest(tensor: torch.Tensor) -> str:
    content = tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + content).hexdigest()


def _generators() -> dict[str, object]:
    _, words, *position = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "NumPy": (np.asarray(words).tobytes(), *position),
        "Python": random.getstate(),
    }
