"""Weight files are untrusted: safetensors, or `torch.load(weights_only=True)`; nothing that runs code."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import nn

from iqa_robust.errors import CheckpointError

TORCH = (b"PK\x03\x04", b"\x80")
"""How files of `torch.save` begin: the zip archives, and the pickles of older versions."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors (float32), the configuration stored with them, and where they came from."""

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]
    source: str
    sha256: str


def resolve(weights: str, published: dict[str, str], folder: Path) -> Path:
    """The file behind `weights`: a published name (a file in `folder`) or a path.

    Raises:
        CheckpointError: it is neither.
    """
    if weights in published:
        return folder / published[weights]
    path = Path(weights).expanduser()
    if path.is_dir():
        raise CheckpointError(f"weights {weights!r}: expected a file, got a folder; give a weight file in it.")
    if not path.is_file():
        names = ", ".join(sorted(published)) or "none"
        raise CheckpointError(
            f"weights {weights!r}: no such file, and no published set of that name (there are: {names})."
        )
    return path


def load(path: Path) -> Checkpoint:
    """Read a checkpoint without running any code it may hold.

    Raises:
        CheckpointError: the file is missing, broken, or a pickle that needs more than tensors.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    config: Any = {}
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
                header = (file.metadata() or {}).get("config", "{}")
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"{path}: not a safetensors file ({error}).") from error
        try:
            config = json.loads(header)
        except ValueError as error:
            raise CheckpointError(f"{path}: `config` in its header is not JSON ({error}); save it again.") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{path}: expected `config` in its header to be a JSON object; save it again.")
    elif not content.startswith(TORCH):
        raise CheckpointError(
            f"{path}: expected a safetensors file (named *.safetensors) or one of torch.save,"
            f" got {'something else' if content else 'an empty file'}; give a weight file."
        )
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickle protocols; what matters is an error
                tensors = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise CheckpointError(
                f"{path}: refused, because loading it could run code stored in it;"
                " ask its author for a safetensors file or a plain state dict."
            ) from error
        except Exception as error:  # a broken file fails in many ways inside torch
            raise CheckpointError(f"{path}: not a checkpoint that torch can read ({type(error).__name__}).") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path}: expected a flat state dict (name -> tensor), got something else.")
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    return Checkpoint(tensors, config, str(path), hashlib.sha256(content).hexdigest())


def load_into(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the tensors into `module`, strictly.

    Raises:
        CheckpointError: names or shapes differ; the sentence gives the first difference.
    """
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(checkpoint.tensors))
    extra = sorted(set(checkpoint.tensors) - set(wanted))
    if missing or extra:
        what = f"misses {missing[0]!r}" if missing else f"holds {extra[0]!r}, which the network does not have"
        raise CheckpointError(f"{checkpoint.source}: made for another network: it {what}.")
    for key, value in wanted.items():
        if value.shape != checkpoint.tensors[key].shape:
            raise CheckpointError(
                f"{checkpoint.source}: made for another network: {key!r} has shape"
                f" {tuple(checkpoint.tensors[key].shape)}, expected {tuple(value.shape)}."
            )
    module.load_state_dict(checkpoint.tensors, assign=True)  # also fills a module laid out without memory


def save(path: Path, module: nn.Module, config: dict[str, Any], *, half: bool = True) -> None:
    """Write the state of `module` as safetensors with `config` in the header: whole or not at all."""
    tensors = {
        key: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in module.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # written here, not by safetensors, whose files only their owner can read
        temporary.write_bytes(serialize(tensors, metadata={"config": json.dumps(config, sort_keys=True)}))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
