"""A GPU that is not there, for machines without one: what would meet two devices on a real one fails here, too.

Tensors say that they are on `cuda:0` and hold their numbers on the CPU. An operation on tensors of two devices raises,
as does NumPy's look at one, a generator of another device, or an operator that CUDA has not. Everything else gives the
CPU's numbers, so a result can be compared with one that was found without. What it cannot show: the kernels of a GPU,
their rounding, their speed and their memory; autocast, which does nothing there; and other threads, which have no GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda:0")
MEMORY = 2**34
"""Bytes that it says are free."""

_aten = torch.ops.aten
_BETWEEN_DEVICES = {_aten.copy_.default, _aten._to_copy.default}
_STRICT = {_aten.cat.default, _aten.stack.default, _aten.index_select.default, _aten.embedding.default}
"""Refuse a single number of the CPU, too; others take it along."""
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
        made.held = held.resolve_conj().resolve_neg()  # what is only marked would be lost
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

    @property  # type: ignore[override]
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.to(GPU).held  # type: ignore[attr-defined]

    def get_device(self) -> int:
        return 0

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(f"can't convert {GPU} device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.ndim == 0 else self.held, spec)

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
            if isinstance(self, nn.Parameter):
                copied = nn.Parameter(copied)
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
    if isinstance(where, list | range):
        return torch.tensor(_as_numbers(where), dtype=None if where else torch.int64)
    return torch.from_numpy(where) if isinstance(where, np.ndarray) else where


def _as_numbers(data: Any) -> Any:
    """Lists, with the numbers of tensors in place of these."""
    if isinstance(data, list | tuple | range):
        return [_as_numbers(part) for part in data]
    return data.tolist() if isinstance(data, _OnGPU) else data


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on the numbers; its results are on the GPU where a GPU would have made them."""
    tensors = [value for value in pytree.arg_tree_leaves(*args, **kwargs) if isinstance(value, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, _OnGPU)]
    others = [tensor for tensor in tensors if not isinstance(tensor, _OnGPU)]
    assert not (ours and any(tensor.is_meta for tensor in others)), f"{func}: numbers that torch made for it are lost"
    on_gpu = bool(ours)
    if func in _BETWEEN_DEVICES or func in _BY_INDICES:
        on_gpu = isinstance(args[0], _OnGPU)
    if ours and _two_devices(func, args, others, on_gpu=on_gpu):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, found {GPU} and cpu")
    if kwargs.get("device") is not None:
        on_gpu = torch.device(kwargs["device"]).type != "cpu"
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if on_gpu and func.namespace.startswith("mkl"):
        raise RuntimeError(f"{func}: there is no such operator on {GPU}")
    drawn_from = kwargs.get("generator")
    if drawn_from is not None and (drawn_from._cdata in _Generator.on_gpu) != on_gpu:
        raise RuntimeError(f"{func}: expected a generator of {GPU if on_gpu else 'the CPU'}, got one of another device")
    bare = pytree.tree_map_only(_OnGPU, lambda tensor: tensor.held, (args, kwargs))
    found = func(*bare[0], **bare[1])
    if not on_gpu or func is _aten._local_scalar_dense.default:
        return found
    if torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(*args, **kwargs)  # what C++ believes of its shape
    edited = {id(tensor.held): tensor for tensor in ours}  # what works in place returns what it was given

    def placed(made: torch.Tensor) -> torch.Tensor:
        given = edited.get(id(made))
        if given is not None and given.shape != made.shape:
            raise RuntimeError(f"{func}: a pretended GPU cannot resize what it is given")
        return _OnGPU(made) if given is None else given

    return pytree.tree_map_only(torch.Tensor, placed, found)


def _two_devices(func: Any, args: Any, others: list[torch.Tensor], *, on_gpu: bool) -> bool:
    """Whether CUDA would refuse an operation with tensors of the GPU, and these others."""
    if func in _BETWEEN_DEVICES:
        return False
    if func in _BY_INDICES:
        foreign = not on_gpu and any(isinstance(index, _OnGPU) for index in pytree.tree_leaves(args[1]))
        return foreign or (func in _PUT and args[2].ndim > 0 and args[2].is_cuda != on_gpu)
    arguments = zip(func._schema.arguments, args, strict=False)  # those with defaults may be left out
    written = [given for said, given in arguments if said.alias_info is not None and said.alias_info.is_write]
    if any(given is tensor for given in written for tensor in others):
        return True
    return any(tensor.ndim > 0 or func in _STRICT for tensor in others)


class _Everywhere(TorchDispatchMode):
    """Sees what is made on the GPU from nothing, too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Named(TorchFunctionMode):
    """Names of the GPU for which torch would ask the driver, and lists for which it would look into tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        if func is torch.Tensor.cuda:
            return args[0].to(GPU)
        if func is torch.Tensor.to and len(args) > 1 and type(args[1]) is int:
            args = (args[0], GPU, *args[2:])
        if func in (torch.tensor, torch.as_tensor) and isinstance(args[0], list | tuple):
            args = (_as_numbers(args[0]), *args[1:])
        args, kwargs = pytree.tree_map_only((torch.device, str), _numbered, (args, kwargs))
        if type(kwargs.get("device")) is int:
            kwargs["device"] = GPU
        return func(*args, **kwargs)


def _numbered(device: torch.device | str) -> torch.device | str:
    return GPU if device in ("cuda", torch.device("cuda")) else device


class _Generator(torch.Generator):
    """One that says where it draws. What C++ passes on is another object around the same generator."""

    device = torch.device("cpu")
    on_gpu: ClassVar[set[int]] = set()

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls)
        if torch.device(device).type == "cuda":
            made.device = GPU
            cls.on_gpu.add(made._cdata)  # type: ignore[attr-defined]
        return made

    def __del__(self) -> None:
        self.on_gpu.discard(self._cdata)  # type: ignore[attr-defined]


def _loading(load: Any) -> Any:
    """`torch.load` that brings what it reads to the GPU where it is told to."""

    def load_there(file: Any, map_location: Any = None, **more: Any) -> Any:
        on_gpu = isinstance(map_location, torch.device | str) and torch.device(map_location).type == "cuda"
        found = load(file, map_location="cpu" if on_gpu else map_location, **more)
        return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(GPU), found) if on_gpu else found

    return load_there


def _moving(apply: Any) -> Any:
    """`Module._apply`, which `to` calls, that leaves parameters the same objects, as it does for a real GPU."""

    def apply_swapping(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            moved: nn.Module = apply(module, *args, **kwargs)
            return moved
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)

    return apply_swapping


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
    if torch.cuda.is_available():
        torch.cuda.init()  # C++ will believe that it was done
    said: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "device": contextlib.nullcontext,
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
    lifted = torch._C._only_lift_cpu_tensors()
    with contextlib.ExitStack() as stack:
        for name, answer in said.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        if hasattr(torch, "accelerator"):  # which optimizers ask whether they are recorded into a graph
            stack.enter_context(mock.patch.object(torch.accelerator, "is_available", lambda: False))
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        stack.enter_context(mock.patch.object(torch, "load", _loading(torch.load)))
        stack.enter_context(mock.patch.object(nn.Module, "_apply", _moving(nn.Module._apply)))
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        torch._C._set_only_lift_cpu_tensors(True)
        stack.enter_context(_Everywhere())
        stack.enter_context(_Named())
        yield GPU
