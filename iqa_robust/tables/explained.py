"""What gated models look at: channels by importance, how their order moves under attack, and maps as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from iqa_robust.measures import plcc_raw, srocc
from iqa_robust.records import IMAGE_STATES, MAP_KINDS, Explanations, RunRecord
from iqa_robust.tables.maps import levels, map_uri, picture_size, picture_uri
from iqa_robust.tables.page import Line, Section

TOP = 5
"""Channels that are shown per gate."""

CHANNEL = ["layer", "channel"]


@dataclass(frozen=True)
class Frame:
    """A map of one image in one state, to be laid over its picture."""

    state: str
    title: str
    overlay: str
    """The map as a data URI."""


@dataclass(frozen=True)
class Layer:
    """One gate at one image."""

    name: str
    frames: tuple[Frame, ...]
    channels: dict[str, str]
    """The most causal channels by state, as text."""


@dataclass(frozen=True)
class ExplainedImage:
    """One image, clean and attacked."""

    image_id: str
    pictures: dict[str, str]
    """By state, as data URIs."""
    ratio: str
    """Width / height."""
    scores: dict[str, float]
    """By state, of the system that is explained."""
    layers: tuple[Layer, ...]
    """The gate next to the score first."""


@dataclass(frozen=True)
class System:
    """A model, defended or not, that explains itself."""

    model: str
    defense: str
    line: Line
    """Of the attack whose images are shown: the one that moves scores furthest."""
    channels: list[dict[str, Any]]
    """Rows of `top_channels` under that attack."""
    moves: list[tuple[Line, list[dict[str, Any]]]]
    """Rows of `movements` under every attack."""
    images: list[ExplainedImage]


def explained(section: Section) -> list[System]:
    """The systems of a section that have explanations, in the order of the board.

    Raises:
        RecordError: a map cannot be decoded.
    """
    lines: dict[tuple[str, str], list[Line]] = {}
    for line in section.lines:
        if _record(line) is not None:
            lines.setdefault((line.values["model"], line.values["defense"]), []).append(line)
    return [_system(*names, own) for names, own in lines.items()]


def explanation_notes(section: Section) -> list[tuple[str, str]]:
    """Cells that could not be explained, and why."""
    return [
        (
            f"{line.values['model']}, {line.values['defense']}, {line.attack} at {line.budget}",
            str(record.facts["explanation_note"]),
        )
        for line in section.lines
        for record in line.cell
        if record.facts.get("explanation_note")
    ]


def top_channels(found: Explanations, top: int = TOP) -> list[dict[str, Any]]:
    """The channels of each gate with the highest mean importance on clean images, most important first.

    Keys: `layer`, `channel`, the means over images of `weight`, `importance` and `rank` with `_clean` and `_attacked`,
    `moved` (mean of |rank attacked - rank clean|), and `of`, the number of channels of the gate.
    """
    both = _paired(found)
    both["moved"] = (both["rank_attacked"] - both["rank_clean"]).abs()
    rows: list[dict[str, Any]] = []
    for layer, own in both.drop(columns="image_id").groupby("layer", sort=False):
        means = own.groupby("channel", as_index=False).mean(numeric_only=True)
        best = means.sort_values("importance_clean", ascending=False, kind="stable").head(top)
        for values in best.to_dict("records"):
            numbers = {str(name): value for name, value in values.items()}
            rows.append({**numbers, "layer": layer, "channel": int(values["channel"]), "of": len(means)})
    return rows


def movements(found: Explanations) -> list[dict[str, Any]]:
    """How the order of the channels and the causal map of each gate move from clean to attacked: means over images.

    Keys: `layer`, `channels` (their number), `correlation` (Spearman's, of importance), `moved` (mean of |rank attacked
    - rank clean|, as a share of the channels), `map_correlation` (Pearson's, of the causal maps; NaN where undefined).
    """
    rows = []
    both = _paired(found)
    for layer, own in both.groupby("layer", sort=False):
        by_image = [image for _, image in own.groupby("image_id", sort=False)]
        count = max(len(image) for image in by_image)
        rows.append(
            {
                "layer": layer,
                "channels": count,
                "correlation": _mean([srocc(i["importance_clean"], i["importance_attacked"]) for i in by_image]),
                "moved": _mean([float((i["rank_attacked"] - i["rank_clean"]).abs().mean()) / count for i in by_image]),
                "map_correlation": _mean(_map_correlations(found.maps[found.maps["layer"] == layer])),
            }
        )
    return rows


def _system(model: str, defense: str, lines: Sequence[Line]) -> System:
    shown = max(lines, key=lambda line: np.nan_to_num(line.values["shift_abs_mean"], nan=-1.0))
    found = {id(line): _explanations(line) for line in lines}
    return System(
        model=model,
        defense=defense,
        line=shown,
        channels=top_channels(found[id(shown)]),
        moves=[(line, movements(found[id(line)])) for line in lines],
        images=_images(found[id(shown)]),
    )


def _images(found: Explanations) -> list[ExplainedImage]:
    shots = {(row.image_id, row.state): row for row in found.pictures.itertuples()}
    layers = list(dict.fromkeys(found.channels["layer"]))[::-1]
    images = []
    for image_id in dict.fromkeys(found.pictures["image_id"]):
        own = {state: shots[image_id, state] for state in IMAGE_STATES if (image_id, state) in shots}
        if len(own) < len(IMAGE_STATES):
            continue
        width, height = picture_size(own[IMAGE_STATES[0]].picture)
        images.append(
            ExplainedImage(
                image_id=image_id,
                pictures={state: picture_uri(shot.picture) for state, shot in own.items()},
                ratio=f"{width} / {height}",
                scores={state: float(shot.score) for state, shot in own.items()},
                layers=tuple(_layer(found, image_id, layer) for layer in layers),
            )
        )
    return images


def _layer(found: Explanations, image_id: str, layer: str) -> Layer:
    maps = found.maps[(found.maps["image_id"] == image_id) & (found.maps["layer"] == layer)]
    frames = []
    for kind in MAP_KINDS:
        own = maps[maps["kind"] == kind]
        # clean and attacked share one scale, or their colors could not be compared
        scale = float(own["peak"].max()) if len(own) else 0.0
        frames += [
            Frame(row.state, f"{kind}, {row.state}", map_uri(row.map, kind, row.peak / scale if scale > 0 else 0.0))
            for row in own.itertuples()
        ]
    return Layer(layer, tuple(frames), _best(found.channels, image_id, layer))


def _best(channels: pd.DataFrame, image_id: str, layer: str) -> dict[str, str]:
    own = channels[(channels["image_id"] == image_id) & (channels["layer"] == layer)]
    best = own[own["rank"] <= TOP].sort_values("rank")
    return {state: ", ".join(map(str, best[best["state"] == state]["channel"])) for state in IMAGE_STATES}


def _paired(found: Explanations) -> pd.DataFrame:
    """One row per image, gate and channel, with the values of both states."""
    clean, attacked = (
        found.channels[found.channels["state"] == state]
        .drop(columns="state")
        .astype(dict.fromkeys(("weight", "rank", "importance"), float))
        for state in IMAGE_STATES
    )
    return clean.merge(attacked, on=["image_id", *CHANNEL], suffixes=tuple(f"_{state}" for state in IMAGE_STATES))


def _map_correlations(maps: pd.DataFrame) -> list[float]:
    causal = maps[maps["kind"] == MAP_KINDS[0]]
    found = []
    for _, own in causal.groupby("image_id", sort=False):
        pair = [levels(content).ravel() for content in own["map"]]
        if len(pair) == 2 and pair[0].size == pair[1].size:
            found.append(plcc_raw(*pair))
    return found


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _record(line: Line) -> RunRecord | None:
    """The first seed's record with explanations."""
    return next((record for record in line.cell if record.explanations is not None), None)


def _explanations(line: Line) -> Explanations:
    record = _record(line)
    assert record is not None and record.explanations is not None  # lines without were left out
    return record.explanations
