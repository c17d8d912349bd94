"""The adversarial patch of ART."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from iqa_robust.attacks import sparse
from iqa_robust.attacks.adapters.art import LABELS, ARTAttack
from iqa_robust.attacks.adapters.views import View
from iqa_robust.attacks.parameters import check_number
from iqa_robust.records import Budget


class AdversarialPatch(ARTAttack):
    """`AdversarialPatchPyTorch`: sign steps on a square at one place, drawn from the seed, without transformations.

    The library never clears the gradient of the patch, so every step goes along the sum of all.
    """

    norms = ("patch",)
    source = "Brown et al., 2017, arXiv 1712.09665"
    library_class = "AdversarialPatchPyTorch"

    def __init__(self, *, step: float = 0.1) -> None:
        """`step`: length of a step, of full scale; the patch starts gray."""
        check_number(self, "step", step, above=0, most=1)
        self.step = step

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Place and size of the patch, number of steps and their length."""
        side = sparse.side_allowed(x, budget.eps)
        top, left = (int(np.random.randint(length - side + 1)) for length in x.shape[-2:])
        return {
            "patch_shape": (3, side, side),
            "patch_location": (left, top),
            "patch_type": "square",
            "rotation_max": 0.0,
            "learning_rate": self.step,
            "max_iter": budget.steps,
            "optimizer": "pgd",
            "targeted": False,
            "verbose": False,
        }

    def run(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W)."""
        attack = self.build(view, x, budget)
        image = x.cpu().numpy()
        attack.generate(image, y=LABELS)
        return torch.from_numpy(attack.apply_patch(image, scale=1.0)).to(x)
