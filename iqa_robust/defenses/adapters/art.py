"""Preprocessor defenses of the Adversarial Robustness Toolbox (Nicolae et al., arXiv 1807.01069; MIT).

Each is the library's own class, called on one image at a time as a NumPy array. The toolbox estimates all slopes
by the identity; where there is a better stand-in, the adapter states it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging.config
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch

from iqa_robust.defenses.base import Purifier
from iqa_robust.defenses.codec.differentiable_jpeg import differentiable_jpeg
from iqa_robust.defenses.filtering.gaussian import Gaussian
from iqa_robust.defenses.filtering.median import Median
from iqa_robust.defenses.parameters import check_number, check_whole
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import draws

with warnings.catch_warnings(), mock.patch.object(logging.config, "dictConfig"):  # it would set everybody's logging
    from art.defences import preprocessor

CLIP = (0.0, 1.0)
BLUR = Gaussian(sigma=3.0)
"""Stands in for the minimization of total variation."""


class ARTPreprocessor(Purifier):
    """The class `library_class` of `art.defences.preprocessor`, made with `arguments`.

    Gradient: identity, which is also the toolbox's estimate (BPDA, Athalye et al. 2018), unless a subclass states
    another one.
    """

    form = "adapted"
    library_class: ClassVar[str]
    channels_first: ClassVar[bool] = True
    """False for a class that takes (n, H, W, 3)."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the library's class."""

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) as the library returns them."""
        library = getattr(preprocessor, self.library_class)(**self.arguments())
        images = x.detach().cpu().numpy()
        order, back = ((0, 1, 2, 3),) * 2 if self.channels_first else ((0, 2, 3, 1), (0, 3, 1, 2))
        seeds = [0] * len(images) if type(self).deterministic else draws(len(images)).integers(0, 2**32).tolist()
        found = []
        for image, seed in zip(images, seeds, strict=True):
            with _numpy_seed(seed):
                result, _ = library(np.ascontiguousarray(image[None].transpose(order)))
            found.append(result.transpose(back))
        return torch.from_numpy(np.concatenate(found)).to(x)

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        """The identity."""
        return x


class FeatureSqueezing(ARTPreprocessor):
    """`FeatureSqueezing`: every value rounded to the nearest of 2^bits levels; it is the same as `bit-depth`.

    Raises:
        ContractError: `bits` is not a whole number from 1 to 8.
    """

    source = "Xu, Evans, Qi, NDSS 2018, arXiv 1704.01155"
    library_class = "FeatureSqueezing"

    def __init__(self, *, bits: int = 4) -> None:
        """`bits`: per channel, 1 to 8."""
        check_whole(self, "bits", bits, least=1, most=8)
        self.bits = bits

    def arguments(self) -> dict[str, Any]:
        """Range and bits."""
        return {"clip_values": CLIP, "bit_depth": self.bits}


class GaussianAugmentation(ARTPreprocessor):
    """`GaussianAugmentation`, applied at prediction: noise on every value, drawn anew for every image and call.

    Raises:
        ContractError: `sigma` is not a finite number > 0.
    """

    deterministic: ClassVar[bool] = False
    source = "Zantedeschi, Nicolae, Rawat, AISec 2017, arXiv 1707.06728"
    library_class = "GaussianAugmentation"

    def __init__(self, *, sigma: float = 0.05) -> None:
        """`sigma`: standard deviation, fraction of full scale; the library's own default is full scale."""
        check_number(self, "sigma", sigma, above=0)
        self.sigma = sigma

    def arguments(self) -> dict[str, Any]:
        """Noise in place of the images, instead of more images."""
        return {"sigma": self.sigma, "augmentation": False, "apply_predict": True, "clip_values": CLIP}


class JpegCompression(ARTPreprocessor):
    """`JpegCompression`: the real codec, after cutting values off to whole levels instead of rounding them.

    Gradient: that of a differentiable codec with the same tables, as for `jpeg`.

    Raises:
        ContractError: `quality` is not a whole number from 1 to 100.
    """

    source = "Das et al., 2017, arXiv 1705.02900"
    note = "cuts values off to whole levels before coding, where `jpeg` rounds them"
    library_class = "JpegCompression"

    def __init__(self, *, quality: int = 50) -> None:
        """`quality`: on libjpeg's scale."""
        check_whole(self, "quality", quality, least=1, most=100)
        self.quality = quality

    def arguments(self) -> dict[str, Any]:
        """Range, quality and layout."""
        return {"clip_values": CLIP, "quality": self.quality, "channels_first": True}

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        """The differentiable codec."""
        return differentiable_jpeg(x, self.quality)


class SpatialSmoothing(ARTPreprocessor):
    """`SpatialSmoothing`: the median of a square window, per channel; the border is mirrored with its last pixels.

    Gradient: that of `median`, which differs where the window leaves the image.

    Raises:
        ContractError: `size` is not an odd whole number >= 3; on use, an image is smaller than half a window.
    """

    source = "Xu, Evans, Qi, NDSS 2018, arXiv 1704.01155"
    library_class = "SpatialSmoothing"

    def __init__(self, *, size: int = 3) -> None:
        """`size`: side of the window in pixels, odd."""
        check_whole(self, "size", size, least=3)
        if size % 2 == 0:
            raise ContractError(f"SpatialSmoothing: expected size to be odd, got {size!r}.")
        self.size = size

    def wrap(self, model: IQAModel) -> IQAModel:
        """The model behind this purifier; images must be larger than half a window, for the slope."""
        wrapped = super().wrap(model)
        wrapped.info = Median(size=self.size).wrap(model).info
        return wrapped

    def arguments(self) -> dict[str, Any]:
        """Window and layout."""
        return {"window_size": self.size, "channels_first": True, "clip_values": CLIP}

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        """The median filter of this package."""
        return Median(size=self.size).purify(x)


class TotalVarMin(ARTPreprocessor):
    """`TotalVarMin`: keeps a random part of the values, and searches the image of little total variation through them.

    A few steps of L-BFGS from the image itself, per channel, with new random values for every image and call.

    Gradient: that of a Gaussian blur of three pixels, about the scale of what the search leaves. With the identity, as
    the toolbox has it, a climb at 8/255 moved the scores of `compact` the wrong way (-5 of 100), with this it raised
    them by 19.

    Raises:
        ContractError: `keep` is not > 0 and <= 1, `weight` not a finite number > 0, or `iterations` not a whole
            number >= 1; on use, an image has fewer than 13 pixels a side.
    """

    deterministic: ClassVar[bool] = False
    source = "Guo et al., ICLR 2018, arXiv 1711.00117"
    library_class = "TotalVarMin"
    channels_first = False

    def __init__(self, *, keep: float = 0.3, weight: float = 0.5, iterations: int = 10) -> None:
        """`keep`: share of the values kept. `weight`: of the total variation. `iterations`: of L-BFGS."""
        check_number(self, "keep", keep, above=0, most=1)
        check_number(self, "weight", weight, above=0)
        check_whole(self, "iterations", iterations, least=1)
        self.keep = keep
        self.weight = weight
        self.iterations = iterations

    def arguments(self) -> dict[str, Any]:
        """The search, with the isotropic norm."""
        return {"prob": self.keep, "lamb": self.weight, "max_iter": self.iterations, "clip_values": CLIP}

    def wrap(self, model: IQAModel) -> IQAModel:
        """The model behind this purifier; images must be larger than half the blur that stands in."""
        wrapped = super().wrap(model)
        wrapped.info = dataclasses.replace(wrapped.info, min_size=BLUR.wrap(model).info.min_size)
        return wrapped

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        """A Gaussian blur."""
        return BLUR.purify(x)


@contextlib.contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """NumPy's global generator, which the library draws from, at `seed`; afterwards it continues as before."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
