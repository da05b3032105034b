"""Goal: threads of the library work while anybody uses it, also after the main thread has returned, and then end.

Method: the pool alone, and processes whose main thread returns while another searches, writes and builds.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest

from vecdb.threads import Pool


def test_jobs_begin_in_order_and_give_their_results() -> None:
    begun: list[int] = []

    def job(number: int, *, more: int) -> int:
        begun.append(number)
        return number + more

    with Pool(1, "test") as pool:
        futures = [pool.submit(job, number, more=10) for number in range(20)]
        assert [future.result() for future in futures] == list(range(10, 30))
        assert list(pool.map(lambda number: number * number, range(5))) == [0, 1, 4, 9, 16]
    assert begun == list(range(20))
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(job, 1, more=1)


def test_errors_reach_whoever_waits() -> None:
    with Pool(2, "test") as pool:
        broken, fine = pool.submit(lambda: 1 // 0), pool.submit(lambda: 1)
        with pytest.raises(ZeroDivisionError):
            broken.result()
        assert fine.result() == 1


def test_as_many_threads_as_asked_for_and_none_afterwards() -> None:
    gate, names = threading.Barrier(3), []

    def meet() -> None:
        gate.wait(30)
        names.append(threading.current_thread().name)

    with Pool(3, "test-meet", lambda: names.append("began")) as pool:
        for future in [pool.submit(meet) for _ in range(3)]:
            future.result()
    assert sorted(names) == ["began"] * 3 + ["test-meet-0", "test-meet-1", "test-meet-2"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-meet")]


def test_jobs_that_wait_can_be_cancelled() -> None:
    begun, gate = threading.Event(), threading.Event()
    pool = Pool(1, "test")
    running = pool.submit(lambda: begun.set() or gate.wait(30))
    waiting = pool.submit(lambda: None)
    begun.wait(30)
    threading.Timer(0.05, gate.set).start()
    pool.shutdown(cancel_futures=True)
    assert running.result() is True
    with pytest.raises(CancelledError):
        waiting.result()


GOES_ON = """
import sys, threading
import numpy as np
import vecdb

def work(db):
    threading.main_thread().join()
    docs = db.create_collection("docs", dim=16, index=vecdb.HNSW())
    rows = np.random.default_rng(0).standard_normal((6000, 16), dtype=np.float32)
    docs.upsert(range(6000), rows)
    db.optimize()
    assert "hnsw" in str(docs.stats().segments), docs.stats().segments
    found = docs.search(rows[:64], k=1)
    assert [hits[0].id for hits in found] == list(range(64))
    if sys.argv[2] == "close":
        db.close()
    print("done", flush=True)

threading.Thread(target=work, args=(vecdb.open(sys.argv[1], threads=2),)).start()
"""


@pytest.mark.parametrize("ending", ["close", "leave"])
def test_a_thread_goes_on_after_the_main_thread_has_returned(tmp_path: object, ending: str) -> None:
    arguments = [sys.executable, "-c", GOES_ON, f"{tmp_path}/db", ending]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
