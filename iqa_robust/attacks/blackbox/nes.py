"""NES, a gradient estimate from Gaussian queries (Ilyas, Engstrom, Athalye, Lin, ICML 2018)."""

from __future__ import annotations

import torch

from iqa_robust.attacks.blackbox.estimation import EstimatedAscent
from iqa_robust.attacks.norms import reach, steepest
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class NES(EstimatedAscent):
    """Steepest ascent along gradients estimated from antithetic Gaussian directions.

    As in the MSU robustness benchmark (`grad-est`), a direction is a tile of values per channel, repeated over the
    image: a gradient with fewer unknowns is estimated better from few queries. Steps follow the estimates with
    momentum; the first has `step_ratio` times the length of the budget, and they shrink linearly towards zero.

    The benchmark's tiles have 32 x 32 values (`tile=32`), its steps the constant L2 length 0.1 per tile, whatever
    the budget, and no momentum. The defaults here were the strongest measured on two networks at eps 8/255 and 600
    or 1,000 queries. Without a limit in the budget it makes 10,000 queries per image.
    """

    source = "Ilyas, Engstrom, Athalye, Lin, ICML 2018 (arXiv:1804.08598); tiles: Gushchin et al., arXiv:2404.06957"

    def __init__(
        self,
        *,
        pairs: int = 20,
        sigma: float = 0.001,
        tile: int | None = 16,
        momentum: float = 0.9,
        step_ratio: float = 0.5,
    ) -> None:
        """Parameters of the search.

        Args:
            pairs: directions per step, each tried both ways.
            sigma: standard deviation of the directions, as a fraction of full scale.
            tile: side in pixels of the tile that is repeated; None for directions without a pattern.
            momentum: decay of the accumulated estimate; 0 uses each alone.
            step_ratio: the first step as a fraction of eps.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        super().__init__(pairs=pairs, sigma=sigma)
        if tile is not None:
            check_whole(self, "tile", tile, least=1)
        check_number(self, "momentum", momentum, least=0)
        check_number(self, "step_ratio", step_ratio, above=0)
        self.tile = tile
        self.momentum = momentum
        self.step_ratio = step_ratio

    def direction(self, rng: ImageRNG, x: torch.Tensor) -> torch.Tensor:
        """Standard normal values, repeated tile by tile."""
        H, W = x.shape[-2:]
        if self.tile is None:
            return rng.normal((3, H, W))
        drawn = rng.normal((3, self.tile, self.tile))
        return drawn.repeat(1, 1, -(-H // self.tile), -(-W // self.tile))[:, :, :H, :W]

    def start(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The accumulated estimate, zero."""
        return (torch.zeros_like(x),)

    def move(
        self,
        slope: torch.Tensor,
        memory: tuple[torch.Tensor, ...],
        x: torch.Tensor,
        budget: Budget,
        step: int,
        steps: int,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """A step along the accumulated estimate."""
        size = slope.flatten(1).abs().mean(dim=1).clamp_min(torch.finfo(slope.dtype).tiny).view(-1, 1, 1, 1)
        velocity = self.momentum * memory[0] + slope / size
        unit = steepest(velocity, budget.norm)
        length = self.step_ratio * (1 - step / steps) * reach(x, unit, budget.norm, budget.eps)
        return length.view(-1, 1, 1, 1) * unit, (velocity,)
