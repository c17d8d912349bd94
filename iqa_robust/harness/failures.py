"""Why a cell failed, in one sentence that says where."""

from __future__ import annotations

import traceback

from torch import nn

from iqa_robust.attacks.base import Attack
from iqa_robust.defenses.base import Defense
from iqa_robust.errors import IqaRobustError


def reason_of(error: Exception) -> str:
    """An error's own sentence; of any other exception the innermost model, defense or attack, type and message."""
    if isinstance(error, IqaRobustError):
        return str(error)
    where = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        actor = frame.f_locals.get("self")
        of_torch = frame.f_globals.get("__name__", "").startswith("torch.")
        if isinstance(actor, Attack | Defense | nn.Module) and not of_torch:
            where = f"{type(actor).__name__}.{frame.f_code.co_name}: "
    return f"{where}{type(error).__name__}: {error}"
