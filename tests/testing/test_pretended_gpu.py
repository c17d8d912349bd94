"""The GPU that is not there refuses what a real one does, and gives the CPU's numbers for the rest."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from iqa_robust.testing.pretended_gpu import GPU, pretended_gpu

CPU = torch.arange(12.0).view(3, 4)

REFUSED: dict[str, Callable[[torch.Tensor], object]] = {
    "a sum": lambda x: x + CPU,
    "a sum in place": lambda x: CPU.clone().add_(x),
    "a product": lambda x: torch.einsum("ij,kj->ik", x, CPU),
    "joined": lambda x: torch.cat([x, CPU]),
    "chosen": lambda x: torch.where(CPU > 3, x, 0),
    "a layer": lambda x: nn.Linear(4, 2)(x),
    "resampled": lambda x: F.grid_sample(x[None, None], torch.zeros(1, 2, 2, 2), align_corners=False),
    "indices of the GPU": lambda x: CPU[x[0].long() % 3],
    "values of the CPU": lambda x: x.__setitem__(CPU > 3, CPU[CPU > 3]),
    "a row by row": lambda x: x.index_select(0, torch.tensor([0, 1])),
    "a row": lambda x: torch.stack([x.mean(), torch.tensor(1.0)]),
    "a sum of the CPU": lambda x: torch.zeros(()).add_(x.sum()),
    "a generator of the GPU": lambda x: torch.rand(3, generator=torch.Generator(device=x.device)),
    "another size": lambda x: torch.add(x, x, out=torch.empty(0, device=x.device)),
    "a generator of the CPU": lambda x: torch.rand(3, device=x.device, generator=torch.Generator()),
    "weights laid out for a CPU": lambda x: torch.ops.mkldnn._convolution_pointwise(
        x[None, None], torch.ones(1, 1, 1, 1, device=x.device), None, [0, 0], [1, 1], [1, 1], 1, "none", [], ""
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_two_devices_do_not_meet(what: str) -> None:
    with pretended_gpu() as gpu, pytest.raises(RuntimeError, match=r"same device|generator|no such operator|resize"):
        REFUSED[what](CPU.to(gpu))


@pytest.mark.parametrize("look", [np.asarray, lambda x: x.numpy(), lambda x: x.detach().numpy()])
def test_numpy_does_not_see_it(look: Callable[[torch.Tensor], object]) -> None:
    with pretended_gpu() as gpu, pytest.raises(TypeError, match="convert cuda:0"):
        look(CPU.to(gpu))


ALLOWED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a number": lambda x: x * torch.tensor(2.0) + 1,
    "indices of the CPU": lambda x: x[torch.tensor([2, 0])],
    "a list": lambda x: x[[2, 0]] + x[range(2)],
    "an empty list": lambda x: x[[]].sum() + x,
    "an array": lambda x: x[np.array([2, 0]), 1:],
    "a mask of the CPU": lambda x: x[CPU > 3],
    "made like it": lambda x: x.new_tensor([1, 2]) + torch.zeros_like(x[0, :2]) + x.new_full((2,), 3),
    "drawn there": lambda x: torch.rand(x.shape, generator=_seeded(x.device), device=x.device) + x,
    "of its numbers": lambda x: torch.tensor([x.sum(), x.max()], device=x.device) + float(f"{x.mean():.3f}"),
    "by other names": lambda x: CPU.cuda() + x if x.is_cuda else CPU + x,
    "complex": lambda x: (torch.fft.fft2(x) * torch.fft.fft2(x).conj()).real + torch.fft.fft2(x).conj().imag,
    "viewed in place": lambda x: x.clone().unsqueeze_(0).transpose_(1, 2).squeeze_(0),
    "its data": lambda x: _data(x.clone()),
    "made there": lambda x: torch.linspace(0, 1, 4, device=x.device) + x + torch.tensor([1.0], device=x.device),
    "moved to it": lambda x: CPU.to(x) + x + torch.from_numpy(np.ones((3, 4))).to(x),
    "one-hot": lambda x: F.one_hot(x[0].long(), 4).float(),
    "as bytes": lambda x: (x.to(torch.uint8) >> 1).float(),
    "put": lambda x: _put(x.clone()),
}


def _seeded(device: torch.device) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(3)


def _data(x: torch.Tensor) -> torch.Tensor:
    x.data = x.data * 5
    x.data.clamp_(max=40)
    return x


def _put(x: torch.Tensor) -> torch.Tensor:
    x[:, 1] = 7
    x[[0, 2], 2] = x[[2, 0], 2]
    x[x > 9] = torch.tensor(-1.0)
    x[0] = CPU[1]  # a copy between devices
    return x


@pytest.mark.parametrize("what", ALLOWED)
def test_the_rest_gives_the_numbers_of_the_cpu(what: str) -> None:
    expected = ALLOWED[what](CPU.clone())
    with pretended_gpu() as gpu:
        found = ALLOWED[what](CPU.to(gpu))
        assert found.device == gpu and found.is_cuda
        assert torch.equal(found.cpu(), expected) and found.tolist() == expected.tolist()


def test_a_network_is_trained_copied_and_kept_as_on_the_cpu() -> None:
    def trained(device: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(1))
        x = torch.rand(2, 3, 8, 8)
        network(x)
        network[4].bias.data = network[4].bias.data + 1
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)  # before: the parameters stay the same objects
        network.to(device)
        copied, x = copy.deepcopy(network), x.to(device)
        assert torch.equal(copied(x), network(x))
        for _ in range(3):
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()
        assert all(value.device.type == device for value in network.state_dict().values())
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        assert torch.load(file, map_location=device, weights_only=True)["0.weight"].device.type == device
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)

    expected = trained("cpu")
    with pretended_gpu():
        found = trained("cuda")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_nothing_of_it_stays() -> None:
    before = torch.cuda.is_available(), torch.Generator, torch.load
    with pytest.raises(ZeroDivisionError), pretended_gpu():
        assert torch.cuda.is_available() and torch.zeros(1, device="cuda").device == GPU
        raise ZeroDivisionError
    assert (torch.cuda.is_available(), torch.Generator, torch.load) == before
    layer = nn.Linear(1, 1)
    kept = layer.weight
    assert layer.to(torch.float64).weight is kept
