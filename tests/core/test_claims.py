import multiprocessing
import os
import signal
import threading
import time

import pytest

from recross_hf.core.claims import claimed, shared_out


def hold(lock, is_held):
    with claimed(lock, lambda: False) as is_mine:
        assert is_mine
        is_held.set()
        time.sleep(60)


def test_what_another_process_holds_is_free_when_that_dies_hard(tmp_path):
    lock, context = tmp_path / "locks" / "0.lock", multiprocessing.get_context("fork")
    is_held = context.Event()
    holder = context.Process(target=hold, args=(lock, is_held))
    holder.start()
    assert is_held.wait(30)
    with claimed(lock, lambda: False) as is_mine:
        assert not is_mine
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(30)
    assert holder.exitcode == -signal.SIGKILL
    with claimed(lock, lambda: False) as is_mine:
        assert is_mine


def test_what_is_finished_is_not_to_be_done_and_the_lock_is_given_back_after_an_error(tmp_path):
    lock = tmp_path / "0.lock"
    with claimed(lock, lambda: True) as is_mine:
        assert not is_mine
    with pytest.raises(ZeroDivisionError), claimed(lock, lambda: False) as is_mine:
        1 / 0  # noqa: B018
    with claimed(lock, lambda: False) as is_mine:
        assert is_mine


def test_each_piece_is_offered_once_whether_it_was_finished_or_not(tmp_path):
    finished = {1}
    offered = []
    for piece, is_mine in shared_out(range(3), finished.__contains__, lambda piece: tmp_path / f"{piece}.lock"):
        offered.append((piece, is_mine))
        if piece == 0:
            finished.add(piece)  # 2 is given up
    assert offered == [(0, True), (1, False), (2, True)]


def test_a_piece_that_others_hold_is_waited_for_and_taken_over_where_they_give_it_up(tmp_path):
    finished, locks = set(), [tmp_path / f"{piece}.lock" for piece in range(3)]
    are_held = threading.Event()

    def work_elsewhere():
        with claimed(locks[0], lambda: False), claimed(locks[1], lambda: False):
            are_held.set()
            time.sleep(1.5)
            finished.add(0)

    other = threading.Thread(target=work_elsewhere)
    other.start()
    are_held.wait()
    assert list(shared_out(range(3), finished.__contains__, locks.__getitem__)) == [(2, True), (0, False), (1, True)]
    other.join()
