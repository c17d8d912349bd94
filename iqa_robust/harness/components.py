"""Components of a spec, made from the registries and back into objects."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from iqa_robust import attacks, datasets, defenses, models
from iqa_robust.attacks.base import Attack
from iqa_robust.datasets.base import Dataset
from iqa_robust.datasets.fetched import local_root
from iqa_robust.defenses.base import Defense
from iqa_robust.errors import IqaRobustError, PluginError
from iqa_robust.models.base import IQAModel, WrappedModel, WrappedModule, with_score_range
from iqa_robust.records import Component, Place
from iqa_robust.registry import Registry

T = TypeVar("T")


def describe(registry: Registry[T], name: str, params: Mapping[str, Any], label: str | None = None) -> Component:
    """A component with every default of the constructor filled in, and the distribution it comes from.

    Raises:
        UnknownNameError, PluginError: the name cannot be used.
        RequestError: the constructor does not take the parameters.
    """
    filled = registry.filled(name, params)
    entry = registry.entry(name)
    return Component(
        name=name, params=filled, label=label or "", distribution=entry.distribution, version=entry.version
    )


def describe_object(thing: object, registry: Registry[Any]) -> Component:
    """A component for an object that was handed over instead of named: its registry name where it has one."""
    name = registry.name_of(type(thing))
    if name is not None:
        entry = registry.entry(name)
        return Component(name=name, params=_stored(thing), distribution=entry.distribution, version=entry.version)
    return Component(name=_plain_name(thing), params=_stored(thing))


def _plain_name(thing: object) -> str:
    """The class of an object without a registry name; of a wrapped module, that of the module."""
    while isinstance(thing, (WrappedModule, WrappedModel)):
        thing = thing.module if isinstance(thing, WrappedModule) else thing.model
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def weights_digest(model: IQAModel) -> str:
    """SHA-256 of the weight file where the model names one, else of names and bytes of the model's tensors."""
    if model.info.weights_sha256 is not None:
        return model.info.weights_sha256
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _stored(thing: object) -> dict[str, Any]:
    """The constructor's parameters as the object stores them; only what is JSON."""
    stored = {}
    for key in inspect.signature(type(thing)).parameters:
        value = getattr(thing, key, None)
        try:
            json.dumps(value)
        except TypeError:
            continue
        stored[key] = value
    return stored


def make_dataset(component: Component, data_root: Place | None) -> Dataset:
    """The dataset, rooted below `data_root` where it needs files and states no root of its own."""
    cls = datasets.get(component.name)
    params = dict(component.params)
    if cls.folders and params.get("root") is None and data_root is not None:
        params["root"] = str(cls.locate(local_root(data_root, cls.folders)))
    return datasets.create(component.name, **params)


def make_model(component: Component, score_range: tuple[float, float] | None) -> IQAModel:
    """The model in evaluation mode, with the track's frozen scale where one is given."""
    model = models.create(component.name, **component.params).eval()
    return model if score_range is None else with_score_range(model, score_range).eval()


def make_defense(component: Component | None) -> Defense | None:
    """The defense, or None for the bare model."""
    return None if component is None else defenses.create(component.name, **component.params)


def behind(defense: Defense, model: IQAModel) -> IQAModel:
    """The model behind the defense.

    Raises:
        PluginError: `wrap` fails or returns something else; the sentence names whose defense it is.
        IqaRobustError: what `wrap` raises on purpose.
    """
    try:
        made = defense.wrap(model)
    except IqaRobustError:
        raise
    except Exception as error:  # a plugin may fail in any way
        raise PluginError(f"{_whose(defense)}: wrap failed: {type(error).__name__}: {error}.") from error
    if not isinstance(made, IQAModel):
        raise PluginError(f"{_whose(defense)}: expected wrap to return an IQAModel, got {type(made).__name__}.")
    return made


def _whose(defense: Defense) -> str:
    name = defenses.registry.name_of(type(defense))
    return f"defense {type(defense).__name__}" if name is None else f"defense {defenses.registry.entry(name).origin}"


def make_attack(component: Component) -> Attack:
    """The attack."""
    return attacks.create(component.name, **component.params)
