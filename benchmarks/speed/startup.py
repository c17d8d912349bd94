"""What the command line costs before it does anything: `python benchmarks/speed/startup.py`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "list": ["-m", "iqa_robust", "list", "models"],
    "--help": ["-m", "iqa_robust", "--help"],
}


def startup(repeats: int) -> dict[str, float]:
    """Seconds of the fastest of `repeats` runs of each command; they take turns."""
    seconds = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per command."""
    parser = argparse.ArgumentParser(description="Start-up time of the command line over a bare interpreter.")
    parser.add_argument("--repeats", type=int, default=15)
    seconds = startup(parser.parse_args(arguments).repeats)
    bare = seconds["bare interpreter"]
    for name, value in seconds.items():
        print(f"{name}: {value:.3f} s" + ("" if value is bare else f", {value - bare:.3f} s more"))


if __name__ == "__main__":
    main()
