"""A process that reads while others write and die. Run by test_kill.py: python -m tests.crash.reader PATH

Every picture that it gets must be the state after some number of batches, and never an older one than before. It ends
when its standard input does, and prints how many batches it saw.
"""

from __future__ import annotations

import select
import sys
import time

import vecdb
from tests.crash.ledger import State, after, check_consistent, found_state, make_batch

AHEAD = 5000  # batches that may have been written between two looks


def advance(known: State, number: int, found: State) -> int:
    """The number of batches after which the state is `found`, looked for from `known` on."""
    state = dict(known)
    for further in range(number, number + AHEAD):
        if state == found:
            return further
        state = after(state, make_batch(further))
    raise SystemExit(f"the reader's picture is no state after {number} or more batches")


def main() -> None:
    known: State = {}
    number = looks = 0
    with vecdb.open(sys.argv[1], mode="r") as db:
        print("open", flush=True)
        docs = db.get_collection("docs")
        while not select.select([sys.stdin], [], [], 0)[0]:
            db.refresh()
            found = found_state(docs)
            number = advance(known, number, found)
            known = found
            looks += 1
            if looks % 8 == 0:
                check_consistent(docs, known, queries=1)
            time.sleep(0.1)  # leaves the processors to the writer
    print(number, looks)


if __name__ == "__main__":
    main()
