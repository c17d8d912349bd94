"""What `torch.compile` gains on gradients of a batch, and costs: `python benchmarks/speed/compiled.py`.

One line per network, precision and mode: gradients by the prepared copy as it is and compiled, in turn, on the same
images, by the clock; what compiling takes, and into how many graphs: where a network is in many pieces, the compiler
could not follow it and joins little; and after how many batches of gradients the cost is earned back. Nothing compiled
earlier is taken from disk, but what the first use of the compiler sets up is done before.

Not measured: a batch of another size, which is compiled anew, and an attack's own arithmetic on images.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from ceiling import IMAGES, begin, common, finished, on_device
from measure import alternate
from networks import NETWORKS
from torch._dynamo.utils import counters

from iqa_robust.models.base import IQAModel
from iqa_robust.models.prepared.twin import prepare

MODES = {"cpu": ("default",), "cuda": ("default", "reduce-overhead")}
"""`reduce-overhead` is CUDA graphs."""
SETTLING = 3
"""Calls that count as compiling: the first one compiles, the next two warm a CUDA graph up and record it."""
CELL_IMAGES, CELL_STEPS = 1000, 10

Model = Callable[[torch.Tensor], torch.Tensor]


class Line(NamedTuple):
    """Seconds of gradients of a batch, and of compiling."""

    title: str
    eager: float
    compiled: float
    cost: float
    graphs: int

    @property
    def batches(self) -> float:
        """After so many it is earned back; infinity where nothing is gained."""
        return self.cost / (self.eager - self.compiled) if self.compiled < self.eager else math.inf

    def __str__(self) -> str:
        after = "never earned back" if math.isinf(self.batches) else f"earned back after {self.batches:,.0f} batches"
        times = f"{1000 * self.eager:.1f} ms eager, {1000 * self.compiled:.1f} ms compiled"
        return f"{self.title}: {times}; compiling takes {self.cost:.1f} s ({self.graphs} graphs), {after}"


def gradient(model: Model, x: torch.Tensor) -> torch.Tensor:
    """Slopes of the scores at the images; a copy, since a CUDA graph writes its next ones over them."""
    leaf = x.clone().requires_grad_(True)
    return torch.autograd.grad(model(leaf).sum(), leaf)[0].clone()


def line(title: str, twin: IQAModel, x: torch.Tensor, mode: str, repeats: int) -> Line:
    """The line of a prepared copy. Raises what `torch.compile` raises, a `RuntimeError`."""
    torch.compiler.reset()
    models: dict[str, Model] = {"eager": twin, "compiled": torch.compile(twin, mode=mode)}
    runs = {name: finished(partial(gradient, model, x), x.device) for name, model in models.items()}
    runs["eager"]()  # a copy lays out weights at its first call
    graphs, start = counters["stats"]["unique_graphs"], time.perf_counter()
    for _ in range(SETTLING):
        runs["compiled"]()
    cost, graphs = time.perf_counter() - start, counters["stats"]["unique_graphs"] - graphs
    eager, compiled = (taken.wall for taken in alternate(runs, repeats)[0].values())
    return Line(title, eager, compiled, cost - SETTLING * compiled, graphs)


def set_up(device: torch.device) -> None:
    """Compile next to nothing. Raises `RuntimeError` where that cannot be done, such as without a C++ compiler."""
    leaf = torch.ones(8, device=device, requires_grad=True)
    torch.autograd.grad(torch.compile(lambda z: (z.sin() * z).sum())(leaf), leaf)


def decision(lines: Sequence[Line], images: int) -> str:
    """Whether it pays within a cell, in one sentence."""
    if not lines:
        return "Decision: not worth building, nothing could be compiled here."
    best = min(lines, key=lambda one: one.batches)
    if math.isinf(best.batches):
        return "Decision: not worth building, torch.compile gains nothing here."
    cell = math.ceil(CELL_IMAGES / images) * CELL_STEPS
    return (
        f"Decision: {'worth' if best.batches < cell else 'not worth'} building, at best compiling is earned back after"
        f" {best.batches:,.0f} batches of {images} images ({best.title}); a PGD-{CELL_STEPS} cell of {CELL_IMAGES:,}"
        f" images has {cell:,}."
    )


def reason(failure: RuntimeError) -> str:
    """What went wrong, without advice on how to debug torch."""
    return " ".join(str(failure).partition("\n\n")[0].split())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the lines and the decision."""
    parser = argparse.ArgumentParser(description="What torch.compile gains on gradients of a batch, and costs.")
    parser.add_argument("--models", nargs="+", choices=tuple(NETWORKS), default=["compact", "resnet18"])
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--images", type=int, default=IMAGES, help="in the batch; %(default)s")
    common(parser, repeats=20)
    given = parser.parse_args(arguments)
    device = begin(parser, given)
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:  # helpers of torch's may still write to it
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty
        try:
            set_up(device)
        except RuntimeError as failure:
            parser.exit(2, f"torch.compile does not work here, so nothing was measured: {reason(failure)}\n")
        for name in given.models:
            model, x = on_device(name, given.side, given.images, device)
            for precision in given.precisions:
                twin = prepare(model, precision, x[:1])
                for mode in MODES[device.type]:
                    title = f"{name}, {precision}, {mode}"
                    try:
                        lines.append(line(title, twin, x, mode, given.repeats))
                        print(lines[-1], flush=True)
                    except RuntimeError as failure:
                        print(f"{title}: {reason(failure)}", flush=True)
    print(decision(lines, given.images))


if __name__ == "__main__":
    main()
