"""The share of a device's ceiling, and what compiling costs: what is counted and said of it, never how fast it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

CPU = torch.device("cpu")


def test_operations_of_convolutions_and_products(scripts: Any) -> None:
    """Every output takes as many multiply-adds as it has weights; the slope at the input takes as many again."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), nn.Flatten(), nn.Linear(6 * 4 * 6, 5)
    )
    forward = 10 * 14 * 4 * (3 * 9) + 4 * 6 * 6 * (4 * 9) + 5 * (6 * 4 * 6)
    # Two operations a multiply-add, two passes; one image of three; the weights want slopes, and get none.
    assert scripts.ceiling.operations(net, torch.rand(3, 3, 10, 14)) == 2 * 2 * forward


def test_operations_of_attention(scripts: Any) -> None:
    def attention(x: torch.Tensor) -> torch.Tensor:
        words = x.flatten(1, 2)[:, None]  # (1, 1, 3 H, W): 24 words of 10 numbers
        return F.scaled_dot_product_attention(words, words, words)

    # Two products, each of two factors that have a slope, which is a product of the same size.
    assert scripts.ceiling.operations(attention, torch.rand(1, 3, 8, 10)) == 2 * (24 * 24 * 10) * 2 * (1 + 2)


def test_rates_and_shares(scripts: Any) -> None:
    found = scripts.ceiling.Found(5 * 10**9, 1e12, {"ours": 2.0, "passes alone": 1.6}, math.nan)
    assert found.table(images=8, steps=10).splitlines()[2:] == [
        "| ours | 4.00 | 40.0 | 0.2 | 20.0 % |",
        "| passes alone | 5.00 | 50.0 | 0.25 | 25.0 % |",
    ]


def test_the_ceiling_is_measured(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(scripts.ceiling.SIDES, "cpu", (32, 64))
    tiny = "--model compact --device cpu --images 2 --side 64 --steps 2 --repeats 1 --threads 1"
    scripts.ceiling.main([*tiny.split(), "--precision", "fp32"])
    said = capsys.readouterr().out
    assert "compact, PGD-2, 2 images of 64 x 64: attacks search in fp32: as asked for\nceiling: " in said
    assert [line.split(" | ")[0] for line in said.splitlines() if line.startswith("| ")][2:] == [
        "| ours",
        "| search alone",
        "| passes alone",
    ]
    assert "\npeak memory of the process: " in said


def test_products_are_of_the_precision(scripts: Any) -> None:
    kinds = {name: scripts.ceiling.product(8, name, CPU)().dtype for name in ("fp32", "bf16")}
    assert kinds == {"fp32": torch.float32, "bf16": torch.bfloat16}


def test_a_gpu_is_waited_for(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr("torch.cuda.synchronize", lambda device: order.append(device.type))

    def work() -> torch.Tensor:
        order.append("work")
        return torch.zeros(1)

    for kind in ("cuda", "cpu"):
        scripts.ceiling.finished(work, torch.device(kind))()
    assert order == ["work", "cuda", "work"]


def test_when_compiling_is_earned_back(scripts: Any) -> None:
    line, decision = scripts.compiled.Line, scripts.compiled.decision
    pays, does_not, never = (
        line("a, fp32, default", 0.050, 0.040, 12.0, 3),
        line("b, bf16, default", 0.020, 0.019, 12.0, 3),
        line("c, bf16, default", 0.020, 0.020, 12.0, 3),
    )
    assert str(pays) == (
        "a, fp32, default: 50.0 ms eager, 40.0 ms compiled; compiling takes 12.0 s (3 graphs), earned back after"
        " 1,200 batches"
    )
    assert str(never) == (
        "c, bf16, default: 20.0 ms eager, 20.0 ms compiled; compiling takes 12.0 s (3 graphs), never earned back"
    )
    assert decision([never, does_not, pays], images=8) == (
        "Decision: worth building, at best compiling is earned back after 1,200 batches of 8 images (a, fp32, default);"
        " a PGD-10 cell of 1,000 images has 1,250."
    )
    assert decision([does_not], images=7) == (
        "Decision: not worth building, at best compiling is earned back after 12,000 batches of 7 images"
        " (b, bf16, default); a PGD-10 cell of 1,000 images has 1,430."
    )
    assert decision([never], images=8) == "Decision: not worth building, torch.compile gains nothing here."


TINY = "--models compact --precisions fp32 --device cpu --images 2 --side 64 --repeats 1 --threads 1"


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # the script sets it; afterwards it is as before


@pytest.mark.usefixtures("cache")
def test_what_compiles_gets_a_line(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.compile", lambda model, **_: model)  # the compiler takes half a minute
    scripts.compiled.main(TINY.split())
    line, decision = capsys.readouterr().out.splitlines()
    assert line.startswith("compact, fp32, default: ") and "; compiling takes " in line
    assert decision.startswith("Decision: ")


@pytest.mark.usefixtures("cache")
def test_what_does_not_compile_is_left_out(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def picky(model: Any, **_: object) -> Any:
        if isinstance(model, nn.Module):
            raise RuntimeError("no such\noperation\n\nSet TORCHDYNAMO_VERBOSE=1")
        return model

    monkeypatch.setattr("torch.compile", picky)
    scripts.compiled.main(TINY.split())
    assert capsys.readouterr().out == (
        "compact, fp32, default: no such operation\nDecision: not worth building, nothing could be compiled here.\n"
    )


@pytest.mark.usefixtures("cache")
def test_without_a_compiler_it_ends_with_a_sentence(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(model: Any) -> None:
        raise RuntimeError("no C++ compiler\n\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr("torch.compile", missing)
    with pytest.raises(SystemExit) as caught:
        scripts.compiled.main(TINY.split())
    assert caught.value.code == 2
    assert capsys.readouterr() == (
        "",
        "torch.compile does not work here, so nothing was measured: no C++ compiler\n",
    )
