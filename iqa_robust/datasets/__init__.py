"""Datasets: `names()`, `get(name)`, `create(name, **params)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_robust.registry import Registry

if TYPE_CHECKING:
    from iqa_robust.datasets.base import Dataset

registry: Registry[Dataset] = Registry(
    "dataset",
    base="iqa_robust.datasets.base:Dataset",
    builtins={
        "biq2021": "iqa_robust.datasets.biq2021:BIQ2021",
        "clive": "iqa_robust.datasets.clive:CLIVE",
        "csiq": "iqa_robust.datasets.csiq:CSIQ",
        "csv": "iqa_robust.datasets.csv_table:CsvTable",
        "kadid10k": "iqa_robust.datasets.kadid10k:KADID10k",
        "koniq10k": "iqa_robust.datasets.koniq10k:KonIQ10k",
        "live": "iqa_robust.datasets.live:LIVE",
        "photos": "iqa_robust.datasets.photos:Photos",
        "spaq": "iqa_robust.datasets.spaq:SPAQ",
        "tid2013": "iqa_robust.datasets.tid2013:TID2013",
    },
)
names, get, create = registry.names, registry.get, registry.create
