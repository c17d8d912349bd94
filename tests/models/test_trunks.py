"""Trunks of torchvision and timm, and weights that a hub would give."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torch

from iqa_robust.errors import CheckpointError, RequestError
from iqa_robust.models.hub import hub_weights
from iqa_robust.models.trunk_plan import plan_of
from iqa_robust.models.trunk_regressor import TrunkNetwork
from iqa_robust.training import train

RECIPE = """
name = "hub"
task = "score"
about = "A test."
license = "MIT"
[network]
name = "trunk-regressor"
[start]
trunk = "hub"
[data]
dataset = "photos"
params = { limit = 6, crop = 64 }
[optimization]
epochs = 1
batch_size = 4
learning_rate = 1e-3
[[loss]]
name = "mse"
"""


def refuse(*args, **kwargs):
    raise urllib.error.URLError("no network")


@pytest.mark.parametrize("name", ["vit_b_17", "no-such-net", "timm:no-such-net"])
def test_unknown_backbones_are_refused(name: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(RequestError, match=name):
        plan_of(name)


def test_hub_weights_fill_the_trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's own download is cut off at the file: what it would give is another network's state."""
    from torchvision import models

    torch.manual_seed(0)
    source = models.squeezenet1_1(weights=None)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: source.state_dict())
    found = hub_weights("squeezenet1_1", "imagenet")
    assert torch.equal(found["features.0.weight"], source.features[0].weight)
    (tmp_path / "hub.toml").write_text(RECIPE.replace("epochs = 1", "epochs = 1").replace("1e-3", "1e-30"))
    train(tmp_path / "hub.toml", out=tmp_path / "hub.safetensors")
    from iqa_robust.models.checkpoints import load

    kept = load(tmp_path / "hub.safetensors").tensors["trunk.features.0.weight"]
    assert torch.allclose(kept, source.features[0].weight, atol=1e-3)  # stored in half precision


def test_a_hub_out_of_reach_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    (tmp_path / "hub.toml").write_text(RECIPE)
    with pytest.raises(CheckpointError, match=r"its weights could not be downloaded .URLError: .*no network"):
        train(tmp_path / "hub.toml", out=tmp_path / "hub.safetensors")


IMAGENET = "mean (0.485, 0.456, 0.406) and deviation (0.229, 0.224, 0.225)"
HALF = "mean (0.5, 0.5, 0.5) and deviation (0.5, 0.5, 0.5)"
CLIP = (
    "mean (0.48145466, 0.4578275, 0.40821073) and deviation (0.26862954, 0.26130258, 0.27577711)",
    "none of ours is that; take another backbone",
)


@pytest.mark.parametrize(
    ("backbone", "normalization", "expected", "advice"),
    [
        ("squeezenet1_1", "caffe-bgr", IMAGENET, "take normalization = 'imagenet'"),
        ("timm:resnet10t", "half", IMAGENET, "take normalization = 'imagenet'"),
        ("timm:tf_efficientnetv2_s", "imagenet", HALF, "take normalization = 'half'"),
        ("timm:convnext_base.clip_laion2b", "imagenet", *CLIP),
    ],
)
def test_hub_weights_for_another_normalization_are_refused(
    backbone: str, normalization: str, expected: str, advice: str
) -> None:
    if backbone.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(RequestError) as caught:
        hub_weights(backbone, normalization)
    assert str(caught.value) == (
        f"backbone {backbone!r}: its hub weights expect RGB with {expected} of full scale, got the normalization"
        f" {normalization!r}; {advice}."
    )


def test_timm_weights_load_under_their_own_normalization(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's download is cut off: only its statement of the normalization is asked for."""
    timm = pytest.importorskip("timm")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **kwargs: create(name, **{**kwargs, "pretrained": False}))
    assert "conv_stem.weight" in hub_weights("timm:tf_efficientnet_lite0", "half")


def test_a_recipe_with_another_normalization_than_its_hub_weights_is_refused(tmp_path: Path) -> None:
    half = 'params = { normalization = "half" }\n[start]'
    (tmp_path / "hub.toml").write_text(RECIPE.replace("[start]", half))
    with pytest.raises(RequestError, match="got the normalization 'half'; take normalization = 'imagenet'"):
        train(tmp_path / "hub.toml", out=tmp_path / "hub.safetensors")


def test_half_takes_full_scale_to_plus_and_minus_one() -> None:
    torch.manual_seed(0)
    network = TrunkNetwork(normalization="half").eval()
    plain = TrunkNetwork().eval()
    plain.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 64, 64)
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():  # what the other normalization makes the same values of
        wanted = plain.features((2 * x - 1) * deviation + mean)
        torch.testing.assert_close(network.features(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_100"])
def test_timm_trunks_pool_what_timm_gives(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = TrunkNetwork(backbone=f"timm:{name}").eval()
    own = timm.create_model(name, features_only=True, pretrained=False).eval()
    own.load_state_dict(network.trunk.state_dict())
    x = torch.rand(2, 3, 96, 96)
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        maps = own((x - mean) / deviation)
        pooled = network.features(x)
    last = maps[-1]
    assert torch.allclose(
        pooled[:, -2 * last.shape[1] : -last.shape[1]], last.mean(dim=(2, 3)), atol=1e-4
    )  # float32 sums in another order


@pytest.mark.parametrize("backbone", ["googlenet", "inception_v3"])
def test_hub_weights_of_tensorflow_expect_half(backbone: str) -> None:
    """What torchvision says of them is before a change of the normalization in its forward, which a trunk has not."""
    with pytest.raises(RequestError, match="take normalization = 'half'"):
        hub_weights(backbone, "imagenet")
