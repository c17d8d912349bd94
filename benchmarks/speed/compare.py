"""The speed comparison: `python benchmarks/speed/compare.py`. One line per network, attack and contender.

- seconds: of the fastest run on a batch; contenders take turns, with the same images, eps, steps and threads;
- ratio: to ours, so how many times as long it takes; the second one in the processor's time, for a busy machine;
- as strong: ours with the fewest tenths of its steps or queries that reach the largest shift of the libraries;
- shift: mean shift of the score, judged alike for all: fp32, 8-bit grid, inside the ball;
- memory: what the attack adds, at its peak, to a process with the network, the images and the library.

Libraries attack a classifier of two classes whose loss has the slope of the score (`task.TwoLogits`), in fp32. FGSM and
PGD start at the clean image, APGD at a draw from the ball and Square at drawn stripes, whoever runs them. Foolbox is no
dependency of this package; the extra `speed` has it.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from cell import some
from contenders import CONTENDERS, those_for
from measure import Line, lines, peak_memory
from networks import NETWORKS, network, pictures
from overhead import overhead, sentence
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from task import ATTACKS, Task

from iqa_robust.harness.environment import keep_freed_memory
from iqa_robust.harness.precision import Precision, decide

COLUMNS = ("network", "attack", "contender", "images", "seconds", "ratio", "CPU ratio", "shift", "memory, MiB")
OVERHEAD_REPEATS = 2
SQUARE_REPEATS = 1
"""A run of a query attack is long enough to stand for itself."""
MEMORY_STEPS, MEMORY_QUERIES = 2, 20
"""What an attack may spend while its memory is measured: more takes time, not memory."""
QUERIES, QUICK_QUERIES = 1000, 100


def machine() -> str:
    """Processor, threads and versions."""
    info = Path("/proc/cpuinfo")
    known = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in known if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    versions = dict.fromkeys(who.version for who in CONTENDERS.values() if who.installed)
    return (
        f"{processor} ({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} threads,"
        f" Python {platform.python_version()}, torch {torch.__version__}, {', '.join(versions)}"
    )


def cells(line: Line) -> tuple[str, ...]:
    """A line of the table as text, in the order of `COLUMNS`; what is not known is empty."""
    ratios = (f"{line.ratio:.2f}", f"{line.cpu_ratio:.2f}")
    numbers = (f"{line.seconds:.3f}", *ratios, f"{line.shift:.2f}", f"{line.memory_mb:.0f}")
    known = ("" if text == "nan" else text for text in numbers)
    return (line.network, line.attack, line.contender, str(line.images), *known)


@dataclass
class Findings:
    """What a comparison has found so far."""

    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The table, with the notes above it."""
        rows = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, self.lines)]
        return "\n".join([*(f"{note}\n" for note in self.notes), *("| " + " | ".join(row) + " |" for row in rows), ""])

    def write(self, folder: Path) -> None:
        """`speed.csv` and `speed.md`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "speed.md").write_text(self.markdown())
        with (folder / "speed.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *map(cells, self.lines)])

    def print(self, console: Console) -> None:
        """The same for a person."""
        table = Table(*COLUMNS)
        for line in self.lines:
            table.add_row(*cells(line))
        console.print(table)
        for note in self.notes:
            console.print(note, highlight=False, markup=False, soft_wrap=True)


def compare(given: argparse.Namespace, advance: Callable[[str], None]) -> Iterator[Findings]:
    """What has been found after every attack and every cell; `advance` is told of every step."""
    found = Findings(notes=[machine()])
    for name in given.models:
        model, x = network(name, given.side), pictures(given.images, given.side)
        advance(f"{name}: precision")
        precision = decide(model, some(x))
        found.notes.append(f"{name}: {precision.summary}")
        for attack in given.attacks:
            task = _task(given, attack, precision)
            memory = {} if given.quick else _memory(given, name, task, len(x), advance)
            repeats = SQUARE_REPEATS if attack == "square" else given.repeats
            found.lines += lines(name, model, x, task, repeats, memory, partial(advance, f"{name}, {task.title}"))
            yield found
        if given.overhead_images:
            advance(f"{name}: harness overhead")
            many = pictures(given.overhead_images, given.side)
            found.notes.append(f"{name}: {sentence(overhead(model, many, precision, given.steps, OVERHEAD_REPEATS))}")
            yield found


def _task(given: argparse.Namespace, attack: str, precision: Precision) -> Task:
    queries = given.queries or (QUICK_QUERIES if given.quick else QUERIES)
    arithmetic = precision.queries if attack == "square" else precision.gradients
    return Task(attack, given.eps_255, given.steps, queries, arithmetic)


def _memory(
    given: argparse.Namespace, name: str, task: Task, images: int, advance: Callable[[str], None]
) -> dict[str, float]:
    found, small = {}, dataclasses.replace(task, steps=MEMORY_STEPS, queries=MEMORY_QUERIES)
    for contender in those_for(task.attack):
        advance(f"{name}, {task.title}: memory of {contender}")
        found[contender] = peak_memory(contender, name, small, images, given.side, torch.get_num_threads())
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; with `--out`, keep it as speed.csv and speed.md, too, as far as it has come."""
    given = parser().parse_args(arguments)
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # for all contenders alike
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as progress:
        bar = progress.add_task("", total=None)
        for found in compare(given, lambda text: progress.update(bar, description=text)):
            if given.out is not None:
                found.write(given.out)
    found.print(Console() if sys.stdout.isatty() else Console(width=160))


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        description="Compares the speed of attacks with torchattacks, ART and Foolbox (the extra `speed`)."
    )
    made.add_argument("--models", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS))
    made.add_argument("--attacks", nargs="+", choices=tuple(ATTACKS), default=list(ATTACKS))
    made.add_argument("--quick", action="store_true", help="Square with 100 queries instead of 1000; no memory")
    made.add_argument("--images", type=int, default=8, help="images in the batch; %(default)s")
    made.add_argument("--side", type=int, default=224, help="pixels; %(default)s")
    made.add_argument("--eps-255", type=float, default=4.0, help="%(default)s")
    made.add_argument("--steps", type=int, default=10, help="of PGD and APGD; %(default)s")
    made.add_argument("--queries", type=int, help="of Square")
    made.add_argument("--repeats", type=int, default=3, help="the fastest counts; %(default)s, 1 of Square")
    made.add_argument("--overhead-images", type=int, default=64, help="of the cell for the harness overhead; 0: none")
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="%(default)s")
    made.add_argument("--out", type=Path, help="folder for speed.csv and speed.md")
    return made


if __name__ == "__main__":
    main()
