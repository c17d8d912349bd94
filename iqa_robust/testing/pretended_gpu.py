"""A GPU that is not there, for machines without one: what would meet two devices on a real one fails here, too.

Tensors say that they are on `cuda:0` and hold their numbers on the CPU. An operation on tensors of two devices raises,
as does NumPy's look at one, a generator of another device, or an operator that CUDA has not. Everything else gives the
CPU's numbers, so a result can be compared with one that was found without. What it cannot show: the kernels of a GPU,
their rounding, their speed and their memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda:0")
MEMORY = 2**34
"""Bytes that it says are free."""

_aten = torch.ops.aten
_BETWEEN_DEVICES = {_aten.copy_.default, _aten._to_copy.default}
_PUT = {_aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
_BY_INDICES = {_aten.index.Tensor, *_PUT}
"""Their indices may be on the CPU."""


class _OnGPU(torch.Tensor):
    """A tensor that says it is on the GPU.

    What torch's own code makes beside it is asked for on the device `meta`, where C++ believes it is; see `_run`.
    """

    held: torch.Tensor
    """Its numbers."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> _OnGPU:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device("meta"),
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    device = GPU
    is_cuda = True
    is_cpu = False
    is_meta = False

    def get_device(self) -> int:
        return 0

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"can't convert {GPU} device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def new_tensor(  # type: ignore[override]
        self, data: Any, dtype: torch.dtype | None = None, device: Any = None, requires_grad: bool = False
    ) -> torch.Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or GPU, requires_grad=requires_grad)

    def __getitem__(self, where: Any) -> torch.Tensor:
        return super().__getitem__(_on_cpu(where))

    def __setitem__(self, where: Any, value: Any) -> None:
        value = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=self.dtype)
        super().__setitem__(_on_cpu(where), value)

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        if id(self) not in memo:
            copied: torch.Tensor = _OnGPU(self.held.clone())
            if isinstance(self, torch.nn.Parameter):
                copied = torch.nn.Parameter(copied)
            memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"_OnGPU({self.held!r})"


def _on_cpu(where: Any) -> Any:
    """Indices; lists and arrays as tensors, which C++ would make where it believes the indexed one is."""
    if isinstance(where, tuple):
        return tuple(map(_on_cpu, where))
    return torch.as_tensor(where) if isinstance(where, list | np.ndarray) else where


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on the numbers; its results are on the GPU where a GPU would have made them."""
    tensors = [value for value in pytree.arg_tree_leaves(*args, **kwargs) if isinstance(value, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, _OnGPU)]
    others = [tensor for tensor in tensors if not isinstance(tensor, _OnGPU)]
    assert not (ours and any(tensor.is_meta for tensor in others)), f"{func}: numbers that torch made for it are lost"
    on_gpu = bool(ours)
    mixed = bool(ours) and any(tensor.ndim > 0 for tensor in others)
    if func in _BETWEEN_DEVICES:
        on_gpu, mixed = isinstance(args[0], _OnGPU), False
    elif func in _BY_INDICES:
        on_gpu = isinstance(args[0], _OnGPU)
        mixed = (bool(ours) and not on_gpu) or (func in _PUT and args[2].ndim > 0 and args[2].is_cuda != on_gpu)
    if mixed:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, found {GPU} and cpu")
    if kwargs.get("device") is not None:
        on_gpu = torch.device(kwargs["device"]).type != "cpu"
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if on_gpu and func.namespace.startswith("mkl"):
        raise RuntimeError(f"{func}: there is no such operator on {GPU}")
    if on_gpu and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: expected a generator of {GPU}, got one of the CPU")
    bare = pytree.tree_map_only(_OnGPU, lambda tensor: tensor.held, (args, kwargs))
    found = func(*bare[0], **bare[1])
    if not on_gpu or func is _aten._local_scalar_dense.default:
        return found
    edited = {id(tensor.held): tensor for tensor in ours}  # what works in place returns what it was given
    return pytree.tree_map_only(
        torch.Tensor, lambda made: edited[id(made)] if id(made) in edited else _OnGPU(made), found
    )


class _Everywhere(TorchDispatchMode):
    """Sees what is made on the GPU from nothing, too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Numbered(TorchFunctionMode):
    """Gives `cuda` its number, for which torch would ask the driver."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        numbered = pytree.tree_map_only((torch.device, str), _numbered, (args, kwargs or {}))
        return func(*numbered[0], **numbered[1])


def _numbered(device: torch.device | str) -> torch.device | str:
    return GPU if device in ("cuda", torch.device("cuda")) else device


@contextlib.contextmanager
def some_gpu() -> Iterator[tuple[torch.device, str]]:
    """The machine's GPU, or one that is pretended; and which of the two, in words."""
    if torch.cuda.is_available():
        yield torch.device("cuda", torch.cuda.current_device()), f"on {torch.cuda.get_device_name()}"
        return
    with pretended_gpu() as device:
        yield device, "on a pretended GPU"


@contextlib.contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Inside, there is one GPU, `cuda:0`, for the thread that is here."""
    state = torch.zeros(1, dtype=torch.uint8)
    said: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "device": lambda device: contextlib.nullcontext(),
        "set_device": lambda device: None,
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (MEMORY, MEMORY),
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "get_device_name": lambda device=None: "a pretended GPU",
        "get_device_properties": lambda device=None: SimpleNamespace(name="a pretended GPU", total_memory=MEMORY),
        "get_device_capability": lambda device=None: (9, 0),
        "is_bf16_supported": lambda *args, **kwargs: True,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "is_current_stream_capturing": lambda: False,
        "get_rng_state": lambda device=None: state,
        "set_rng_state": lambda state, device=None: None,
    }
    overwritten = torch.__future__.get_overwrite_module_params_on_conversion()
    lifted = torch._C._only_lift_cpu_tensors()
    with contextlib.ExitStack() as stack:
        for name, answer in said.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        if hasattr(torch, "accelerator"):  # which optimizers ask whether they are recorded into a graph
            stack.enter_context(mock.patch.object(torch.accelerator, "is_available", lambda: False))
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwritten)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        torch._C._set_only_lift_cpu_tensors(True)
        stack.enter_context(_Everywhere())
        stack.enter_context(_Numbered())
        yield GPU
