"""Query attacks of ART that see the score."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from iqa_robust.attacks import sparse
from iqa_robust.attacks.adapters.art import LABELS, ARTAttack, order
from iqa_robust.attacks.adapters.libraries import radius
from iqa_robust.attacks.adapters.views import BudgetProbabilityView, BudgetView, Cropped, View
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.records import STANDARD_QUERIES, Budget


class SquareAttack(ARTAttack):
    """`SquareAttack`: random search over squares.

    Only for L-infinity: ART's L2 variant fails on images that are taller than wide.
    """

    access = "black"
    two_sided = True
    norms = ("linf",)
    source = "Andriushchenko et al., ECCV 2020, arXiv 1912.00049"
    library_class = "SquareAttack"
    least_side = 3

    def __init__(self, *, p_init: float = 0.8) -> None:
        """`p_init`: share of the area that the first squares cover; less where the image is not square."""
        check_number(self, "p_init", p_init, above=0, most=1)
        self.p_init = p_init

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Ball, iterations of one new image each, and size of the squares."""
        height, width = x.shape[-2:]
        return {
            "norm": order(budget),
            "eps": budget.eps,
            "max_iter": max((budget.queries or STANDARD_QUERIES) - 2, 1),
            "p_init": min(self.p_init, (min(height, width) - 2) ** 2 / (height * width)),
            "verbose": False,
        }


class SimBA(ARTAttack):
    """`SimBA`: one direction after the other, kept where a step of either sign helps.

    The directions are single values, in steps of full scale, for `l0`. For the other norms they are the cosines of
    the whole image, low frequencies first, in steps of which an L2 ball holds as many as there are tries; a step in
    the L-infinity ball has the amplitude eps, and what leaves the ball is scored where it meets it. Cosines are only
    known to the library for square images: of others, the largest square in the middle is attacked.
    """

    access = "black"
    two_sided = True
    norms = ("linf", "l2", "psnr", "l0")
    view = BudgetProbabilityView
    source = "Guo et al., ICML 2019, arXiv 1905.07121"
    library_class = "SimBA"

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Directions, tries of two queries each, and the step."""
        tries = max((budget.queries or STANDARD_QUERIES) // 2, 1)
        if budget.norm == "l0":
            return {"attack": "px", "max_iter": tries, "epsilon": 1.0, "freq_dim": x.shape[-2], "verbose": False}
        side = x.shape[-2]
        return {
            "attack": "dct",
            "max_iter": tries,
            "epsilon": budget.eps * side / 2 if budget.norm == "linf" else radius(x, budget) / math.sqrt(tries),
            "freq_dim": max(side // 8, 1),
            "verbose": False,
        }

    def run(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W)."""
        if budget.norm == "l0":
            return super().run(view, x, budget)
        crop = Cropped.square(view)
        square = x[crop.middle]
        found = self.build(crop, square, budget).generate(square.cpu().numpy(), y=LABELS)
        return crop.pasted(torch.from_numpy(found).to(x))


class ZooAttack(ARTAttack):
    """`ZooAttack`: Adam on the slopes of single values, each measured with two queries.

    Without the library's resizing and importance sampling, which take images for squares. It is shown the nearest
    image inside the budget: its own penalty on the length has no radius. Not for L-infinity, where the few values it
    can measure weigh no more than noise on all of them.
    """

    access = "black"
    norms = ("l2", "psnr")
    view = BudgetView
    source = "Chen et al., AISec 2017, arXiv 1708.03999"
    library_class = "ZooAttack"

    def __init__(self, *, parallel: int = 32, probe: float = 0.01, step_ratio: float = 1.0, c: float = 1e6) -> None:
        """Parameters of the search.

        Args:
            parallel: values measured per step; fewer where the queries would not make ten steps.
            probe: length of the probes, of full scale.
            step_ratio: first step of Adam as a fraction of the radius over the root of the number of values it will
                measure.
            c: weight of the objective against the squared length; large, as the budget bounds the length.
        """
        check_whole(self, "parallel", parallel, least=1)
        for name, value in (("probe", probe), ("step_ratio", step_ratio), ("c", c)):
            check_number(self, name, value, above=0)
        self.parallel = parallel
        self.probe = probe
        self.step_ratio = step_ratio
        self.c = c

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Steps of as many values as the queries allow."""
        queries = budget.queries or STANDARD_QUERIES
        parallel = min(self.parallel, max(queries // 21, 1))
        return {
            "learning_rate": self.step_ratio * radius(x, budget) / math.sqrt(min(queries / 2, x.numel())),
            "max_iter": max(queries // (2 * parallel + 1), 1),
            "initial_const": self.c,
            "variable_h": self.probe,
            "nb_parallel": parallel,
            "abort_early": False,
            "use_resize": False,
            "use_importance": False,
            "verbose": False,
        }

    def build(self, network: nn.Module, x: torch.Tensor, budget: Budget) -> Any:
        """The library's attack without clip values: it would clip its perturbation to them, so to positive values."""
        attack = super().build(network, x, budget)
        attack.estimator.set_params(clip_values=None)
        return attack


class PixelAttack(ARTAttack):
    """`PixelAttack`: differential evolution of a few pixels' places and colors."""

    access = "black"
    two_sided = True
    norms = ("l0",)
    source = "Vargas, Kotyan, 2019, arXiv 1906.06026"
    library_class = "PixelAttack"

    def __init__(self, *, generations: int = 5) -> None:
        """`generations`: at least this many, where the queries suffice; fewer pixels are changed for it."""
        check_whole(self, "generations", generations, least=1)
        self.generations = generations

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Pixels and generations without end: the queries end it.

        The library makes five individuals per pixel, but at least about 400, which serve 80 pixels.
        """
        queries = budget.queries or STANDARD_QUERIES
        most = max(queries // (5 * (self.generations + 1)), 80)
        return {
            "th": min(sparse.pixels_allowed(x, budget.eps), most),
            "es": 1,
            "max_iter": queries,
            "verbose": False,
        }

    def run(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W)."""
        image = x.cpu().numpy()  # with labels, the library refuses two classes
        return torch.from_numpy(self.build(view, x, budget).generate(image)).to(x)


class SpatialTransformation(ARTAttack):
    """`SpatialTransformation`: every shift and rotation of a grid.

    Only for `ssim`, where an image is scored as far on the way to the transformed one as the budget allows: a shift is
    no small change in the other norms, and what is left of it there moves a score no more than noise does. ART counts
    the shift along the rows as a share of the number of channels, so in effect it shifts along the columns only.
    """

    access = "black"
    two_sided = True
    norms = ("ssim",)
    view = BudgetView
    source = "Engstrom et al., ICML 2019, arXiv 1712.02779"
    library_class = "SpatialTransformation"

    def __init__(
        self,
        *,
        max_translation: float = 3.0,
        translations: int = 5,
        max_rotation: float = 10.0,
        rotations: int = 11,
    ) -> None:
        """The grid: largest shift in percent of the side and how many, largest angle in degrees and how many."""
        check_number(self, "max_translation", max_translation, least=0, most=100)
        check_number(self, "max_rotation", max_rotation, least=0, most=180)
        check_whole(self, "translations", translations, least=1)
        check_whole(self, "rotations", rotations, least=1)
        self.max_translation = max_translation
        self.translations = translations
        self.max_rotation = max_rotation
        self.rotations = rotations

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """The grid."""
        return {
            "max_translation": self.max_translation,
            "num_translations": self.translations,
            "max_rotation": self.max_rotation,
            "num_rotations": self.rotations,
            "verbose": False,
        }

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """The points of the grid, and the clean image."""
        return min(1 + self.translations * self.rotations, budget.queries or STANDARD_QUERIES), 0
