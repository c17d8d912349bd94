"""What is compared: the sections of a recipe in which the methods differ; everything else is common to all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

Section = dict[str, Any]
Terms = tuple[Section, ...]

CLEAN: Terms = ({"name": "plcc"}, {"name": "mse"})
RANKING: Terms = (*CLEAN, {"name": "plcc", "on": "attacked", "weight": 2.0})
PLAIN: Terms = ({"name": "plcc", "on": "attacked"}, {"name": "mse", "on": "attacked"})
TRADES: Terms = (*CLEAN, {"name": "difference", "weight": 6.0})
SMALL_SLOPE: Section = {"name": "gradient-norm", "weight": 0.05}
NT: Terms = ({"name": "l1"}, {"name": "plcc"}, SMALL_SLOPE)
EPS_255 = 2.0
STEPS = 2


def inner(aim: str, **more: Any) -> Section:
    """The inner player of all methods that have one: two steps, radius rising over the first half."""
    return {"aim": aim, "eps_255": EPS_255, "steps": STEPS, "ramp": 0.5, **more}


def gate(name: str, where: str = "every", **params: Any) -> Section:
    """The network's parameter."""
    return {"gate": {"name": name, "where": where, **params}}


@dataclass(frozen=True)
class Method:
    """One row of the comparison."""

    about: str
    loss: Terms
    inner: Section | None = None
    params: Section = field(default_factory=dict)
    """Parameters of the network beyond the common ones."""
    start: Section = field(default_factory=dict)
    """What its start has beyond the common one."""
    more: Section = field(default_factory=dict)
    """Further sections of the recipe."""
    pretrained: str | None = None
    """The method by which it was pre-trained on degraded photographs."""
    robust: bool = True
    """Whether it is meant to resist attacks, which then help to choose its epoch."""
    arithmetic: str = "bf16"
    """Of the training: `bf16`, or `fp32` where it was made on a processor that has only that at a useful speed."""


AGAINST = inner("against-ranking")
SOFT_RANK = gate("soft-rank")
SORT_MASK = gate("sort-mask", form="elements")
WIDE_SORT_MASK = gate("sort-mask", form="elements", threshold=1.0)

METHODS: dict[str, Method] = {
    "clean": Method("no robust training", CLEAN, robust=False),
    "correlation": Method("correlation-form adversarial training", RANKING, AGAINST),
    "cprl-a": Method(
        "CPRL-style, form A (reconstruction): soft-rank gate, sufficiency, scale-free necessity on attacked images",
        (*RANKING, {"name": "scaled-difference", "weight": 0.5}),
        AGAINST,
        SOFT_RANK,
    ),
    "trades": Method("TRADES, form for scores", TRADES, inner("difference")),
    "at": Method(
        "plain adversarial training on attacked images only",
        PLAIN,
        inner("error"),
    ),
    "at-mixed": Method("adversarial training on clean and attacked images alike", (*CLEAN, *PLAIN), inner("error")),
    "sort-mask-correlation": Method("SortMask-style gate and correlation form", RANKING, AGAINST, SORT_MASK),
    "wide-sort-mask-correlation": Method(
        "SortMask-style gate of a whole deviation and correlation form",
        RANKING,
        AGAINST,
        WIDE_SORT_MASK,
    ),
    "sort-mask-at": Method(
        "SortMask-style gate and plain adversarial training",
        PLAIN,
        inner("error"),
        SORT_MASK,
    ),
    "sort-mask-trades": Method(
        "SortMask-style gate and TRADES, form for scores",
        TRADES,
        inner("difference"),
        SORT_MASK,
    ),
    "scaled-difference": Method(
        "the loss of cprl-a without its gate", (*RANKING, {"name": "scaled-difference", "weight": 0.5}), AGAINST
    ),
    "nt": Method("NT, gradient norm", NT),
    "wide-sort-mask-nt": Method("SortMask-style gate of a whole deviation and NT", NT, None, WIDE_SORT_MASK),
    "wide-sort-mask-nt-correlation": Method(
        "SortMask-style gate of a whole deviation, NT and correlation form",
        (*RANKING, SMALL_SLOPE),
        AGAINST,
        WIDE_SORT_MASK,
    ),
    "cprl-v2": Method(
        "CPRL-style, 2025 (reconstruction): SortMask-style gate, invariance over intervened images",
        (*CLEAN, {"name": "invariance", "weight": 1.0}),
        AGAINST,
        SORT_MASK,
        more={"interventions": {"count": 3}},
    ),
    "soft-rank-correlation": Method("soft-rank gate and correlation form", RANKING, AGAINST, SOFT_RANK),
    "random-correlation": Method("random gate of equal keep ratio", RANKING, AGAINST, gate("random")),
    "cprl-b": Method(
        "CPRL-style, form B (reconstruction): soft-rank gate, latent necessity, no attacked images",
        (*CLEAN, {"name": "necessity", "weight": 0.5}),
        None,
        SOFT_RANK,
    ),
    "sort-mask": Method("SortMask-style gate alone", CLEAN, None, SORT_MASK),
    "cas": Method(
        "CAS, regression form", (*RANKING, {"name": "auxiliary", "weight": 2.0}), AGAINST, gate("cas", "last")
    ),
    "cifs": Method(
        "CIFS, regression form", (*RANKING, {"name": "auxiliary", "weight": 2.0}), AGAINST, gate("cifs", "last")
    ),
    "silu-correlation": Method("smooth activations and correlation form", RANKING, AGAINST, {"activation": "silu"}),
    "free": Method(
        "free adversarial training: every batch four times, weights and images moved by one gradient",
        RANKING,
        {"method": "free", "eps_255": EPS_255, "steps": 4, "start": "clean"},
    ),
    "single-step": Method(
        "a single step from noise of twice the radius (N-FGSM)", RANKING, {**AGAINST, "steps": 1, "start": "noise"}
    ),
    "ssim-labels": Method(
        "adversarial training with labels lowered by SSIM (Chistyakova et al.)",
        (
            *({"name": name} for name in ("norm-in-norm", "mse")),
            *({"name": name, "on": "attacked"} for name in ("norm-in-norm", "mse")),
        ),
        {**inner("loss"), "steps": 1, "labels": "ssim"},
    ),
    "feature-denoising": Method("feature denoising, correlation form", RANKING, AGAINST, {"feature_denoising": True}),
    "orthogonal": Method(
        "nearly orthogonal layers, the smallest tenth of channels pruned, no attacked images (after arXiv 2506.04951)",
        (*CLEAN, {"name": "orthogonality"}),
        start={"prune": 0.1, "prune_by": "magnitude"},
    ),
    "soft-rank-trades": Method(
        "soft-rank gate and TRADES form",
        TRADES,
        inner("difference"),
        SOFT_RANK,
    ),
}
"""By name, in the order of the comparison."""


def weighted(base: str, term: str, weight: float) -> Method:
    """Another weight of the term that makes a method robust: the one on attacked images where two have its name."""
    loss = METHODS[base].loss
    last = max(number for number, entry in enumerate(loss) if entry["name"] == term)
    changed = tuple({**entry, "weight": weight} if number == last else entry for number, entry in enumerate(loss))
    return replace(METHODS[base], loss=changed)


def in_float32(base: str, about: str, params: Section) -> Method:
    """The same method with other parameters of the network, trained in float32."""
    return replace(METHODS[base], about=about, params=params, arithmetic="fp32")


def pretrained(base: str) -> Method:
    """The same method, begun where it ended on degraded photographs."""
    return replace(
        METHODS[base], about=f"{METHODS[base].about}, pre-trained so on degraded photographs", pretrained=base
    )


METHODS |= {
    "correlation-4": weighted("correlation", "plcc", 4.0),
    "wide-sort-mask-correlation-4": weighted("wide-sort-mask-correlation", "plcc", 4.0),
    "trades-20": weighted("trades", "difference", 20.0),
    "nt-weaker": weighted("nt", "gradient-norm", 0.01),
}
"""Weights that `tuning.py` found on validation images."""
ENSEMBLE = gate(
    "ensemble", members=[{"name": "sort-mask", "form": "elements", "threshold": b} for b in (0.5, 1.0, 2.0)]
)
MIXED_ENSEMBLE = gate(
    "ensemble", members=[{"name": "soft-rank"}, {"name": "sort-mask", "form": "elements", "threshold": 1.0}]
)
METHODS |= {
    "clean-fp32": in_float32("clean", "no robust training", {}),
    "wide-sort-mask-cprl-a-fp32": in_float32(
        "cprl-a",
        "SortMask-style gate of a whole deviation with the terms of CPRL-style form A (reconstruction)",
        WIDE_SORT_MASK,
    ),
    "wide-sort-mask-cprl-b-fp32": in_float32(
        "cprl-b",
        "SortMask-style gate of a whole deviation with the terms of CPRL-style form B (reconstruction)",
        WIDE_SORT_MASK,
    ),
    "ensemble-correlation-4-fp32": in_float32(
        "correlation-4",
        "SortMask-style gates of half a deviation, one and two, their mean, and correlation form",
        ENSEMBLE,
    ),
    "mixed-ensemble-correlation-4-fp32": in_float32(
        "correlation-4",
        "soft-rank gate and SortMask-style gate of a whole deviation, their mean, and correlation form",
        MIXED_ENSEMBLE,
    ),
}
"""Clean training, the SortMask-style gate with the terms of CPRL v1, and ensembles of gates with the weight that was
chosen for one."""
METHODS |= {f"pretrained-{name}": pretrained(name) for name in ("correlation-4", "wide-sort-mask-correlation-4")}
"""With more steps, and images, than the others."""
