"""How near PGD comes to what the device can do: `python benchmarks/speed/ceiling.py --model resnet50`.

- ceiling: the fastest of a few square matrix products in the precision of the search, which take turns with the rest;
- work: matrix products and convolutions of a forward and a backward pass to the image, a multiply-add counted as two
  operations, here as in the ceiling. It is the bare network's: what a prepared copy does beyond it does not count;
- rates: of the fastest run, of passes that the search makes. Scores in fp32 take time, but are no work.

Not measured: reading images, writing records (`overhead.py`), and the sums, ReLUs and pools of a network. A processor
that emulates bf16 has no ceiling there: its products in bf16 are slower than its convolutions, and take minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from cell import some
from compare import machine
from contenders import ALONE, CONTENDERS, FLOOR, OURS
from measure import alternate
from networks import NETWORKS, network, pictures
from task import Task
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from iqa_robust.errors import RequestError
from iqa_robust.harness.batching import images_at_once
from iqa_robust.harness.environment import keep_freed_memory, peak_memory_mb, pick_device, prepare_numerics
from iqa_robust.harness.precision import choose_precision
from iqa_robust.harness.system import Batch
from iqa_robust.models.base import IQAModel

SIDES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192, 16384)}
"""Of the matrices that are multiplied."""
IMAGES = 8
"""On a CPU."""
TIMED = (OURS, ALONE, FLOOR)


class Found(NamedTuple):
    """What was measured."""

    work: int
    """Operations of a forward and a backward pass of one image."""
    ceiling: float
    """Operations per second."""
    seconds: dict[str, float]
    """Of the attack, of its search and of bare passes, on all images."""
    memory_mb: float
    """Peak of the attack, the network included: of the GPU's memory, or of the process."""

    def table(self, images: int, steps: int) -> str:
        """A line for each that was timed."""
        columns = ("", "images per second", "gradients per second", "TFLOP/s", "share of the ceiling")
        rows = [columns, ("---",) * len(columns)]
        for name, seconds in self.seconds.items():
            rate = images / seconds
            done = rate * steps * self.work
            shown = (f"{rate:.2f}", f"{rate * steps:.1f}", f"{done / 1e12:.4g}", f"{100 * done / self.ceiling:.1f} %")
            rows.append((name, *shown))
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def measure(model: IQAModel, x: torch.Tensor, precision: str, steps: int, repeats: int) -> Found:
    """The attack, its search and bare passes on the images `x`, against matrix products."""
    device, task = x.device, Task("pgd", steps=steps, precision=precision)
    runs = {name: finished(partial(CONTENDERS[name].make(model, task, x), x), device) for name in TIMED}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    runs[OURS]()  # before there are matrices
    memory = peak_memory_mb(device)
    products = {str(side): finished(product(side, precision, device), device) for side in SIDES[device.type]}
    taken, _ = alternate({**runs, **products}, repeats)
    ceiling = max(2 * int(side) ** 3 / taken[side].wall for side in products)
    return Found(operations(model, x), ceiling, {name: taken[name].wall for name in runs}, memory)


def operations(model: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> int:
    """Of a forward and a backward pass of one image, by the shapes of what is multiplied; no slopes at weights."""
    leaf = x[:1].clone().requires_grad_(True)
    # Not all fused kernels of attention are counted, and some of those compute a part twice.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        torch.autograd.grad(model(leaf.clone()).sum(), leaf)  # the counter watches modules, and trips over a leaf
    return counter.get_total_flops()


def product(side: int, precision: str, device: torch.device) -> Callable[[], torch.Tensor]:
    """A product of random matrices: of zeros a GPU makes it with less power, and so faster."""
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    left, right = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    return lambda: left @ right


def finished(work: Callable[[], torch.Tensor], device: torch.device) -> Callable[[], torch.Tensor]:
    """The same, ended when the device is done: a GPU is only told what to do, and works on."""

    def run() -> torch.Tensor:
        made = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return made

    return run


def on_device(name: str, side: int, images: int | None, device: torch.device) -> tuple[IQAModel, torch.Tensor]:
    """The network and so many images, or as many as `iqa-robust run` would take at once."""
    model = network(name, side).to(device)
    count = images or images_at_once(model, some(pictures(1, side).to(device)), IMAGES)
    return model, pictures(count, side).to(device)


def common(parser: argparse.ArgumentParser, repeats: int) -> None:
    """The options of scripts that measure on a device."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--side", type=int, default=224, help="pixels; %(default)s")
    parser.add_argument("--repeats", type=int, default=repeats, help="the fastest counts; %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="%(default)s")


def begin(parser: argparse.ArgumentParser, given: argparse.Namespace) -> torch.device:
    """Set the process up as a worker of a run is, and name the device. Ends with status 2 where there is none."""
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    prepare_numerics()
    try:
        return pick_device(given.device)
    except RequestError as error:
        parser.error(str(error))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the device, the ceiling, the table and the memory."""
    parser = argparse.ArgumentParser(description="PGD's throughput, and its share of what the device can do.")
    parser.add_argument("--model", choices=tuple(NETWORKS), default="resnet50")
    parser.add_argument("--images", type=int, help=f"in the batch; {IMAGES} on a CPU, what fits on a GPU")
    parser.add_argument("--steps", type=int, default=10, help="%(default)s")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    common(parser, repeats=3)
    given = parser.parse_args(arguments)
    device = begin(parser, given)
    model, x = on_device(given.model, given.side, given.images, device)
    batch = Batch(tuple(map(str, range(len(x)))), (None,) * len(x), x, None, torch.zeros(len(x)))
    chosen = choose_precision(given.precision, model, batch)
    found = measure(model, x, chosen.gradients, given.steps, given.repeats)
    on_gpu = f"{torch.cuda.get_device_name(device)}; " if device.type == "cuda" else ""
    print(
        f"{on_gpu}{machine()}\n"
        f"{given.model}, PGD-{given.steps}, {len(x)} images of {given.side} x {given.side}: {chosen.summary}\n"
        f"ceiling: {found.ceiling / 1e12:.4g} TFLOP/s in {chosen.gradients}; a forward and a backward pass of an image:"
        f" {found.work / 1e9:.2f} GFLOP, a multiply-add counted as two\n\n"
        f"{found.table(len(x), given.steps)}\n\n"
        f"peak memory of {'the GPU' if on_gpu else 'the process'}: {found.memory_mb:.0f} MiB"
    )


if __name__ == "__main__":
    main()
