"""Diffusion purification: the noise, the reverse chain in closed form, gradients, tiles, what the weights reach."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from iqa_robust import datasets, defenses
from iqa_robust.defenses.learned import diffpure
from iqa_robust.defenses.learned.diffpure import PUBLISHED, reverse
from iqa_robust.defenses.learned.diffusion_network import DiffusionUNet, forward_noise, linear_alpha_bar, step_features
from iqa_robust.defenses.learned.network_purifier import WEIGHTS
from iqa_robust.errors import CheckpointError, ContractError
from iqa_robust.models.checkpoints import load
from iqa_robust.models.randomness import ImageRNG, seeded
from iqa_robust.training.patches import first_of_each_content, references

ALPHA_BAR = linear_alpha_bar()


def test_the_schedule_is_the_product_of_one_minus_linear_betas() -> None:
    left = 1.0
    for step in range(1, 1001):
        left *= 1 - (1e-4 + (0.02 - 1e-4) * (step - 1) / 999)
        if step in {1, 20, 500, 1000}:
            assert ALPHA_BAR[step].item() == pytest.approx(left, rel=1e-12)  # float64 products
    assert ALPHA_BAR[0] == 1


def test_noising_has_the_closed_form_mean_and_variance() -> None:
    """One jump to step 60 against sixty single steps, x_k = sqrt(1 - b_k) x_(k-1) + sqrt(b_k) z."""
    count, x0, rng = 40_000, 0.6, ImageRNG([3])
    chain = torch.full((count,), x0)
    for step in range(1, 61):
        kept = (ALPHA_BAR[step] / ALPHA_BAR[step - 1]).float()
        chain = kept.sqrt() * chain + (1 - kept).sqrt() * rng.normal((count,))[0]
    jump = forward_noise(torch.full((1, 1, 1, count), x0), rng.normal((1, 1, count)), ALPHA_BAR[60]).flatten()
    sd = math.sqrt(1 - ALPHA_BAR[60].item())
    for drawn in (chain, jump):
        assert drawn.mean().item() == pytest.approx(x0 * math.sqrt(ALPHA_BAR[60].item()), abs=4 * sd / 200)  # 4 s.e.
        assert drawn.std().item() == pytest.approx(sd, rel=4 / math.sqrt(2 * count))  # 4 standard errors


def perfect(x: torch.Tensor, step: int, mean: float, sd: float) -> torch.Tensor:
    """E[noise | x_t] where the clean values are normal: by the rule for jointly normal variables."""
    a = ALPHA_BAR[step].item()
    return math.sqrt(1 - a) * (x - math.sqrt(a) * mean) / (a * sd**2 + 1 - a)


@pytest.mark.parametrize("steps", [1, 4, 150])
def test_the_reverse_chain_reaches_the_posterior_of_a_gaussian_prior(steps: int) -> None:
    """The clean value given the noisy one is normal; its mean is met at any number of steps, its spread with many."""
    mean, sd, t, count, seen = 0.2, 0.3, 150, 40_000, 0.9
    rng = ImageRNG([5])
    times = [round(t * k / steps) for k in range(steps, -1, -1)]
    start = torch.full((1, 1, 1, count), seen)
    drawn = reverse(start, times, ALPHA_BAR, lambda x, s: perfect(x, s, mean, sd), lambda: rng.normal((1, 1, count)))
    a = ALPHA_BAR[t].item()
    expected = mean + math.sqrt(a) * sd**2 * (seen - math.sqrt(a) * mean) / (a * sd**2 + 1 - a)
    spread = math.sqrt(sd**2 * (1 - a) / (a * sd**2 + 1 - a))
    assert drawn.mean().item() == pytest.approx(expected, abs=4 * spread / math.sqrt(count) + 1e-6)  # 4 s.e.
    if steps == 150:
        # q(x_s | x_t, x_0) leaves the spread of x_0 out, so each step is a little too narrow: 3 % after 150 here
        assert drawn.std().item() == pytest.approx(spread, rel=0.05)
    if steps == 1:
        assert drawn.std().item() < 1e-5  # the conditional mean itself


def test_a_chain_that_knows_the_clean_image_returns_it() -> None:
    clean, rng = torch.rand(2, 3, 9, 11) * 2 - 1, ImageRNG([1, 2])
    noisy = forward_noise(clean, rng.normal(clean.shape[1:]), ALPHA_BAR[80])

    def known(x: torch.Tensor, step: int) -> torch.Tensor:
        a = ALPHA_BAR[step].item()
        return (x - math.sqrt(a) * clean) / math.sqrt(1 - a)

    found = reverse(noisy, [80, 40, 10, 0], ALPHA_BAR, known, lambda: rng.normal(clean.shape[1:]))
    torch.testing.assert_close(found, clean, rtol=0, atol=1e-5)  # float32 rounding, magnified by 1 / sqrt(1 - a)


def test_every_step_has_features_of_its_own() -> None:
    features = step_features(torch.arange(1, 1001), 64)
    assert features.shape == (1000, 64)
    assert torch.cdist(features, features).fill_diagonal_(1).min() > 0.01


def gradient(x: torch.Tensor, **params: object) -> torch.Tensor:
    leaf = x.clone().requires_grad_()
    with seeded(range(len(x))):
        (defenses.create("diffpure", **params).purify(leaf) * torch.linspace(0, 1, x.shape[-1])).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def test_checkpointing_does_not_change_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    x, calls = torch.rand(2, 3, 70, 40), []

    def plain(function, *args, **options):
        calls.append(options)
        return function(*args)

    params = {"t": 50, "steps": 3, "tile": 64, "overlap": 16}
    found = gradient(x, **params)
    monkeypatch.setattr(diffpure, "checkpoint", plain)
    torch.testing.assert_close(found, gradient(x, **params), rtol=1e-5, atol=1e-7)  # the same sums, recomputed
    assert len(calls) == 6  # three steps of two tiles
    assert found.abs().min() > 0


def test_black_and_white_areas_keep_their_slope() -> None:
    x = torch.zeros(1, 3, 32, 32)
    x[..., 16:] = 1
    leaf = x.requires_grad_()
    with seeded([1]):
        y = defenses.create("diffpure").purify(leaf)
    y.sum().backward()
    assert bool(((y == 0) | (y == 1)).any())
    assert leaf.grad.mean() > 0.5  # the mean of an area passes; the clip alone would stop half of it


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 40), (64, 64), (65, 130)])
def test_any_size_is_kept(height: int, width: int) -> None:
    purified = defenses.create("diffpure", tile=64, overlap=16, steps=2).purify(torch.rand(2, 3, height, width))
    assert purified.shape == (2, 3, height, width)
    assert bool(((purified >= 0) & (purified <= 1)).all())


def test_noise_belongs_to_the_image_and_not_to_the_batch() -> None:
    defense, x = defenses.create("diffpure"), torch.rand(3, 3, 40, 48)
    with seeded([1, 2, 3]):
        together = defense.purify(x)
    for number, image in enumerate(x):
        with seeded([number + 1]):
            alone = defense.purify(image[None])[0]
        torch.testing.assert_close(together[number], alone, rtol=0, atol=1e-5)  # float32 sums in another order
    with seeded([4]):
        assert (defense.purify(x[:1])[0] - together[0]).abs().max() > 0.01


def test_tiles_of_the_shipped_network_agree_with_the_whole_image() -> None:
    x = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 12), size=(96, 96), mode="bicubic").clamp(0, 1)
    found = []
    for tile in (96, 64):
        with seeded([7]), torch.no_grad():
            found.append(defenses.create("diffpure", tile=tile, overlap=32).purify(x))
    # only the context at the seams differs; a tile that ignored its neighbors would leave steps of many levels
    assert (found[0] - found[1]).abs().mean() * 255 < 1


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"t": 0}, "DiffPure: expected t to be a whole number from 1 to 1000, got 0."),
        ({"t": 5, "steps": 6}, "DiffPure: expected steps to be a whole number from 1 to 5, got 6."),
        ({"tile": 100}, "DiffPure: expected tile to be a multiple of 32, got 100."),
        ({"overlap": 129}, "DiffPure: expected overlap to be a whole number from 0 to 128, got 129."),
    ],
)
def test_bad_parameters(params: dict[str, int], sentence: str) -> None:
    with pytest.raises(ContractError) as caught:
        defenses.create("diffpure", **params)
    assert str(caught.value) == sentence


def test_steps_beyond_the_model_are_refused() -> None:
    with pytest.raises(ContractError) as caught:
        defenses.create("diffpure", t=201).purify(torch.rand(1, 3, 32, 32))
    assert str(caught.value) == "DiffPure: t: the weights 'photos' know the steps up to 200, got 201."


def test_published_weights_are_small_and_predict_noise_on_held_out_photos() -> None:
    path = WEIGHTS / PUBLISHED["photos"]
    assert path.stat().st_size < 3_000_000
    assert "photos:train" in load(path).config["training_datasets"]
    assert path.with_suffix(".md").is_file()
    pictures = references(first_of_each_content(datasets.create("photos", split="test"))[::4], "test")
    for t, least in ((20, 4.0), (50, 7.0)):  # dB; the model card has 5.3 and 8.3 for the whole test split
        noise = (1 - ALPHA_BAR[t].item()) / ALPHA_BAR[t].item() / 4  # its power at step t, as an image in [0, 1] has it
        gains = []
        for x in pictures:
            with torch.no_grad(), seeded([1]):
                restored = defenses.create("diffpure", t=t, steps=1).purify(x[None])
            gains.append(10 * math.log10(noise / (restored - x).square().mean().item()))
        assert sum(gains) / len(gains) > least


def tiny_pipeline(folder, *, kind: str = "epsilon") -> str:
    library = pytest.importorskip("diffusers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = library.UNet2DModel(
            sample_size=32,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )
    library.DDPMPipeline(unet, library.DDPMScheduler(prediction_type=kind)).save_pretrained(str(folder))
    return f"diffusers:{folder}"


def test_a_pipeline_of_diffusers_is_read_and_differentiated(tmp_path) -> None:
    weights = tiny_pipeline(tmp_path)
    defense = defenses.create("diffpure", weights=weights, t=30, steps=2, tile=64)
    x = torch.rand(2, 3, 45, 71)
    with seeded([1, 2]), torch.no_grad():
        purified = defense.purify(x)
    assert purified.shape == x.shape
    assert gradient(x, weights=weights, t=30, steps=2, tile=64).abs().max() > 0
    torch.testing.assert_close(defense._model.alpha_bar, ALPHA_BAR, rtol=1e-4, atol=0)  # theirs is float32


def test_a_pipeline_of_another_kind_is_refused(tmp_path) -> None:
    weights = tiny_pipeline(tmp_path, kind="v_prediction")
    with pytest.raises(CheckpointError, match="that predicts the noise of 1000 steps, got 3 channels, 'v_prediction'"):
        defenses.create("diffpure", weights=weights).purify(torch.rand(1, 3, 32, 32))


def test_a_missing_pipeline_is_one_sentence(tmp_path) -> None:
    pytest.importorskip("diffusers")
    with pytest.raises(CheckpointError, match="no pipeline with safetensors in that folder"):
        defenses.create("diffpure", weights=f"diffusers:{tmp_path / 'none'}").purify(torch.rand(1, 3, 32, 32))


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(CheckpointError) as caught:
        defenses.create("diffpure", weights="diffusers:acme/ddpm").purify(torch.rand(1, 3, 32, 32))
    assert str(caught.value).startswith("weights 'diffusers:acme/ddpm': needs the library diffusers (")
    assert str(caught.value).endswith("; install iqa-robust[diffusers].")


def test_an_untrained_network_predicts_no_noise() -> None:
    network = DiffusionUNet(widths=(4, 8), blocks=1, embedding=8)
    assert network(torch.randn(2, 3, 10, 9), torch.tensor([1, 200])).abs().max() == 0
