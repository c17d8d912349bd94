"""Canaries that spoil the gradient on its way through the image."""

from __future__ import annotations

import math

import torch

from iqa_robust.defenses.base import DifferentiablePurifier, Purifier
from iqa_robust.models.randomness import draws

RIPPLE_255 = 2.0
"""Amplitude of the ripple, gray levels."""
WAVELENGTH_255 = 3.3
"""Its wavelength, gray levels. The slope of the ripple is up to 3.8: it turns the gradient of most values around."""


class Shattered(DifferentiablePurifier):
    """Gradient shattering: adds a ripple of two gray levels, so the exact gradient points nowhere.

    The image hardly changes, and an attack that ignores the defense works as before.
    Source: Athalye, Carlini, Wagner, ICML 2018, section 3.
    """

    canary = True
    source = "Athalye, Carlini, Wagner, ICML 2018 (arXiv:1802.00420)"
    form = "adapted"
    note = "a canary: known to be broken"

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """The image with the ripple."""
        return (x + RIPPLE_255 / 255 * torch.sin(2 * math.pi * 255 * x / WAVELENGTH_255)).clamp(0, 1)


class SilentQuantizer(DifferentiablePurifier):
    """Rounds to 16 levels and calls the result differentiable: the gradient is exactly zero.

    A straight-through quantizer whose straight-through part was forgotten.
    """

    canary = True
    note = "a canary: known to be broken"

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Rounded values; the slope of rounding is zero."""
        return (x * 15).round() / 15


class SingleDraw(DifferentiablePurifier):
    """Random noise that calls itself deterministic, so that no attack averages over it.

    Every call draws anew; what is left of the gradient of one draw is noise.
    Source: Athalye, Carlini, Wagner, ICML 2018, section 4.2 (randomization without EOT).
    """

    canary = True
    source = "Athalye, Carlini, Wagner, ICML 2018 (arXiv:1802.00420)"
    form = "adapted"
    note = "a canary: known to be broken"

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """The image with noise of a tenth of full scale."""
        return (x + 0.1 * draws(x.shape[0]).normal(x.shape[1:]).to(x)).clamp(0, 1)


class WrongSurrogate(Purifier):
    """A slight blur whose declared surrogate is the mirrored image: the attack changes the wrong pixels."""

    canary = True
    note = "a canary: known to be broken"

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """The mean over 3 x 3 pixels."""
        return torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        """The mirror image."""
        return x.flip(3)
