"""What is done when memory runs out."""

from __future__ import annotations

import gc

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; PyTorch reports it as a plain RuntimeError on a CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        said in text for said in ("can't allocate memory", "not enough memory", "out of memory")
    )


def release(device: torch.device) -> None:
    """Give back what a failed try left. To be called outside of its `except` block: the traceback holds its tensors."""
    gc.collect()  # a frame that holds its own error is a cycle
    if device.type == "cuda":
        torch.cuda.empty_cache()
