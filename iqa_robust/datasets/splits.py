"""Seeded choices that depend on names alone: the same on every machine, library version and partial copy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

TRAIN_SHARE = 0.8
"""Share of the contents on the train side of a seeded split, the field's customary 80/20."""


def _rank(seed: int, name: str) -> bytes:
    """A pseudo-random sort key. A hash, because a generator's stream may change between library versions."""
    return hashlib.sha256(f"{seed}\n{name}".encode()).digest()


def seeded_split(contents: Iterable[str], seed: int) -> tuple[frozenset[str], frozenset[str]]:
    """Permute the distinct contents by seed and cut them into (train, test) at 80 percent, rounded.

    Two or more contents leave none of the sides empty; a single one goes to train. The result does not depend
    on the order or the repetition of `contents`.
    """
    permuted = sorted(set(contents), key=lambda name: (_rank(seed, name), name))
    n = len(permuted)
    cut = min(max(int(TRAIN_SHARE * n + 0.5), 1), max(n - 1, 1))
    return frozenset(permuted[:cut]), frozenset(permuted[cut:])


def nested_sample(keys: Sequence[tuple[float, str]], limit: int, seed: int) -> list[int]:
    """Indices, ascending, of `limit` of the (MOS, name) pairs, spread evenly over the ranks of the MOS.

    Ranks are taken in bit-reversed (van der Corput) order from a seeded start, so every prefix is spread over
    the range and a smaller sample is a part of every larger one. Ties of the MOS are broken by seed.
    """
    n = len(keys)
    by_mos = sorted(range(n), key=lambda i: (keys[i][0], _rank(seed, keys[i][1]), keys[i][1]))
    bits = max(n - 1, 1).bit_length()
    shift = int.from_bytes(_rank(seed, "start of the sample")[:8], "big") % max(n, 1)
    order = sorted(range(n), key=lambda rank: int(f"{(rank + shift) % n:0{bits}b}"[::-1], 2))
    return sorted(by_mos[rank] for rank in order[:limit])
