"""PGD on the reference instead of the distorted image."""

from __future__ import annotations

from iqa_robust.attacks.gradient.pgd import PGD


class PGDReference(PGD):
    """The attack of `pgd` on the reference of a full-reference model; the distorted image stays as it is.

    An attacker who supplies the originals, such as an encoder that grades itself, moves the score without touching
    what is graded. The training and evaluation code of R-LPIPS offers the reference as one of the images to attack;
    loop and parameters here are those of `pgd`. The images of the result, its distances and its budget are those of the
    reference. For a model that does not tell image and reference apart, such as `ssim` and `psnr`, the attack is
    that of `pgd` on the other image. Models without references are refused.
    """

    source = "Ghazanfari et al., ICML Workshop 2023, arXiv:2307.15157 (robust LPIPS)"
    form = "adapted"
    perturbs = "reference"
    note = "perturbs the reference, not the image"
