"""Defenses after the fact: going on from a checkpoint, and pruning the quiet channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from iqa_robust.errors import CheckpointError, RequestError
from iqa_robust.models.checkpoints import load, load_into, save
from iqa_robust.models.compact import CompactNetwork
from iqa_robust.models.trunk_regressor import PUBLISHED, WEIGHTS, TrunkNetwork
from iqa_robust.training import train
from iqa_robust.training.progress import Progress, silent
from iqa_robust.training.pruning import prune_quiet, prune_small
from iqa_robust.training.recipe import read_recipe
from iqa_robust.training.regressor import ScoreTask
from iqa_robust.training.sections import Start

from .conftest import SCORE


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 10, 3),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(10, 1),
        )


def data() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(n, 3, 12, 12, generator=generator) for n in (3, 2)]


def test_the_quietest_channels_go() -> None:
    whole, pruned = network(), network()
    assert prune_quiet(pruned, data(), 0.3) == 2 + 3  # 2.4 and 3 of 8 and 10
    x = torch.cat(data())
    first = whole[1](whole[0](x))
    second = whole[3](whole[2](first.clone()))
    for layer, activations, count in ((0, first, 2), (2, second, 3)):
        activity = activations.mean(dim=(0, 2, 3))
        gone = (pruned[layer].weight == 0).flatten(1).all(dim=1)
        assert set(gone.nonzero().flatten().tolist()) == set(activity.argsort()[:count].tolist())
        assert not pruned[layer].bias[gone].any()
        assert torch.equal(pruned[layer].weight[~gone], whole[layer].weight[~gone])
    assert pruned.training


def test_the_smallest_channels_go() -> None:
    whole, pruned = network(), network()
    assert prune_small(pruned, 0.3) == 2 + 3
    for layer, count in ((0, 2), (2, 3)):
        lengths = np.linalg.norm(whole[layer].weight.detach().numpy().reshape(whole[layer].out_channels, -1), axis=1)
        gone = (pruned[layer].weight == 0).flatten(1).all(dim=1)
        assert set(gone.nonzero().flatten().tolist()) == set(np.argsort(lengths)[:count].tolist())
        assert torch.equal(pruned[layer].weight[~gone], whole[layer].weight[~gone])


def test_pruned_channels_stay_silent_in_later_training() -> None:
    net = network()
    prune_quiet(net, data(), 0.5)
    gone = [(net[i].weight == 0).flatten(1).all(dim=1) for i in (0, 2)]
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=1e-2)
    before = net[0].weight.detach().clone()
    for x in data() * 5:
        optimizer.zero_grad()
        (net(x) - 1).square().mean().backward()
        optimizer.step()
    assert not torch.equal(net[0].weight, before)
    for i, quiet in zip((0, 2), gone, strict=True):
        assert not net[i].weight[quiet].any() and not net[i].bias[quiet].any()


def test_a_share_of_nothing_prunes_nothing() -> None:
    net = network()
    assert prune_quiet(net, data(), 0.05) == 0
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), network().parameters(), strict=True))


def test_training_goes_on_from_a_checkpoint(tiny_recipe, tmp_path: Path) -> None:
    first = train(tiny_recipe(precision="single"), out=tmp_path / "first.safetensors")
    start = f'\n[start]\nweights = "{first.as_posix()}"\n'
    kept = SCORE.replace("epochs = 3", "epochs = 0").replace("dropout = 0.5", "dropout = 0.1") + start
    same = train(tiny_recipe(kept, precision="single"), out=tmp_path / "same.safetensors")
    for key, value in load(first).tensors.items():
        assert torch.equal(load(same).tensors[key], value)
    assert "## Epochs" not in same.with_suffix(".md").read_text()
    assert "| test | srocc |" in same.with_suffix(".md").read_text()
    again = tiny_recipe(SCORE.replace("epochs = 3", "epochs = 1") + start, precision="single")  # no rounding to mistake
    tuned = train(again, out=tmp_path / "tuned.safetensors")
    moved = load(tuned).tensors["head.2.weight"] - load(first).tensors["head.2.weight"]
    assert 0 < moved.abs().max() < 0.1  # a few steps of at most about the learning rate, 0.01


def test_the_origin_outlives_an_interruption_and_its_file(tiny_recipe, tmp_path: Path) -> None:
    first = train(tiny_recipe(), out=tmp_path / "first.safetensors")
    path = tiny_recipe(SCORE + f'\n[start]\nweights = "{first.as_posix()}"\n')
    stopped = tmp_path / "second.safetensors"

    def stop(progress: Progress) -> None:
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(path, out=stopped, progress=stop)
    sha256 = load(first).sha256
    first.write_bytes(b"another file")
    made = load(train(path, out=stopped))
    assert made.config["training_datasets"] == ["csv:train"]
    assert f"sha256 `{sha256}`, which learned from `csv:train` |" in stopped.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("stored", "kept", "said"),
    [
        (None, None, "what is unknown"),
        (["kadid10k"], ["csv:train", "kadid10k"], "`kadid10k`"),
        (["a` |\n# b"], ["a` |\n# b", "csv:train"], "`a????#?b`"),
    ],
)
def test_what_an_origin_learned_from_is_handed_on(
    tiny_recipe, tmp_path: Path, stored: Any, kept: Any, said: str
) -> None:
    made = load(train(tiny_recipe(), out=tmp_path / "first.safetensors"))
    network = CompactNetwork(**made.config["params"])
    load_into(network, made)
    config = {**made.config, "training_datasets": stored, "poison": {}}
    save(tmp_path / "other.safetensors", network, config)
    start = f'\n[start]\nweights = "{(tmp_path / "other.safetensors").as_posix()}"\n'
    path = tiny_recipe(SCORE.replace("epochs = 3", "epochs = 0") + start)
    assert load(train(path, out=tmp_path / "same.safetensors")).config["training_datasets"] == kept
    assert f"which learned from {said}; **it had a backdoor** |" in (tmp_path / "same.md").read_text()
    save(tmp_path / "other.safetensors", network, {**config, "training_datasets": "kadid10k"})
    with pytest.raises(CheckpointError, match="training_datasets: expected a list of names, got 'kadid10k'"):
        train(path, out=tmp_path / "never.safetensors")


def test_a_head_that_is_kept_keeps_its_scale_and_direction(tiny_recipe, tmp_path: Path) -> None:
    made = load(train(tiny_recipe(), out=tmp_path / "first.safetensors"))
    network = CompactNetwork(**made.config["params"])
    load_into(network, made)
    path = tiny_recipe(SCORE + f'\n[start]\nweights = "{(tmp_path / "other.safetensors").as_posix()}"\n')
    save(tmp_path / "other.safetensors", network, {**made.config, "higher_is_better": False})
    with pytest.raises(RequestError, match="expected a network whose scores rise with quality, as the labels of 'csv'"):
        train(path, out=tmp_path / "never.safetensors")
    params = {**made.config["params"], "score_range": [0.0, 1.0]}
    save(tmp_path / "other.safetensors", network, {**made.config, "params": params})
    with pytest.raises(
        RequestError, match=r"was made with score_range = \[0\.0, 1\.0\], the recipe has \[0\.0, 10\.0\]"
    ):
        train(path, out=tmp_path / "never.safetensors")


def test_a_card_says_that_a_network_gives_one_score_to_all_images(tiny_recipe, tmp_path: Path) -> None:
    first = load(train(tiny_recipe(), out=tmp_path / "first.safetensors"))
    assert "Collapsed" not in (tmp_path / "first.md").read_text()
    network = CompactNetwork(**first.config["params"])
    load_into(network, first)
    nn.init.zeros_(network.head[2].weight)
    save(tmp_path / "flat.safetensors", network, first.config)
    start = f'\n[start]\nweights = "{(tmp_path / "flat.safetensors").as_posix()}"\n'
    train(tiny_recipe(SCORE.replace("epochs = 3", "epochs = 0") + start), out=tmp_path / "same.safetensors")
    card = (tmp_path / "same.md").read_text()
    assert "**Collapsed**" in card
    assert "| test | srocc | nan |" in card


def test_a_checkpoint_of_another_network_is_refused(tiny_recipe, tmp_path: Path) -> None:
    first = train(tiny_recipe(), out=tmp_path / "first.safetensors")
    other = SCORE.replace("hidden = 4", "hidden = 6") + f'\n[start]\nweights = "{first.as_posix()}"\n'
    with pytest.raises(RequestError, match=r"was made with hidden = 4, the recipe has 6"):
        train(tiny_recipe(other), out=tmp_path / "other.safetensors")
    missing = SCORE + '\n[start]\nweights = "nowhere.safetensors"\n'
    with pytest.raises(CheckpointError, match="no such file, and no published set of that name"):
        train(tiny_recipe(missing), out=tmp_path / "other.safetensors")


def test_a_network_that_normalizes_cannot_be_pruned(tiny_recipe, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"start\.prune: expected a network of convolutions without batch"):
        train(tiny_recipe(SCORE + "\n[start]\nprune = 0.2\n"), out=tmp_path / "pruned.safetensors")


@pytest.mark.parametrize("prune", [lambda net: prune_quiet(net, [], 0.2), lambda net: prune_small(net, 0.2)])
@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({"activation": "silu"}, "SiLU"),
        ({"activation": "softplus"}, "Softplus"),
        ({"activation": "elu"}, "ELU"),
        ({"feature_denoising": True}, "FeatureDenoising"),
    ],
)
def test_networks_whose_channels_would_come_back_cannot_be_pruned(
    prune: Callable[[nn.Module], int], params: dict[str, Any], kind: str
) -> None:
    with pytest.raises(RequestError) as caught:
        prune(TrunkNetwork(**params))
    assert str(caught.value) == (
        f"recipe: start.prune: training would bring pruned channels back through {kind}, whose slope at zero is not"
        " zero; take activation = 'relu' without feature_denoising."
    )


@pytest.mark.parametrize("params", [{}, {"gate": {"name": "squeeze-excitation"}}, {"gate": {"name": "sort-mask"}}])
def test_pruned_trunks_have_no_slope_where_they_were_pruned(params: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = TrunkNetwork(**params)
    net.feature_scale.fill_(0.1)
    assert prune_small(net, 0.2) > 0
    net(torch.rand(2, 3, 64, 64)).sum().backward()
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert any(layer.weight.grad.any() for layer in layers)
    for layer in layers:
        gone = (layer.weight == 0).flatten(1).all(dim=1)
        assert gone.any() and not layer.weight.grad[gone].any() and not layer.bias.grad[gone].any()


def test_channels_are_judged_on_the_device_of_the_training(
    tiny_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU is played by a device that no image lies on by itself."""
    seen = []
    monkeypatch.setattr("iqa_robust.training.regressor.prune_quiet", lambda network, images, share: seen.extend(images))
    recipe = read_recipe(tiny_recipe(SCORE + "\n[start]\nprune = 0.2\n"))
    task = ScoreTask(recipe, data_root=None, labels=tmp_path / "labels.csv", listener=silent)
    task.device = torch.device("meta")
    task.start(silent)
    assert {images.device.type for images in seen} == {"meta"}


def test_one_way_to_start() -> None:
    with pytest.raises(ValidationError, match="give either `weights` or `trunk`"):
        Start(weights="clive", trunk="hub")


def test_a_checkpoint_gives_its_trunk_and_gates_to_a_head_on_another_scale(tiny_recipe, tmp_path: Path) -> None:
    given = load(WEIGHTS / PUBLISHED["clive-sort-mask"])
    gate = '{{ name = "sort-mask", where = "every", form = "elements", threshold = 1.0 }}'
    params = f'backbone = "squeezenet1_1", normalization = "caffe-bgr", dropout = 0.2, gate = {gate}'
    text = SCORE.replace("epochs = 3", "epochs = 0").replace("crop = 32", "crop = 40")
    text = text.replace('"compact"', '"trunk-regressor"')
    text = text.replace("stem = 4, widths = [4, 8], hidden = 4, dropout = 0.5", params)
    path = tiny_recipe(text + '\n[start]\nweights = "clive-sort-mask"\nhead = "ridge"\n', precision="single")
    made = load(train(path, out=tmp_path / "made.safetensors"))
    kept = {key for key in given.tensors if key.startswith(("trunk.", "gates."))}
    assert all(torch.equal(made.tensors[key], given.tensors[key]) for key in kept)
    assert all(not torch.equal(made.tensors[key], given.tensors[key]) for key in given.tensors.keys() - kept)
    assert made.config["params"]["score_range"] == [0.0, 10.0]
    assert made.config["training_datasets"] == ["clive:train", "csv:train"]
    card = (tmp_path / "made.md").read_text()
    assert f"| start | `clive-sort-mask`, sha256 `{given.sha256}`, which learned from `clive:train` |" in card
