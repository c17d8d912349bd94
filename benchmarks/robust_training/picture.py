"""Attacked SROCC against the radius, one panel per database.

    python benchmarks/robust_training/picture.py --out DIR --to curves.svg [--methods a,b]

Every line is a method: SROCC of the test images under score reflection, the attack of the tracks that has every radius
(clean at 0), the mean over the seeds, with a band from the lowest to the highest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from databases import DATABASES
from results import records_of, systems

DRAWN = (
    "clean", "at", "trades", "correlation", "correlation-4", "nt", "cprl-a", "wide-sort-mask-correlation",
    "wide-sort-mask-correlation-4",
)  # fmt: skip
ATTACK = "score-reflection"


def main() -> None:
    """Draw and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--methods", default=",".join(DRAWN))
    given = parser.parse_args()
    found = {name: records_of(name, given.out) for name in DATABASES}
    tables = {
        name: systems([record for record in records if record.spec.attack.name == ATTACK])
        for name, records in found.items()
        if records
    }
    mpl.rcParams["svg.hashsalt"] = "robust_training"
    figure, axes = plt.subplots(1, len(tables), figsize=(3.2 * len(tables), 3.4), sharey=True, squeeze=False)
    for ax, (database, table) in zip(axes[0], tables.items(), strict=True):
        for number, method in enumerate(given.methods.split(",")):
            part = table[table["method"] == method]
            if part.empty:
                continue
            attacked = part.groupby("eps_255")["srocc_strongest"].agg(["mean", "min", "max"])
            clean = part[part["eps_255"] == part["eps_255"].min()]["srocc_clean"]
            eps = [0.0, *attacked.index]
            color = f"C{number}"
            ax.plot(eps, [clean.mean(), *attacked["mean"]], marker="o", ms=3, color=color, label=method)
            ax.fill_between(
                eps, [clean.min(), *attacked["min"]], [clean.max(), *attacked["max"]], color=color, alpha=0.15, lw=0
            )
        ax.set_title(database)
        ax.set_xlabel("radius, 1/255")
        ax.axhline(0, color="0.7", lw=0.8)
        ax.set_xticks([0, 1, 2, 4])
    axes[0][0].set_ylabel("SROCC under score reflection")
    labels = {label: line for ax in axes[0] for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels.keys(), loc="lower center", ncols=5, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(given.to, metadata={"Date": None})


if __name__ == "__main__":
    main()
