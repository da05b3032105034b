"""What a walk hands on: how many nodes it keeps, and how many of these are scored exactly."""

from __future__ import annotations

from functools import lru_cache

# By bits: halves of k that a walk keeps at least, for estimates put some too far.
KEPT = {2: 4, 4: 3, 8: 2}
# By bits, the rows scored exactly beyond k: at least so many and this share of k, and of a wide walk, which is meant to
# miss less, this share of ef beyond that of k, at most the last share of k. Finer codes have seen two bits by then.
SCORED = {2: (2, 0.12, 0.2, 0.12, 0.5), 4: (30, 1.5, 0.35, 0.0, 10.0), 8: (5, 0.2, 0.0, 0.0, 0.0)}


@lru_cache(maxsize=1024)
def counts(bits: int, sure: bool, k: int, ef: int, rescore: int | None) -> tuple[int, int]:
    """(rows scored exactly, nodes kept) of a walk that expands `ef` nodes, ef >= k.

    sure   whether the codes tell enough to leave any out;  rescore   the rows that the user asked for
    """
    scored = max(rescore or (_scored(bits, k, ef) if sure else ef), k)
    return scored, max(ef, scored, k * KEPT[bits] // 2)


def _scored(bits: int, k: int, ef: int) -> int:
    least, share, of_ef, beyond, most = SCORED[bits]
    return k + max(least, int(share * k), int(min(of_ef * ef - beyond * k, most * k)))
