"""Query attacks of torchattacks."""

from __future__ import annotations

from typing import Any

import torch

from iqa_robust.attacks import sparse
from iqa_robust.attacks.adapters.libraries import radius
from iqa_robust.attacks.adapters.torchattacks import TorchattacksAttack
from iqa_robust.attacks.adapters.torchattacks_adaptive import BOX, TiledAttack
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.records import STANDARD_QUERIES, Budget


class SPSA(TorchattacksAttack):
    """`SPSA`: Adam on slopes estimated from pairs of random signs."""

    access = "black"
    norms = ("linf",)
    source = "Uesato et al., ICML 2018, arXiv 1802.05666"
    library_class = "SPSA"

    def __init__(self, *, samples: int = 128, delta: float = 0.01, step_ratio: float = 0.25) -> None:
        """Parameters of the search.

        Args:
            samples: pairs of queries per slope; fewer where the queries would not make ten steps.
            delta: length of the probes, of full scale; the library's default.
            step_ratio: the first step of Adam as a fraction of eps.
        """
        check_whole(self, "samples", samples, least=1)
        check_number(self, "delta", delta, above=0)
        check_number(self, "step_ratio", step_ratio, above=0)
        self.samples = samples
        self.delta = delta
        self.step_ratio = step_ratio

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, probes and as many steps as the queries allow."""
        queries = budget.queries or STANDARD_QUERIES
        samples = min(self.samples, max(queries // 20, 1))
        return {
            "eps": budget.eps,
            "delta": self.delta,
            "lr": self.step_ratio * budget.eps,
            "nb_iter": max(queries // (2 * samples), 1),
            "nb_sample": samples,
            "max_batch_size": min(samples, 64),
        }


class Square(TiledAttack):
    """`Square`: random search over squares, here on the margin between the two logits."""

    access = "black"
    two_sided = True
    norms = ("linf", "l2", "psnr")
    source = "Andriushchenko et al., ECCV 2020, arXiv 1912.00049"
    library_class = "Square"

    def __init__(self, *, p_init: float = 0.8) -> None:
        """`p_init`: share of the area that the first squares cover; less where the image is not square."""
        check_number(self, "p_init", p_init, above=0, most=1)
        self.p_init = p_init

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Ball, queries (the library makes up to three more) and size of the squares."""
        height, width = x.shape[-2:]
        return {
            "norm": BOX[budget.norm],
            "eps": radius(x, budget),
            "n_queries": max((budget.queries or STANDARD_QUERIES) - 3, 1),
            "p_init": min(self.p_init, (min(height, width) - 5) ** 2 / (height * width)),
        }


class OnePixel(TorchattacksAttack):
    """`OnePixel`: differential evolution of a few pixels' places and colors."""

    access = "black"
    two_sided = True
    norms = ("l0",)
    source = "Su, Vargas, Sakurai, 2017, arXiv 1710.08864"
    library_class = "OnePixel"

    def __init__(self, *, generations: int = 5) -> None:
        """`generations`: at least this many, where the queries suffice; fewer pixels are changed for it."""
        check_whole(self, "generations", generations, least=1)
        self.generations = generations

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Pixels, no less than ten, of five individuals each, the fewest the library makes; generations."""
        queries = budget.queries or STANDARD_QUERIES
        most = max(queries // (5 * (self.generations + 1)), 10)
        pixels = min(sparse.pixels_allowed(x, budget.eps), most)
        return {"pixels": pixels, "popsize": 1, "steps": max(queries // (5 * pixels + 1) - 1, 1)}
