"""Machine-found reasons not to trust a row. Each flag is a function of stored numbers; docs/flags.md explains them.

`FLAGS` holds one function per flag, `(record, others) -> bool`, where `others` are the records of the same track.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from iqa_robust.measures.certificates import outside
from iqa_robust.measures.correlation import srocc
from iqa_robust.records import RunRecord

REPEAT_TOLERANCE = 1e-3
"""Share of the score scale by which two scores of one image may differ; fp32 rounding is a thousandth of it."""
ZERO_GRADIENT_SHARE = 0.05
"""Share of images whose every gradient may be exactly zero."""
OUT_OF_RANGE_SHARE = 0.01
"""Share of clean scores that may lie outside the declared range (attacked ones may: that is a finding)."""
MARGIN = 1.02
"""How much stronger the rival must be, as a ratio of mean effects, before a row is flagged: 2 %."""
COLLAPSED_SHARE = 0.1
"""Spread of the clean scores, as a share of their scale over the MOS' share of its own, below which a small shift
means nothing."""


def _scale(record: RunRecord) -> float:
    if record.spec.score_range is not None:
        return record.spec.score_range[1] - record.spec.score_range[0]
    clean = _finite_clean(record)
    spread = float(np.std(clean)) if len(clean) else 0.0
    return spread if spread > 0 else 1.0


def _own_clean(record: RunRecord) -> np.ndarray:
    """Clean scores of the row's own system: the defended model where there is a defense."""
    column = "score_clean" if record.spec.defense is None else "score_def_clean"
    return record.images[column].to_numpy(dtype=float)


def _finite_clean(record: RunRecord) -> np.ndarray:
    clean = _own_clean(record)
    return clean[np.isfinite(clean)]


def gains(record: RunRecord) -> pd.Series:
    """By image, how far the goal was served: the shift of the row's own system in the direction the goal asks for.

    For `target`, and for `reflect` with its mirror point, it is the distance to the aim that was gained. Native units;
    images without a finite score are left out.
    """
    clean = _own_clean(record)
    adv = record.images["score_adv"].to_numpy(dtype=float)
    both = np.isfinite(clean) & np.isfinite(adv)
    clean, adv, images = clean[both], adv[both], record.images["image_id"].to_numpy()[both]
    goal, better = record.spec.goal, 1 if record.facts["higher_is_better"] else -1
    if goal in ("up", "down"):
        return pd.Series((adv - clean) * (better if goal == "up" else -better), index=images)
    if goal == "away" or (goal == "reflect" and record.spec.score_range is None):
        return pd.Series(np.abs(adv - clean), index=images)
    aim = record.spec.target if goal == "target" else sum(record.spec.score_range or ()) - clean
    return pd.Series(np.abs(clean - aim) - np.abs(adv - aim), index=images)


IGNORED = frozenset({"attack", "eps", "steps", "queries", "eot", "knowledge"})
"""Respects in which records that are compared may differ; each flag names its own."""


def _respects(record: RunRecord) -> dict[str, object]:
    """In what two records can differ."""
    spec, budget = record.spec, record.spec.budget
    return {
        "dataset": (spec.manifest, spec.dataset.params.get("limit")),
        "model": (spec.model, spec.score_range),
        "defense": spec.defense,
        "attack": spec.attack,
        "goal": (spec.goal, spec.target),
        "norm": budget.norm,
        "eps": budget.eps_255,
        "steps": budget.steps,
        "queries": budget.queries,
        "eot": budget.eot,
        "knowledge": spec.knowledge,
        "seed": spec.seed,
    }


def _alike(record: RunRecord, others: Iterable[RunRecord], *ignoring: str) -> list[RunRecord]:
    """Records that differ from `record` only in the named respects."""
    mine = _respects(record)
    return [
        other
        for other in others
        if all(value == mine[name] for name, value in _respects(other).items() if name not in ignoring)
        and other.digest != record.digest
    ]


def _beaten(record: RunRecord, rivals: Iterable[RunRecord], margin: float = MARGIN) -> bool:
    """Whether a rival does more on the images that both have: the means of different images say nothing."""
    if not record.facts.get("maximizes", True):
        return False
    own = gains(record)
    for rival in rivals:
        mine, theirs = (part.mean() for part in own.align(gains(rival), join="inner"))
        if theirs > mine * margin and theirs > mine:
            return True
    return False


def score_not_repeatable(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """A model that declares itself deterministic gave one image two scores."""
    return record.probes.get("repeat_difference", 0.0) > REPEAT_TOLERANCE * _scale(record)


def batch_dependent(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """An image's score depends on the other images of its batch."""
    return record.probes.get("batch_difference", 0.0) > REPEAT_TOLERANCE * _scale(record)


def zero_gradient(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """For too many images the attacker's every gradient was exactly zero."""
    attacked = record.images["gradients"] > 0
    return bool(attacked.any()) and float(record.images["zero_gradient"][attacked].mean()) > ZERO_GRADIENT_SHARE


def not_finite(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """A score was NaN or infinite."""
    return bool((record.images["reason"] == NOT_FINITE).any())


NOT_FINITE = "score is not finite"
"""The reason a row carries when its scores are NaN or infinite."""


def out_of_declared_range(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """Clean scores leave the range the model declares or the track froze."""
    if record.spec.score_range is None:
        return False
    low, high = record.spec.score_range
    clean = _finite_clean(record)
    return bool(len(clean)) and float(np.mean((clean < low) | (clean > high))) > OUT_OF_RANGE_SHARE


def control_noise_wins(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """Random noise of the same size moves the score further than the attack."""
    if record.facts.get("control"):
        return False
    rivals = _alike(record, others, "attack", "knowledge", "steps", "queries", "eot")
    return _beaten(record, (rival for rival in rivals if rival.facts.get("control")), margin=1.0)


def black_box_wins(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """An attack without gradients beats this white-box one: its gradients mislead."""
    if record.facts.get("access") != "white" or record.spec.knowledge == "oblivious":
        return False
    rivals = _alike(record, others, "attack", "knowledge", "steps", "queries", "eot")
    return _beaten(record, (r for r in rivals if r.facts.get("access") == "black" and not r.facts.get("control")))


def oblivious_wins(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """Images made on the bare model beat those made on the defended one: the defense masks its gradient."""
    if record.spec.knowledge == "oblivious" or record.spec.defense is None:
        return False
    rivals = _alike(record, others, "knowledge")
    return _beaten(record, (rival for rival in rivals if rival.spec.knowledge == "oblivious"))


def larger_eps_weaker(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """The same attack does more with a smaller radius."""
    rivals = _alike(record, others, "eps")
    return _beaten(record, (r for r in rivals if r.spec.budget.eps_255 < record.spec.budget.eps_255))


def more_steps_weaker(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """The same attack does more with fewer steps."""
    rivals = _alike(record, others, "steps")
    return _beaten(record, (r for r in rivals if r.spec.budget.steps < record.spec.budget.steps))


def degenerate(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """The row's system gives every image the same score, clean or attacked: no correlation exists."""
    frame = record.images[record.images["status"] == "ok"]
    if len(frame) < 3:
        return False
    mos = frame["mos"].to_numpy(dtype=float)
    columns = ["score_adv", "score_clean" if record.spec.defense is None else "score_def_clean"]
    return bool(np.std(mos) > 0) and any(np.isnan(srocc(mos, frame[column])) for column in columns)


def collapsed(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """Clean scores are nearly constant on their scale while the MOS are spread on theirs."""
    mos = record.images["mos"].to_numpy(dtype=float)
    low, high = record.facts["mos_range"]
    mos_spread = float(np.std(mos)) / (high - low) if high > low else 0.0
    clean = _finite_clean(record)
    if record.spec.score_range is None or len(clean) < 3 or mos_spread == 0:
        return False
    return float(np.std(clean)) / _scale(record) < COLLAPSED_SHARE * mos_spread


def trained_on_test(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """The model says it was trained on images this row is tested on."""
    dataset, split = record.spec.dataset.name, record.spec.dataset.params.get("split")
    for trained in record.facts.get("training_datasets") or ():
        name, _, part = trained.partition(":")
        if name == dataset and (part in ("", "all", split) or split == "all"):
            return True
    return False


def certificate_violated(record: RunRecord, others: Sequence[RunRecord]) -> bool:
    """An attacked score lies outside the interval that is certified for images as far away as this one."""
    images = record.images
    if "cert_low" not in images:
        return False
    return bool(outside(images["score_adv"], images["cert_low"], images["cert_high"]).any())


FLAGS: dict[str, Callable[[RunRecord, Sequence[RunRecord]], bool]] = {
    "score-not-repeatable": score_not_repeatable,
    "batch-dependent": batch_dependent,
    "zero-gradient": zero_gradient,
    "not-finite": not_finite,
    "out-of-declared-range": out_of_declared_range,
    "control-noise-wins": control_noise_wins,
    "black-box-wins": black_box_wins,
    "oblivious-wins": oblivious_wins,
    "larger-eps-weaker": larger_eps_weaker,
    "more-steps-weaker": more_steps_weaker,
    "degenerate": degenerate,
    "collapsed": collapsed,
    "trained-on-test": trained_on_test,
    "certificate-violated": certificate_violated,
}


def find_flags(record: RunRecord, others: Sequence[RunRecord]) -> tuple[str, ...]:
    """The flags of a record among the other records of its track, in the order of the documentation."""
    return tuple(name for name, raised in FLAGS.items() if raised(record, others))


def find_all_flags(records: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """The flags of every record among all of them, as `find_flags` gives them.

    Each is compared with those only that any flag may compare it with: a track has many more.
    """
    contests: dict[str, list[RunRecord]] = {}
    keys = [_contest(record) for record in records]
    for key, record in zip(keys, records, strict=True):
        contests.setdefault(key, []).append(record)
    return [find_flags(record, contests[key]) for key, record in zip(keys, records, strict=True)]


def _contest(record: RunRecord) -> str:
    """What no flag ignores when it looks for records to compare with."""
    return repr([value for name, value in _respects(record).items() if name not in IGNORED])
