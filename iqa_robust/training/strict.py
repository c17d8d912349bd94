"""The base of every section of a recipe: unknown keys are mistakes, values never change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A frozen section without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
