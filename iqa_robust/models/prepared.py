"""A twin of a model made for the attack loop: frozen, batch norm folded, channels-last, in bfloat16 or float32."""

from __future__ import annotations

import copy

import torch
from torch import nn

from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, WrappedModel, WrappedModule
from iqa_robust.models.layers import fold_batch_norms, join_relus, round_layers, straighten_attention, unfold_residuals
from iqa_robust.models.learned import LearnedModel
from iqa_robust.models.memory import Memory
from iqa_robust.models.score_network import ScoreNetwork

PRECISIONS = ("fp32", "bf16")


def prepare(model: IQAModel, precision: str, x: torch.Tensor, ref: torch.Tensor | None = None) -> IQAModel:
    """A twin of `model` that is cheaper to differentiate and to query: for a search, whose finds `model` then scores.

    The network is copied, the model is not edited. With `bf16`, scores are rounded by some thousandths of their range.
    A model made of others, such as one behind a purifier, is returned as it is: wrap the defense around the prepared
    model, so that the purifier computes in float32 as before. So is a model that cannot be copied.

    Args:
        model: any model.
        precision: `"fp32"` or `"bf16"`.
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
        made = fold_batch_norms(made, x, ref).to(memory_format=torch.channels_last)
        straighten_attention(made)
        if precision == "bf16":
            unfold_residuals(made)
            made = join_relus(made, x, ref)
            round_layers(made, x, ref)
    return PreparedModel(made, precision)


class PreparedModel(IQAModel):
    """A model without other models inside, ready for the attack loop; see `prepare`."""

    copies_images = True

    def __init__(self, model: IQAModel, precision: str) -> None:
        """`model` has the layers of the precision already; this sets the arithmetic between them."""
        super().__init__()
        self.model = model
        self.info = model.info
        self.precision = precision
        self.training = False

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,), float32."""
        with self._arithmetic(x):
            return self.model(x.clone(memory_format=torch.channels_last), ref).float()

    def score_changed(self, x: torch.Tensor, ref: torch.Tensor | None, memory: Memory) -> torch.Tensor:
        """Scores (N,), float32. On a CPU, a network of ours computes what the announced windows reach, and no more."""
        network = self._network()
        if network is None or x.device.type != "cpu":
            return self(x, ref)
        if memory.windows is None:
            x = x.contiguous(memory_format=torch.channels_last)
        with self._arithmetic(x):
            scores: torch.Tensor = network(x, memory)
        return scores.float()

    def _network(self) -> ScoreNetwork | None:
        """The network of ours that gives the scores, if one does."""
        inner = self.model
        if isinstance(inner, LearnedModel):
            network: nn.Module = inner.network
        elif type(inner) is WrappedModule:
            network = inner.module
        else:
            return None
        return network if isinstance(network, ScoreNetwork) else None

    def _arithmetic(self, x: torch.Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16")
