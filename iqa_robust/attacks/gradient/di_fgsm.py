"""DI-FGSM, the fast gradient sign method with input diversity."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from iqa_robust.attacks.gradient.mi_fgsm import MIFGSM
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.parameters import check_number
from iqa_robust.models.randomness import ImageRNG


class DIFGSM(MIFGSM):
    """`mi-fgsm` on randomly resized and padded images (Xie et al., M-DI2-FGSM; DI2-FGSM with `decay=0`).

    At every step and for every image by itself, with the given probability, the image is shrunk to a random share of
    its height and width and set at a random place of a black image of its own size. The authors enlarge to at most
    11/10 and let the network see the larger image; a score must be of an image of the given size, so ours shrinks to
    at least 9/10, as torchattacks' `DIFGSM` does. Made for transfer: on the model that is attacked it is weaker, and
    weaker still with the authors' `decay=1`.
    """

    source = "Xie et al., CVPR 2019, arXiv:1803.06978"
    form = "adapted"

    def __init__(
        self,
        *,
        step_ratio: float = 0.25,
        decay: float = 0.75,
        probability: float = 0.5,
        smallest: float = 0.9,
    ) -> None:
        """Parameters of the search.

        Args:
            step_ratio: as for `IFGSM`.
            decay: as for `MIFGSM`.
            probability: of a resized image.
            smallest: share of the height and width that it keeps at least.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        super().__init__(step_ratio=step_ratio, decay=decay)
        check_number(self, "probability", probability, least=0, most=1)
        check_number(self, "smallest", smallest, above=0, most=1)
        self.probability = probability
        self.smallest = smallest

    def evaluate(
        self, objective: Objective, z: torch.Tensor, ahead: torch.Tensor, rng: ImageRNG
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Values of the transformed images, and their slopes at `z`."""
        draws = rng.uniform((4,)).tolist()
        leaf = z.detach().requires_grad_(True)
        seen = torch.cat([self._diverse(leaf[i : i + 1], *drawn) for i, drawn in enumerate(draws)])
        value, slope = objective.gradient(seen.detach())
        return value, torch.autograd.grad(seen, leaf, slope)[0]

    def _diverse(self, image: torch.Tensor, chance: float, size: float, down: float, right: float) -> torch.Tensor:
        """One image (1, 3, H, W), transformed by four uniform draws from [0, 1)."""
        if chance >= self.probability:
            return image
        H, W = image.shape[-2:]
        share = self.smallest + (1 - self.smallest) * size
        h, w = max(round(share * H), 1), max(round(share * W), 1)
        small = F.interpolate(image, size=(h, w), mode="bilinear", align_corners=False)
        top, left = int(down * (H - h + 1)), int(right * (W - w + 1))
        return F.pad(small, (left, W - w - left, top, H - h - top))
