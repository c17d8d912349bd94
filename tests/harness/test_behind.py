"""Work behind the caller's back: in order, one piece at a time, and no error or finished piece is lost."""

from __future__ import annotations

import threading

import pytest

from iqa_robust.harness.behind import Behind


def test_pieces_run_in_order_beside_the_caller_one_at_a_time() -> None:
    log: list[tuple[str, int, bool]] = []
    caller, turn = threading.get_ident(), threading.Event()

    def piece(k: int) -> None:
        if k == 0:
            assert turn.wait(30), "the caller was not let go"
        log.append(("work", k, threading.get_ident() == caller))

    with Behind() as behind:
        for k in range(4):
            behind.do(lambda k=k: piece(k), lambda k=k: log.append(("done", k, threading.get_ident() == caller)))
            turn.set()
            # the next piece waits for this one, and this one's end is told before the next begins
    assert log == [entry for k in range(4) for entry in (("work", k, False), ("done", k, True))]


def test_an_error_is_raised_with_the_next_piece_which_does_not_run() -> None:
    ran: list[str] = []
    with pytest.raises(ZeroDivisionError), Behind() as behind:
        behind.do(lambda: 1 / 0, lambda: ran.append("done"))
        behind.do(lambda: ran.append("next"), lambda: None)
    assert ran == []


def test_an_error_of_the_last_piece_is_raised_at_the_end() -> None:
    with pytest.raises(ZeroDivisionError), Behind() as behind:
        behind.do(lambda: 1 / 0, lambda: None)


def test_an_interruption_lets_the_last_piece_finish() -> None:
    going, finished = threading.Event(), threading.Event()

    def piece() -> None:
        assert going.wait(30)
        finished.set()

    with pytest.raises(KeyboardInterrupt), Behind() as behind:
        behind.do(piece, lambda: None)
        threading.Timer(0.05, going.set).start()
        raise KeyboardInterrupt
    assert finished.is_set()
