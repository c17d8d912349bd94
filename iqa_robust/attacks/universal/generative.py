"""Attacks made by a learned network: a universal pattern from fixed noise, and a pattern from the image itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.attacks.trained_attack import Lesson
from iqa_robust.attacks.universal.pattern import State, UniversalAttack, scaled, tiled
from iqa_robust.attacks.universal.uap import Pattern
from iqa_robust.attacks.universal.unet import UNet
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class GenerativeUAP(Pattern):
    """The pattern that a U-Net learns to make of one fixed noise (generative UAP; MSU robustness benchmark).

    Adam on the weights of the network, batches of 4 images; the pattern is tanh's output in units of eps, so it keeps
    within the budget by itself. After the fit only the pattern is kept. The released code clamps the noise to eps after
    the first step, so that the network first sees another noise than later, and makes the final pattern with dropout
    still on; here the noise stays as drawn and the final pattern is made without dropout. Its network has `depth` 8 and
    `ngf` 64 (54 million weights); the defaults are sized for a CPU and weaker: on crops of
    64 pixels the network of width 64 moved held-out scores up to a third further, in four times the time. Adam's rate
    of 0.003, for their 0.001, makes up for a part.
    """

    source = "Shumitskaya, Antsiferova, Vatolin, Computer Vision and Image Understanding 2024"
    form = "corrected"

    def __init__(
        self,
        *,
        weights: str | None = None,
        fit_images: int = 64,
        fit_epochs: int = 5,
        size: int = 256,
        ngf: int = 16,
        depth: int = 5,
        rate: float = 3e-3,
    ) -> None:
        """Parameters of the fit.

        Args:
            weights: a file written by `save`, instead of fitting.
            fit_images: images of the fitting split to learn from.
            fit_epochs: how often each is seen.
            size: height and width of the pattern in pixels, at most; no larger than the largest fitting image.
            ngf: width of the network's first level.
            depth: halvings in the network.
            rate: Adam's.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        super().__init__(weights=weights, fit_images=fit_images, fit_epochs=fit_epochs)
        check_whole(self, "size", size, least=1)
        check_whole(self, "ngf", ngf, least=1)
        check_whole(self, "depth", depth, least=1)
        check_number(self, "rate", rate, above=0)
        self.size = size
        self.ngf = ngf
        self.depth = depth
        self.rate = rate

    def learn_side(self, lessons: Sequence[Lesson], budget: Budget, rng: ImageRNG) -> State:
        """`pattern` (1, 3, H, W)."""
        noise = rng.uniform(self.blank(lessons, self.size).shape[1:])
        network = _network(self.ngf, self.depth, rng)
        optimizer = _adam(network, self.rate)
        self.train(
            lessons,
            rng,
            lambda x: scaled(tiled(network(noise, rng), *x.shape[-2:]), x, budget.norm, budget.eps),
            lambda: _step(optimizer),
        )
        with torch.no_grad():
            return {"pattern": network(noise)}


class FACPA(UniversalAttack):
    """A U-Net that makes the perturbation of the image it is shown (Shumitskaya et al., 2023; "cnn-attack").

    x' = x + eps G(x), with Adam on the weights of G, batches of 4 images. The authors fit 256 x 256 crops (200 epochs
    of batches of 4, or 5 of 8 in the MSU benchmark), and attack larger images by cutting them to multiples of 256 and
    repeating the perturbation over what is left. Here images are fitted and attacked whole, padded inside the network
    (`unet.UNet`), so no part of an image gets the perturbation of another part. Their network has `depth` 8 and `ngf`
    64 (54 million weights, a file of 218 MB); the defaults are sized for a CPU.
    """

    source = "Shumitskaya, Antsiferova, Vatolin, ICLR Tiny Papers 2023, arXiv:2305.15544"
    form = "published"
    note = "a network learned on the train split"

    def __init__(
        self,
        *,
        weights: str | None = None,
        fit_images: int = 64,
        fit_epochs: int = 5,
        ngf: int = 16,
        depth: int = 5,
        rate: float = 1e-3,
    ) -> None:
        """Parameters of the fit, those of `GenerativeUAP`. Raises `ContractError` as it does."""
        super().__init__(weights=weights, fit_images=fit_images, fit_epochs=fit_epochs)
        check_whole(self, "ngf", ngf, least=1)
        check_whole(self, "depth", depth, least=1)
        check_number(self, "rate", rate, above=0)
        self.ngf = ngf
        self.depth = depth
        self.rate = rate

    def learn_side(self, lessons: Sequence[Lesson], budget: Budget, rng: ImageRNG) -> State:
        """The weights of the network."""
        network = _network(self.ngf, self.depth, rng)
        optimizer = _adam(network, self.rate)
        self.train(
            lessons,
            rng,
            lambda x: scaled(network(x, rng), x, budget.norm, budget.eps),
            lambda: _step(optimizer),
        )
        return network.state_dict()

    def change(self, state: State, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """The network's perturbation of each image."""
        network = UNet(ngf=self.ngf, depth=self.depth)
        network.load_state_dict(state, assign=True)
        return scaled(network(x), x, budget.norm, budget.eps)


def _network(ngf: int, depth: int, rng: ImageRNG) -> UNet:
    return UNet(ngf=ngf, depth=depth).draw(rng).requires_grad_(True)


def _adam(network: UNet, rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=rate, eps=1e-16, maximize=True)


def _step(optimizer: torch.optim.Adam) -> None:
    optimizer.step()
    optimizer.zero_grad()
