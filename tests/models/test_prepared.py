"""Prepared twins: the same scores without batch norm, rounded ones in bfloat16, and the model left as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from iqa_robust import defenses, models
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo, with_score_range
from iqa_robust.models.prepared.attention import SelfAttention
from iqa_robust.models.prepared.twin import prepare


class Classic(nn.Module):
    """Convolutions with batch norm whose statistics are not those of new modules."""

    def __init__(self, *, reused: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, stride=2, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 1)
        self.reused = reused
        generator = torch.Generator().manual_seed(1)
        for norm in (self.norm, self.norm2):
            norm.running_mean.copy_(torch.randn(8, generator=generator))
            norm.running_var.copy_(torch.rand(8, generator=generator) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.first(x)
        hidden = torch.relu(self.norm(made)) + (made if self.reused else 0)
        return self.head(torch.relu(self.norm2(self.second(hidden))).mean(dim=(2, 3))).squeeze(1)


def _model(**params: bool) -> IQAModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.wrap(Classic(**params).eval())


def _images(n: int = 4, side: int = 48) -> torch.Tensor:
    return torch.round(torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(2)) * 255) / 255


def _slope(model: IQAModel, x: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_(True)
    return torch.autograd.grad(model(leaf).sum(), leaf)[0]


def _norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("name", ["compact", "trunk-regressor", "classic"])
def test_float32_twin_has_the_scores_and_slopes_of_the_model(name: str) -> None:
    model = _model() if name == "classic" else models.create(name)
    x = _images(2, 96)
    twin = prepare(model, "fp32", x[:1])
    assert _norms(twin) == 0
    # Folding and another layout change the order of float32 sums only.
    torch.testing.assert_close(twin(x), model(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        _slope(twin, x), _slope(model, x), rtol=1e-2, atol=1e-4 * float(_slope(model, x).abs().max())
    )


@pytest.mark.parametrize("name", ["compact", "trunk-regressor", "classic"])
def test_bfloat16_twin_points_where_the_model_does(name: str) -> None:
    model = _model() if name == "classic" else models.create(name)
    x = _images(2, 96)
    twin = prepare(model, "bf16", x[:1])
    assert twin(x).dtype is torch.float32
    exact, rounded = _slope(model, x).flatten(1), _slope(twin, x).flatten(1)
    # bfloat16 keeps 8 bits; over some dozen layers the direction turns by a few degrees.
    assert bool((torch.cosine_similarity(exact, rounded) > 0.95).all())
    spread = 1.0 if model.info.score_range is None else model.info.score_range[1] - model.info.score_range[0]
    torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0.01 * spread)


@pytest.mark.parametrize("name", ["compact", "trunk-regressor"])
def test_a_mixed_twin_scores_whole_images_in_float32(name: str) -> None:
    model, x = models.create(name), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(prepare(model, "mixed", x[:1])(x), prepare(model, "fp32", x[:1])(x))


def test_model_is_left_as_it_was() -> None:
    model = _model()
    before = copy.deepcopy(model.state_dict())
    flags = [parameter.requires_grad for parameter in model.parameters()]
    prepare(model, "bf16", _images(1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert _norms(model) == 2
    assert not any(module._forward_hooks for module in model.modules())


def test_a_twin_of_a_model_that_edits_its_input_leaves_the_images_alone() -> None:
    class Editing(IQAModel):
        info = ModelInfo()

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
            x.mul_(2)
            return self.layer(x).mean(dim=(1, 2, 3))

    torch.manual_seed(0)
    model, x = Editing(), _images().to(memory_format=torch.channels_last)
    before = x.clone()
    for precision in ("fp32", "bf16"):
        twin = with_score_range(prepare(model, precision, x[:1]), (-1.0, 1.0))
        assert twin.copies_images
        leaf = x.requires_grad_(True)
        scores = twin(leaf)
        assert torch.equal(x, before)
        (slope,) = torch.autograd.grad(scores.sum(), leaf)
        (exact,) = torch.autograd.grad(model(copied := leaf.clone()).sum(), leaf)
        assert not torch.equal(copied, before)
        torch.testing.assert_close(slope, exact, rtol=0, atol=0.02 * float(exact.abs().max()))  # rounded to 8 bits


def test_batch_norm_stays_where_the_convolution_is_used_twice() -> None:
    model = _model(reused=True)
    x = _images()
    twin = prepare(model, "fp32", x[:1])
    torch.testing.assert_close(twin(x), model(x), rtol=1e-4, atol=1e-4)
    assert _norms(twin) > 0


@pytest.mark.parametrize("double", [False, True])
def test_layers_that_their_model_asks_for_more_than_maps_stay(double: bool) -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3, dtype=torch.double if double else None)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = self.layer(x.to(self.layer.weight.dtype)).mean(dim=(1, 2, 3)).float()
            return maps if double else maps / self.layer.out_channels

    torch.manual_seed(0)
    model, x = models.wrap(Asking()), _images()
    twin = prepare(model, "fp32", x[:1])
    assert any(type(module) is nn.Conv2d for module in twin.modules())
    torch.testing.assert_close(_slope(twin, x), _slope(model, x))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_layers_that_their_model_watches_stay(precision: str) -> None:
    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)
            self.relu = nn.ReLU()
            self.layer.register_forward_hook(self.note)

        def note(self, layer: nn.Module, given: object, made: torch.Tensor) -> None:
            self.maps = made

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(self.layer(x)).mean(dim=(1, 2, 3)) + self.maps.square().mean(dim=(1, 2, 3))

    torch.manual_seed(0)
    model, x = models.wrap(Watching()), _images()
    twin = prepare(model, precision, x[:1])
    close = {"rtol": 1e-4, "atol": 1e-5} if precision == "fp32" else {"rtol": 0.03, "atol": 0.003}
    torch.testing.assert_close(twin(x[1:]), model(x[1:]), **close)


def test_blocks_whose_parts_their_model_calls_itself_stay() -> None:
    from torchvision.models import resnet18

    class ByParts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = resnet18()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            block = self.network.layer1[0]
            maps = block.relu(block.bn1(block.conv1(self.network.conv1(x))))
            return maps.mean(dim=(1, 2, 3))

    torch.manual_seed(0)
    model, x = models.wrap(ByParts().eval()), _images()
    torch.testing.assert_close(prepare(model, "fp32", x[:1])(x), model(x), rtol=1e-4, atol=1e-5)


def test_one_gray_level_reaches_a_bfloat16_twin() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 1, 1, bias=False)
            self.convolution.weight.data.fill_(1 / 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.convolution(x - x.new_tensor(0.9)).float().mean(dim=(1, 2, 3))

    x = torch.full((1, 3, 16, 16), 230 / 255)
    twin = prepare(models.wrap(Mean()), "bf16", x)
    # In bfloat16 0.9 has neighbors at a distance of a gray level: the step would be lost or doubled.
    moved = float(twin(x + 1 / 255) - twin(x))
    assert moved == pytest.approx(1 / 255, rel=0.01)


def test_batches_do_not_change_a_rounded_score() -> None:
    model = models.create("compact")
    x = _images(3, 64)
    twin = prepare(model, "bf16", x[:1])
    alone = torch.cat([twin(x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(twin(x), alone, rtol=0, atol=1e-3)


def test_a_range_given_to_a_model_is_kept() -> None:
    model = with_score_range(_model(), (-3.0, 7.0))
    assert prepare(model, "bf16", _images(1)).info.score_range == (-3.0, 7.0)


def test_a_defended_model_is_returned_as_it_is() -> None:
    defended = defenses.create("jpeg").wrap(_model())
    assert prepare(defended, "bf16", _images(1)) is defended


def test_full_reference_model_gets_its_reference() -> None:
    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3, bias=False)

        def forward(self, x: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
            return (self.layer(x) - self.layer(ref)).abs().mean(dim=(1, 2, 3))

    model = models.wrap(Difference(), ModelInfo(full_reference=True))
    x = _images()
    twin = prepare(model, "fp32", x[:1], x[1:2])
    torch.testing.assert_close(twin(x, x.flip(0)), model(x, x.flip(0)), rtol=1e-4, atol=1e-5)


def test_transformer_keeps_its_scores_and_slopes() -> None:
    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 8, stride=8)
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
            self.head = nn.Linear(16, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
            others, weights = self.attention(tokens, tokens.flip(1), tokens)  # goes to the layer itself
            return self.head((attended + others).mean(dim=1) + weights.sum(dim=(1, 2))[:, None]).squeeze(1)

    model, x = models.wrap(Transformer().eval()), _images()
    twin = prepare(model, "fp32", x[:1])
    assert any(isinstance(module, SelfAttention) for module in twin.modules())
    torch.testing.assert_close(twin(x), model(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(_slope(twin, x), _slope(model, x), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(prepare(model, "bf16", x[:1])(x), model(x), rtol=0.02, atol=0.02)


def test_a_model_that_cannot_be_copied_is_returned_as_it_is() -> None:
    model = _model()
    model.kept = next(model.parameters()) * 2  # a tensor with a history
    assert prepare(model, "bf16", _images(1)) is model


def test_a_layer_called_by_keywords_keeps_its_result() -> None:
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(input=x).mean(dim=(1, 2, 3))

    model, x = models.wrap(Keywords()), _images()
    torch.testing.assert_close(prepare(model, "fp32", x[:1])(x), model(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_model_that_fails_says_so_itself(precision: str) -> None:
    model = models.wrap(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU()))
    with pytest.raises(RuntimeError, match=r"expected input.* to have 1 channels, but got 3"):
        prepare(model, precision, torch.rand(1, 3, 16, 16))


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ContractError, match=r"^precision: expected one of fp32, mixed, bf16, got 'fp16'\.$"):
        prepare(_model(), "fp16", _images(1))
