"""How many candidates of a walk are kept, and scored exactly: as a table, and its sense everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.index.second_look import KEPT, counts

TABLE = [
    # bits, k, ef, rows scored, nodes kept
    (2, 10, 16, 12, 20),
    (2, 10, 24, 13, 24),
    (2, 10, 64, 15, 64),
    (2, 100, 120, 112, 200),
    (2, 100, 280, 144, 280),
    (4, 10, 64, 40, 64),
    (4, 100, 400, 250, 400),
    (8, 10, 64, 15, 64),
]


@pytest.mark.parametrize(("bits", "k", "ef", "scored", "kept"), TABLE)
def test_the_table(bits: int, k: int, ef: int, scored: int, kept: int) -> None:
    assert counts(bits, True, k, ef, None) == (scored, kept)


@given(st.sampled_from(sorted(KEPT)), st.booleans(), st.integers(1, 300), st.integers(0, 2_000))
def test_more_effort_never_means_less(bits: int, sure: bool, k: int, more: int) -> None:
    narrow, wide = counts(bits, sure, k, k, None), counts(bits, sure, k, k + more, None)
    assert narrow <= wide
    assert k <= wide[0] <= wide[1]
    if not sure:
        assert wide[0] == k + more


def test_what_was_asked_for_is_scored() -> None:
    assert counts(2, True, 10, 64, 37) == (37, 64)
    assert counts(2, True, 10, 64, 5)[0] == 10
    assert counts(2, False, 10, 16, 200) == (200, 200)
