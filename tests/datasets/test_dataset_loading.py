"""Loading ahead: order and bound are tested with `Dataset.prefetch`; here, what loading leaves of torch's threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from iqa_robust.datasets.loading import load_ahead


@pytest.fixture
def two_threads() -> Iterator[None]:
    """What a laptop gives torch, whatever the tests run with."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_loaders_compute_alone_and_leave_the_caller_its_threads() -> None:
    def load() -> int:
        torch.rand(3, 300, 300).div_(255)  # large enough for torch to share it out
        return torch.get_num_threads()

    assert list(load_ahead([load] * 6, workers=3, ahead=4)) == [1] * 6
    assert torch.get_num_threads() == 2
