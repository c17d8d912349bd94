"""`a+b`: one defense behind another, in the stated order."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, Signature
from typing import Any, ClassVar

import torch

from iqa_robust.defenses.base import Defense, DifferentiablePurifier, Purifier
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import draws, seeded


class Composed(Defense):
    """Defenses around each other: the first is the outermost, so the image meets it first.

    Randomized where a part is. Subclasses are made by `composed`, which names the parts.
    """

    name: ClassVar[str]
    """The names of the parts, joined."""
    parts: ClassVar[Mapping[str, type[Defense]]]
    """The class of each part by the parameter that configures it, in order."""

    def __init__(self, **params: Mapping[str, Any]) -> None:
        """`params`: for each part its parameters, by name; those left out take their defaults."""
        bound = type(self).__signature__.bind(**params)  # type: ignore[attr-defined]
        bound.apply_defaults()
        vars(self).update(bound.arguments)
        self._parts = [cls(**bound.arguments[parameter]) for parameter, cls in self.parts.items()]

    def wrap(self, model: IQAModel) -> IQAModel:
        """The model behind all parts. Raises `ContractError` where one of them does."""
        for part in reversed(self._parts):
            model = part.wrap(model)
        return model


class ComposedPurifier(Composed, Purifier):
    """Purifiers one after the other.

    Gradient: each part's own, or its surrogate's, at the image that the parts before it really give, and under the
    draw it was scored with.
    """

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) through all parts."""
        for part in self._parts:
            with seeded(_seeds(x)):
                x = part.purify(x)  # type: ignore[attr-defined]
        return x

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        """The value of `purify`, with the slope of the parts' surrogates."""
        for part in self._parts:
            seeds = _seeds(x)
            with seeded(seeds):
                slope = part.surrogate(x)  # type: ignore[attr-defined]
            if isinstance(part, DifferentiablePurifier):
                x = slope
                continue
            with torch.no_grad(), seeded(seeds):
                exact = part.purify(x)  # type: ignore[attr-defined]
            x = slope + (exact - slope).detach()
        return x


def composed(
    name: str, parts: Mapping[str, type[Defense]], defaults: Mapping[str, Mapping[str, Any]]
) -> type[Composed]:
    """The class of a composition: a purifier where every part is one.

    Args:
        name: of the composition.
        parts: the class of each part, by the parameter that configures it, in order.
        defaults: the default of each such parameter.
    """
    purifiers = [cls for cls in parts.values() if issubclass(cls, Purifier)]
    base = ComposedPurifier if len(purifiers) == len(parts) else Composed
    attributes: dict[str, Any] = {
        "__doc__": f"`{name}`: {', then '.join(cls.__name__ for cls in parts.values())}.",
        "__module__": __name__,
        "__signature__": Signature(
            [Parameter(word, Parameter.KEYWORD_ONLY, default=dict(defaults[word])) for word in parts]
        ),
        "name": name,
        "parts": parts,
        "source": "; ".join(dict.fromkeys(cls.source for cls in parts.values() if cls.source)),
        "check_params": {word: dict(cls.check_params) for word, cls in parts.items() if cls.check_params},
        "deterministic": all(cls.deterministic for cls in parts.values()),
    }
    if base is ComposedPurifier:
        attributes["keeps_geometry"] = all(cls.keeps_geometry for cls in purifiers)
    return type(name, (base,), attributes)


def _seeds(x: torch.Tensor) -> list[int]:
    return [int(seed) for seed in draws(x.shape[0]).integers(0, 2**62)]
