"""A twin of a model made for the attack loop: frozen, layers joined, channels-last, in bfloat16 or float32."""

from __future__ import annotations

import copy

import torch
from torch import nn

from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, WrappedModel, WrappedModule
from iqa_robust.models.changes.memory import Memory
from iqa_robust.models.changes.scorer import ChangeScorer
from iqa_robust.models.learned import LearnedModel
from iqa_robust.models.prepared.layers import (
    edited,
    fold_batch_norms,
    freeze_layers,
    join_relus,
    round_layers,
    straighten_attention,
    unfold_residuals,
)
from iqa_robust.models.score_network import ScoreNetwork

PRECISIONS = ("fp32", "mixed", "bf16")
"""`mixed`: float32, and bfloat16 for what changes between the images of a search that announces it."""


def prepare(model: IQAModel, precision: str, x: torch.Tensor, ref: torch.Tensor | None = None) -> IQAModel:
    """A twin of `model` that is cheaper to differentiate and to query: for a search, whose finds `model` then scores.

    The network is copied, the model is not edited. With `bf16`, scores are rounded by some thousandths of their range.
    A model made of others, such as one behind a purifier, is returned as it is: wrap the defense around the prepared
    model, so that the purifier computes in float32 as before. So is a model that cannot be copied.

    Args:
        model: any model.
        precision: a name of `PRECISIONS`.
        x: an example, (1, 3, H, W) in [0, 1] on the model's device; a few scores of it are taken to see what the layers
            do. `ref` is its reference, for full-reference models.

    Raises:
        ContractError: the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ContractError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if type(model) is WrappedModel:
        return WrappedModel(prepare(model.model, precision, x, ref), model.info)
    if any(isinstance(part, IQAModel) for part in model.modules() if part is not model):
        return model
    try:
        with torch.no_grad():  # a scripted module's weights are copied by an operation that would leave a history
            made = copy.deepcopy(model)
    except Exception:  # whatever a model holds (a lock, a tensor with a history), it can be attacked as it is
        return model
    with torch.no_grad():
        made = made.eval().requires_grad_(False)
        made = edited(made, (fold_batch_norms,), x, ref).to(memory_format=torch.channels_last)
        network = _network_of(made)
        if network is not None:
            network = copy.deepcopy(network)  # with layers of its own: maps are remembered, and changes added to them
        straighten_attention(made)
        if precision == "bf16":
            made = edited(made, (unfold_residuals, join_relus), x, ref)
            round_layers(made, x, ref)
        else:
            made = edited(made, (unfold_residuals, join_relus, freeze_layers), x, ref)
    return PreparedModel(made, precision, network)


def _network_of(model: IQAModel) -> ScoreNetwork | None:
    """The network of ours that gives the scores, if one does."""
    if isinstance(model, LearnedModel):
        network: nn.Module = model.network
    elif type(model) is WrappedModule:
        network = model.module
    else:
        return None
    return network if isinstance(network, ScoreNetwork) else None


class PreparedModel(IQAModel):
    """A model without other models inside, ready for the attack loop; see `prepare`."""

    copies_images = True

    def __init__(self, model: IQAModel, precision: str, network: ScoreNetwork | None) -> None:
        """`model` has the layers of the precision already; this sets the arithmetic between them.

        `network` is its network in float32, where it has one that can score by changes.
        """
        super().__init__()
        self.model = model
        self.info = model.info
        self.precision = precision
        self.training = False
        self._by_changes: ChangeScorer | None = None
        if network is not None:  # what it leaves to the network is float32, and the whole is faster in bfloat16
            self._by_changes = ChangeScorer(network, rounded=precision != "fp32", rivaled=precision == "bf16")

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,), float32."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.model(x.clone(memory_format=torch.channels_last), ref).float()

    def score_changed(self, x: torch.Tensor, ref: torch.Tensor | None, memory: Memory) -> torch.Tensor:
        """Scores (N,), float32. On a CPU, a network of ours computes what the announced windows reach, and no more."""
        scorer = self._by_changes
        if scorer is None or x.device.type != "cpu" or not (scorer.serves(x) and scorer.pays(x, memory)):
            return self(x, ref)
        return scorer(x, memory)
