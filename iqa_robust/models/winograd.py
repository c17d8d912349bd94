"""Convolutions of 3 x 3 with a quarter of the multiplications, for processors that are bound by these."""

from __future__ import annotations

import torch

SIDE = 4
"""Results of a tile in each direction, made of two values more."""
OF_VALUES = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
OF_WEIGHTS = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
"""In 24ths."""
OF_PRODUCTS = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
IN_ALL = 7
"""The product that every result of a tile takes once."""
AT_ONCE = 196
"""Tiles that are handled together: more are pushed out of a processor's cache, fewer are not worth a call."""
LEAST = 24
"""Tiles below which to read the weights, four times as many, takes what is gained."""
IMAGES = 8
"""The usual batch. The rule is for it, however many images and threads there are: scores must not hang on either."""
GAIN = 1.2
"""What is expected at least; less was lost with two threads."""
HAS_MKL = torch.backends.mkl.is_available()
"""Whether the products of small matrices are MKL's, with which it was measured."""


class Winograd:
    """A convolution of 3 x 3 with stride 1 in float32: Winograd's minimal filtering F(4 x 4, 3 x 3).

    Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016. A tile of 4 x 4 results takes 36
    products per pair of channels in place of 144: sums of its values by sums of the weights, one matrix product for
    each of the 36, and the results are sums of those. They are rounded about five times as much as usual, and one value
    that is not finite spoils the results of its tile.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *, relu: bool) -> None:
        """`weight` (C', C, 3, 3) and `bias` (C')."""
        of_weights = weight.new_tensor(OF_WEIGHTS, dtype=torch.float64) / 24
        made = torch.einsum("ai,ocij,bj->abco", of_weights, weight.double(), of_weights)
        self.weight = made.flatten(0, 1).to(weight.dtype).contiguous()
        self.bias, self.relu = bias, relu
        of_values, of_products = map(weight.new_tensor, (OF_VALUES, OF_PRODUCTS))
        self.of_values, self.of_products = torch.kron(of_values, of_values), torch.kron(of_products, of_products)

    @staticmethod
    def pays(inputs: int, outputs: int, height: int, width: int) -> bool:
        """Whether it is faster than the plain way, for results of (`IMAGES`, `outputs`, `height`, `width`).

        Both are counted in multiplications and additions of the plain way; what they are worth in a tile was measured
        on a processor with AVX2, with one thread and with two.
        """
        tiles = IMAGES * _tiles_along(height) * _tiles_along(width)
        plain = 18 * inputs * outputs * IMAGES * height * width
        cost = tiles * (90 * inputs * outputs + 6500 * inputs + 4000 * outputs)
        return HAS_MKL and tiles >= LEAST and plain > GAIN * cost

    def __call__(self, x: torch.Tensor, padding: tuple[int, ...], added: torch.Tensor | None = None) -> torch.Tensor:
        """(N, C', H', W') of maps (N, C, H, W), with `added` summed to them before the ReLU."""
        images, channels, height, width = x.shape
        top, left = padding
        down, across = height + 2 * top - 2, width + 2 * left - 2
        rows, columns = _tiles_along(down), _tiles_along(across)
        shape = (images, self.weight.shape[2], SIDE * rows, SIDE * columns)
        made = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        places = made.permute(0, 2, 3, 1).view(images, rows, SIDE, columns, SIDE, shape[1])
        together = max(1, AT_ONCE // (rows * columns))
        band = min(rows, max(1, AT_ONCE // columns))
        padded = x.new_zeros(min(images, together), SIDE * rows + 2, SIDE * columns + 2, channels)
        for first in range(0, images, together):
            part = x[first : first + together].permute(0, 2, 3, 1)
            padded[: len(part), top : top + height, left : left + width] = part
            for row in range(0, rows, band):
                some = padded[: len(part), SIDE * row : SIDE * (row + band) + 2]
                results = self._results_of(some, relu=self.relu and added is None)
                places[first : first + together, row : row + band] = results
        if (down, across) != made.shape[2:]:  # never a view, which autograd would not let others edit
            made = made[:, :, :down, :across].clone(memory_format=torch.channels_last)
        if added is not None:
            made += added
            made = made.relu_() if self.relu else made
        return made

    def _results_of(self, padded: torch.Tensor, *, relu: bool) -> torch.Tensor:
        """(N, rows, SIDE, columns, SIDE, C') of maps (N, SIDE rows + 2, SIDE columns + 2, C)."""
        count, channels = self.weight.shape[:2]
        tiles = padded.unfold(1, SIDE + 2, SIDE).unfold(2, SIDE + 2, SIDE).permute(4, 5, 0, 1, 2, 3)
        values = self.of_values @ tiles.reshape(count, -1)
        products = torch.bmm(values.view(count, -1, channels), self.weight)
        if self.bias is not None:
            products[IN_ALL] += self.bias
        results = self.of_products @ products.flatten(1)
        results = results.relu_() if relu else results
        return results.view(SIDE, SIDE, *tiles.shape[2:5], -1).permute(2, 3, 0, 4, 1, 5)


def _tiles_along(results: int) -> int:
    """Tiles that so many results take in one direction."""
    return -(-results // SIDE)
