"""A twin of a model made for the attack loop: frozen, batch norm folded, channels-last, in bfloat16 or float32."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.models.layers import fold_batch_norms, round_layers

PRECISIONS = ("fp32", "bf16")


def prepare(model: IQAModel, precision: str, x: torch.Tensor, ref: torch.Tensor | None = None) -> IQAModel:
    """A twin of `model` that is cheaper to differentiate and to query: for a search, whose finds `model` then scores.

    Networks inside are copied, the model is not edited; whatever is wrapped around them (a purifier, a smoothing) is
    shared and computes in float32 as before. With `bf16`, scores are rounded: by some thousandths of the score range.

    Args:
        model: any model, defended or not.
        precision: `"fp32"` or `"bf16"`.
        x: an example, (1, 3, H, W) in [0, 1] on the model's device; a few scores of it are taken to see what the layers
            do. `ref` is its reference, for full-reference models.

    Raises:
        ContractError: the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ContractError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}.")
    with torch.no_grad():
        twin = _twin(model, precision, _examples(model, x, ref))
    assert isinstance(twin, IQAModel)  # a twin is of the kind of what it is the twin of
    return twin


class PreparedModel(IQAModel):
    """A model without other models inside, ready for the attack loop; see `prepare`."""

    def __init__(self, model: IQAModel, precision: str) -> None:
        """`model` has the layers of the precision already; this sets the arithmetic between them."""
        super().__init__()
        self.model = model
        self.info = model.info
        self.precision = precision
        self.training = False

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,), float32."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.model(x.contiguous(memory_format=torch.channels_last), ref).float()


Example = tuple[torch.Tensor, torch.Tensor | None]


def _leaves(model: IQAModel) -> Iterator[IQAModel]:
    """The models without other models inside."""
    for module in model.modules():
        if isinstance(module, IQAModel):
            below = list(module.modules())[1:]
            if not any(isinstance(other, IQAModel) for other in below):
                yield module


def _examples(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> dict[nn.Module, Example]:
    """What each leaf is called with when `model` scores `x`: a defense may change the image and its size."""
    seen: dict[nn.Module, Example] = {}

    def note(leaf: nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        other = named.get("ref", given[1] if len(given) > 1 else None)
        seen.setdefault(leaf, (given[0][:1].clone(), None if other is None else other[:1].clone()))

    hooks = [leaf.register_forward_pre_hook(note, with_kwargs=True) for leaf in _leaves(model)]
    try:
        model(x.clone(), None if ref is None else ref.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _twin(module: nn.Module, precision: str, examples: dict[nn.Module, Example]) -> nn.Module:
    """`module` with its leaves prepared. Modules on the way to a leaf are shallow copies, the others are shared."""
    if isinstance(module, IQAModel) and module in examples:
        made = copy.deepcopy(module).eval().requires_grad_(False)
        made = fold_batch_norms(made, *examples[module]).to(memory_format=torch.channels_last)
        if precision == "bf16":
            round_layers(made, *examples[module])
        return PreparedModel(made, precision)
    if not any(below in examples for below in module.modules()):
        return module
    twin = copy.copy(module)
    twin.__dict__["_modules"] = {
        name: None if child is None else _twin(child, precision, examples) for name, child in module._modules.items()
    }
    return twin
