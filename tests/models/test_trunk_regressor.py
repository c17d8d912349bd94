"""The trunk regressor: backbones, normalizations, and the published sets on their test splits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr

from iqa_robust import attacks, datasets, models
from iqa_robust.errors import CheckpointError, RequestError
from iqa_robust.models.checkpoints import Checkpoint, load
from iqa_robust.models.trunk_regressor import PUBLISHED, WEIGHTS, TrunkNetwork
from iqa_robust.records import Budget
from iqa_robust.training.regressor import load_trunk

DATABASES = {"clive": "clive", "biq2021": "biq2021", "clive-sort-mask": "clive"}
SCALES = {"clive": (0.0, 100.0), "biq2021": (0.0, 1.0)}
REACHED = {"clive": 0.65, "biq2021": 0.68, "clive-sort-mask": 0.59}
"""SROCC on the images present of the test splits, below what the cards state by more than another build can move it."""


@pytest.mark.parametrize(
    "backbone",
    ["squeezenet1_1", "resnet18", "vgg11", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "densenet121"],
)
def test_families_pool_at_every_resolution(backbone: str) -> None:
    with torch.device("meta"):
        network = TrunkNetwork(backbone=backbone).eval()
        scores = network(torch.zeros(2, 3, 130, 97))
    assert scores.shape == (2,)
    assert len(network._taps) >= 4


@pytest.mark.parametrize("backbone", ["resnet19", "deeplabv3_resnet50"])
def test_other_backbones_are_refused(backbone: str) -> None:
    with pytest.raises(RequestError, match="expected the name of a torchvision classifier, or timm:NAME"):
        TrunkNetwork(backbone=backbone)


def test_unknown_normalizations_are_refused() -> None:
    with pytest.raises(RequestError, match="imagenet, half, caffe-bgr"):
        TrunkNetwork(normalization="tensorflow")


def test_names_of_the_trunk_are_torchvisions() -> None:
    from torchvision.models import resnet18, squeezenet1_1

    for backbone, classifier in (("squeezenet1_1", squeezenet1_1), ("resnet18", resnet18)):
        with torch.device("meta"):
            names = TrunkNetwork(backbone=backbone).trunk.state_dict().keys()
            theirs = classifier().state_dict().keys()
        assert names == {key for key in theirs if not key.startswith(("classifier.", "fc."))}


@pytest.mark.parametrize("normalization", ["imagenet", "caffe-bgr"])
def test_normalization_is_the_published_one(normalization: str) -> None:
    network = TrunkNetwork(normalization=normalization).eval()
    seen: list[torch.Tensor] = []
    network.trunk.get_submodule("features.0").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.rand(1, 3, 64, 64)
    network(x)
    if normalization == "imagenet":
        from torchvision.transforms.functional import normalize

        expected = normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    else:
        expected = 255 * x[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-4)  # float32 on values up to 150


def test_trunks_load_with_and_without_the_prefix_and_are_complete() -> None:
    source, target = TrunkNetwork(), TrunkNetwork()
    for prefix in ("trunk.", "trunk.features."):
        tensors = {k.removeprefix(prefix): v.clone() for k, v in source.state_dict().items() if k.startswith("trunk.")}
        load_trunk(target, Checkpoint(tensors | {"classifier.1.weight": torch.zeros(1)}, {}, "here", ""))
        assert all(torch.equal(a, b) for a, b in zip(source.trunk.parameters(), target.trunk.parameters(), strict=True))
    with pytest.raises(CheckpointError, match=r"expected 'features\.0\.weight'"):
        load_trunk(target, Checkpoint({}, {}, "here", ""))


@pytest.mark.parametrize("weights", sorted(PUBLISHED))
def test_published_sets(weights: str) -> None:
    model = models.create("trunk-regressor", weights=weights)
    path = WEIGHTS / PUBLISHED[weights]
    card = path.with_suffix(".md").read_text()
    info = model.info
    assert path.stat().st_size < 1_600_000
    assert info.weights_sha256 == load(path).sha256
    assert info.weights_sha256 in card
    assert info.weights_license in card
    assert info.score_range == SCALES[DATABASES[weights]]
    assert info.higher_is_better
    assert info.training_datasets == (f"{DATABASES[weights]}:train",)


def test_batches_do_not_matter_and_gradients_flow() -> None:
    model = models.create("trunk-regressor")
    x = torch.rand(3, 3, 96, 130, generator=torch.Generator().manual_seed(0)).requires_grad_()
    together = model(x)
    alone = torch.cat([model(image[None]) for image in x])
    # float32 sums in another order, on a scale of 100 after features in the hundreds
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-3)
    together.sum().backward()
    assert x.grad is not None
    assert bool((x.grad.flatten(1).abs().amax(1) > 0).all())


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("weights", sorted(PUBLISHED))
def test_published_sets_rank_their_test_splits(weights: str, data_root: Path) -> None:
    model = models.create("trunk-regressor", weights=weights)
    kind = datasets.get(DATABASES[weights])
    test = kind(root=str(kind.locate(data_root)), split="test", allow_missing=True)
    predicted, mos = [], []
    with torch.no_grad():
        for item in test:
            predicted.append(model(item.x[None]).item())
            mos.append(item.mos)
    assert len(mos) >= 100
    assert spearmanr(predicted, mos).statistic >= REACHED[weights]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_robust_set_is_harder_to_move_in_its_own_deviations(data_root: Path) -> None:
    kind = datasets.get("clive")
    test = kind(root=str(kind.locate(data_root)), split="test", allow_missing=True, crop=224, limit=12)
    images = torch.stack([item.x for item in test])
    moved = {}
    for weights in ("clive", "clive-sort-mask"):
        model = models.create("trunk-regressor", weights=weights)
        budget = Budget(eps_255=2, steps=20)
        result = attacks.create("score-reflection")(model, images, goal="reflect", budget=budget)
        moved[weights] = ((result.score_adv - result.score_clean).abs().mean() / result.score_clean.std()).item()
    assert moved["clive-sort-mask"] < moved["clive"] / 2
