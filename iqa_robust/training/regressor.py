"""The task of training a model that predicts scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iqa_robust.datasets.distortions import Picture
from iqa_robust.errors import CheckpointError, RequestError
from iqa_robust.measures.correlation import plcc_raw, srocc
from iqa_robust.models import compact, trunk_regressor
from iqa_robust.models.checkpoints import Checkpoint, load, load_into, resolve
from iqa_robust.models.compact import CompactNetwork
from iqa_robust.models.hub import hub_weights
from iqa_robust.models.randomness import derive_seed
from iqa_robust.models.score_network import ScoreNetwork
from iqa_robust.models.trunk_regressor import DEFAULT_BACKBONE, DEFAULT_NORMALIZATION, TrunkNetwork
from iqa_robust.training.adversarial.judge import attacked_sroccs
from iqa_robust.training.adversarial.objective import TrainingObjective
from iqa_robust.training.data import (
    Loader,
    Memory,
    Sample,
    batch_count,
    batches_of,
    center_crops,
    hold_out,
    loaded,
    open_split,
)
from iqa_robust.training.degraded import DegradedPictures, best_pictures, read_pictures
from iqa_robust.training.loop import Batch, Task
from iqa_robust.training.origin import Origin
from iqa_robust.training.poisoning import poisoned, scored_by
from iqa_robust.training.progress import Clock, Listener, Progress
from iqa_robust.training.pruning import prune_quiet, prune_small
from iqa_robust.training.recipe import ScoreRecipe
from iqa_robust.training.ridge import fit_head
from iqa_robust.training.sections import VALIDATION_STEPS, Data, Pristine

NETWORKS: dict[str, Callable[..., ScoreNetwork]] = {"compact": CompactNetwork, "trunk-regressor": TrunkNetwork}
PUBLISHED = {
    "compact": (compact.PUBLISHED, compact.WEIGHTS),
    "trunk-regressor": (trunk_regressor.PUBLISHED, trunk_regressor.WEIGHTS),
}
"""Published weights by network: name -> file, and the folder."""
MAY_CHANGE = dict.fromkeys(("dropout", "gate", "activation"))
"""Parameters in which a network may differ from the one whose weights it starts from, if the weights fit."""
OF_HEAD = dict.fromkeys(("score_range",))
"""Those in which it may differ, too, where the head is fitted anew."""
GATES = "gates."
"""Names of a gate's tensors begin with it."""
EVALUATION_BATCH = 8
"""Whole images of one size scored together."""


class ScoreTask(Task):
    """Trains a score network on one dataset, and on degraded pristine pictures where the recipe gives them."""

    def __init__(self, recipe: ScoreRecipe, *, data_root: Path | None, labels: Path, listener: Listener) -> None:
        """Opens the data and builds the network. Raises `RequestError` where recipe and data do not fit."""
        self.recipe = recipe
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.data_root = data_root
        self.dataset = open_split(recipe.data, "train", data_root)
        loader: Loader = Memory(self.dataset) if recipe.keep_in_memory else self.dataset
        samples = [Sample(loader, row) for row in self.dataset.rows()]
        self.degraded: dict[str, DegradedPictures] = {}
        for number, settings in enumerate(recipe.pristine):
            pictures = self._pictures(settings)
            kept = labels.with_suffix(f".{number}{labels.suffix}")
            degraded = DegradedPictures(pictures, settings, recipe.seed, kept)
            loader = Memory(degraded) if recipe.keep_in_memory else degraded
            samples += [Sample(loader, row) for row in degraded.rows(listener)]
            self.degraded[settings.title] = degraded
        self.train, self.validation = hold_out(samples, recipe.validation, recipe.seed)
        if recipe.poison is not None:
            self.train = poisoned(self.train, recipe.poison, self.dataset.mos_range, recipe.seed, listener)
        self.batches_per_epoch = batch_count(len(self.train), recipe.optimization.batch_size)
        if not self.batches_per_epoch:
            raise RequestError(f"recipe {recipe.name!r}: expected at least two training images, got {len(self.train)}.")
        self.chosen_by = self._chosen_by() if self.validation else None
        self.low, self.high = self.dataset.mos_range
        self.teacher = None if recipe.teacher is None else scored_by(recipe.teacher).to(self.device).eval()
        self.params: dict[str, Any] = {**recipe.network.params, "score_range": [self.low, self.high]}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(recipe.seed, "first weights"))
            try:
                self.network = NETWORKS[recipe.network.name](**self.params)
            except (KeyError, TypeError) as error:
                raise RequestError(
                    f"recipe {recipe.name!r}: network: not a score network's parameters ({error})."
                ) from error
        self.objective = TrainingObjective(
            recipe, self.network, (self.low, self.high), higher_is_better=self.dataset.mos_higher_is_better
        )
        self.batches_per_epoch *= self.objective.replays
        self._visits = 0

    def _pictures(self, settings: Pristine) -> dict[str, Picture]:
        if settings.folder is not None:
            return read_pictures(under(self.data_root, settings.folder, "pristine.folder"))
        assert settings.dataset is not None  # the recipe has one of the two
        return best_pictures(open_split(Data(dataset=settings.dataset), "train", self.data_root), settings)

    def start(self, listener: Listener) -> None:
        """Load the trunk or a checkpoint, fit the head by ridge regression, and prune, as the recipe says."""
        start = self.recipe.start
        if start.trunk == "hub":
            backbone = str(self.params.get("backbone", DEFAULT_BACKBONE))
            tensors = hub_weights(backbone, str(self.params.get("normalization", DEFAULT_NORMALIZATION)))
            load_trunk(self.network, Checkpoint(tensors, {}, f"hub weights of {backbone}", ""))
        elif start.trunk is not None:
            load_trunk(self.network, load(under(self.data_root, start.trunk, "start.trunk")))
        elif start.weights is not None:
            self.origin = self._go_on_from(start.weights, new_head=start.head == "ridge")
        if start.head == "ridge":
            self._fit_head(listener)
        if start.prune and start.prune_by == "magnitude":
            prune_small(self.network, start.prune)
        elif start.prune:
            prune_quiet(self.network, (images.to(self.device) for images, _ in self._patches(0)), start.prune)

    def _go_on_from(self, weights: str, *, new_head: bool) -> Origin:
        checkpoint = load_network(self.network, self.recipe.network.name, self.params, weights, new_head=new_head)
        rises, wanted = checkpoint.config.get("higher_is_better", True), self.dataset.mos_higher_is_better
        if not new_head and rises != wanted:
            raise RequestError(
                f"recipe {self.recipe.name!r}: start.weights: expected a network whose scores"
                f" {'rise' if wanted else 'fall'} with quality, as the labels of {self.recipe.data.dataset!r} do,"
                f" got {weights}, whose scores do not; start from other weights, or add start.head = 'ridge'."
            )
        return Origin.of(weights, checkpoint)

    def _fit_head(self, listener: Listener) -> None:
        if not isinstance(self.network, TrunkNetwork):
            raise RequestError(
                f"recipe {self.recipe.name!r}: start.head = 'ridge' needs the network 'trunk-regressor'."
            )
        network = self.network.eval().to(self.device)
        fit_head(network, *self._pooled(network, listener))

    @torch.no_grad()
    def _pooled(self, network: TrunkNetwork, listener: Listener) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled features (N, F) and MOS (N,) of one patch of every training image, drawn as in training."""
        features: list[torch.Tensor] = []
        scores: list[torch.Tensor] = []
        bf16 = self.recipe.optimization.arithmetic == "bf16"
        for number, (images, mos) in enumerate(self._patches(0), start=1):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                images = images.to(self.device, memory_format=torch.channels_last)
                features.append(network.features(images).float().cpu())
            scores.append(mos)
            listener(Progress("start", done=number, total=self.batches_per_epoch // self.objective.replays))
        return torch.cat(features), torch.cat(scores)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Shuffled patches and their MOS, each as often as the inner player replays it."""
        self._visits = (epoch - 1) * self.batches_per_epoch
        for batch in self._patches(epoch):
            yield from (batch for _ in range(self.objective.replays))

    def _patches(self, epoch: int) -> Iterator[Batch]:
        """One epoch; number 0 serves the ridge regression and pruning."""
        recipe = self.recipe
        return batches_of(self.train, recipe.optimization.batch_size, recipe.augment, recipe.seed, epoch)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The recipe's terms on scores mapped to [-1, 1]."""
        labels = batch[1] if self.teacher is None else self._taught(batch[0])
        total = self.recipe.optimization.epochs * self.batches_per_epoch
        first = self._visits % self.batches_per_epoch == 0
        share_done = (self._visits + 0.5) / total
        self._visits += 1
        return self.objective.loss(batch[0], labels, share_done=share_done, first_visit=first)

    @torch.no_grad()
    def _taught(self, images: torch.Tensor) -> torch.Tensor:
        """The teacher's scores (N,), on the scale of the labels."""
        assert self.teacher is not None and self.teacher.info.score_range is not None  # `scored_by` has looked
        low, high = self.teacher.info.score_range
        return self.low + (self.teacher(images).float() - low) * (self.high - self.low) / (high - low)

    def _chosen_by(self) -> str:
        return self.recipe.validation.choose or ("srocc" if self.recipe.judged_eps_255 is None else "both")

    def validate(self, listener: Listener) -> dict[str, float]:
        """SROCC and PLCC on the held-out contents of the training split, and SROCC under attack (see `judge`)."""
        if not self.validation:
            return {}
        samples = center_crops(self.validation, self.recipe.validation.crop)
        measures = agreement(self.network, samples, "validate", listener)
        if self.recipe.judged_eps_255 is not None:
            (attacked,) = self.attacked(samples, [self.recipe.judged_eps_255], VALIDATION_STEPS, listener)
            measures |= {"srocc_attacked": attacked, "both": (measures["srocc"] + attacked) / 2}
        return measures

    def attacked(
        self, samples: Sequence[Sample], radii_255: Sequence[float], steps: int, listener: Listener
    ) -> list[float]:
        """Per radius, SROCC of samples whose scores were pushed to the other side, in evaluation mode."""
        items = list(loaded(samples, 2 * EVALUATION_BATCH))
        clock = Clock()

        def tell(done: int) -> None:
            clock.images = done
            listener(Progress("attack", done=done, total=len(items) * len(radii_255), rate=clock.rate()))

        return attacked_sroccs(
            self.network,
            self.objective.scores,
            [item.x.to(self.device) for item in items],
            torch.tensor([item.mos for item in items]),
            radii_255=radii_255,
            steps=steps,
            done=tell,
        )

    def manifests(self) -> dict[str, str]:
        """Hex sha256 of every set that was trained or validated on."""
        found = {f"{self.recipe.data.dataset}:train": self.dataset.manifest()}
        return found | {title: degraded.manifest() for title, degraded in self.degraded.items()}


def under(data_root: Path | None, relative: str, key: str) -> Path:
    """A path of a recipe, inside the data root. Raises `RequestError` where there is no root or it leads outside."""
    if data_root is None:
        raise RequestError(
            f"recipe: {key}: {relative!r} lies under the data root; give --data-root or IQA_ROBUST_DATA."
        )
    root = data_root.resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root):
        raise RequestError(f"recipe: {key}: {relative!r} leads outside the data root {data_root}.")
    return path


def load_network(
    network: nn.Module, name: str, params: dict[str, Any], weights: str, *, new_head: bool = False
) -> Checkpoint:
    """Fill a network with a checkpoint, a path or a published name of its kind, and return that.

    Gates that the checkpoint's network did not have keep the state they begin with. With a `new_head` to come, its
    scores may be on another scale.

    Raises:
        CheckpointError: there is no such file, or its tensors are another network's.
        RequestError: it was trained with other parameters than those that may change between two trainings.
    """
    checkpoint = load(resolve(weights, *PUBLISHED[name]))
    free = MAY_CHANGE | OF_HEAD if new_head else MAY_CHANGE
    found = {"network": checkpoint.config.get("network"), **checkpoint.config.get("params", {})} | free
    wanted = {"network": name, **params} | free
    if found != wanted:
        key = next(key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key))
        raise RequestError(
            f"recipe: start.weights: {weights} was made with {key} = {found.get(key)!r}, the recipe has"
            f" {wanted.get(key)!r}."
        )
    tensors = dict(checkpoint.tensors)
    if not any(key.startswith(GATES) for key in tensors):
        tensors |= {key: value for key, value in network.state_dict().items() if key.startswith(GATES)}
    load_into(network, dataclasses.replace(checkpoint, tensors=tensors))
    return checkpoint


def load_trunk(network: nn.Module, checkpoint: Checkpoint) -> None:
    """Fill `network.trunk` from a state dict in torchvision's names, with or without `features.`; extras are left.

    Raises:
        CheckpointError: a weight of the trunk is missing or has another shape.
    """
    for key, value in network.state_dict().items():
        if not key.startswith("trunk."):
            continue
        name = key.removeprefix("trunk.")
        found = checkpoint.tensors.get(name, checkpoint.tensors.get(name.removeprefix("features.")))
        if found is None or found.shape != value.shape:
            got = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise CheckpointError(f"{checkpoint.source}: expected {name!r} of shape {tuple(value.shape)}, got {got}.")
        value.copy_(found)


@torch.no_grad()
def over_images(
    network: nn.Module, samples: Sequence[Sample], stage: str, listener: Listener
) -> tuple[torch.Tensor, torch.Tensor]:
    """The network's scores of whole images, in batches of one size, and the MOS: two tensors in the samples' order."""
    device = next(network.parameters()).device
    results: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    scores: list[float] = []
    clock = Clock()

    def flush() -> None:
        if images:
            batch = torch.stack(images).to(device, memory_format=torch.channels_last)
            results.append(network(batch).float().cpu())
            clock.images += len(images)
            images.clear()
            listener(Progress(stage, done=clock.images, total=len(samples), rate=clock.rate()))

    for item in loaded(samples, 2 * EVALUATION_BATCH):
        if images and (len(images) == EVALUATION_BATCH or item.x.shape != images[0].shape):
            flush()
        images.append(item.x)
        scores.append(item.mos)
    flush()
    return torch.cat(results), torch.tensor(scores)


def agreement(network: nn.Module, samples: Sequence[Sample], stage: str, listener: Listener) -> dict[str, float]:
    """SROCC and PLCC (of the scores as they are) between predictions and MOS; higher is better for either scale."""
    predicted, mos = over_images(network, samples, stage, listener)
    return {"srocc": srocc(predicted.numpy(), mos.numpy()), "plcc": plcc_raw(predicted.numpy(), mos.numpy())}
