"""`models.wrap`: what it refuses."""

from __future__ import annotations

import re

import pytest
from torch import nn

from iqa_robust import models
from iqa_robust.errors import ContractError


@pytest.mark.parametrize(
    ("module", "info", "sentence"),
    [
        ("compact", None, "models.wrap: expected a module or a callable, got str."),
        (nn.Flatten(), {"higher_is_better": True}, "models.wrap: expected info to be a ModelInfo or None, got dict."),
        (nn.Flatten(), {}, "models.wrap: expected info to be a ModelInfo or None, got dict."),
    ],
)
def test_what_is_no_module_or_no_info_is_refused(module: object, info: object, sentence: str) -> None:
    with pytest.raises(ContractError, match=re.escape(sentence)):
        models.wrap(module, info)  # type: ignore[arg-type]
