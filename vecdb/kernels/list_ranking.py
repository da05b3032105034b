"""The nearest lists of a query, by codes of their centroids; many lists stand in groups, of which the nearest count.

A few lists are kept sorted while centroids are scanned, so that of the others only the estimates are made: to write
and select all keys takes three times as long.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.blocks import BLOCK, dot_block, score_block
from vecdb.kernels.jit import Integer, allocating, kernel
from vecdb.kernels.sorted_scan import LANES, SORTED_MAX, scan_run, scan_sorted
from vecdb.kernels.topk import NO_KEY, keep_smallest, key_row, pack_key, sort_keys
from vecdb.types import AnyArray

MANY_DIMS = 256
GROUPS_LEAST, GROUPS_SHARE = 24, 3  # groups whose lists are ranked: one in so many, and at least
CHOICE = 16  # times as many lists as are wanted are ranked


@kernel
def centre_bits(dim: int) -> int:
    """Bits of the codes by which lists are ranked: of many dimensions 4 rank them as well as 8."""
    return 4 if dim >= MANY_DIMS else 8


@kernel
def choose_groups(
    bits: int, groups: AnyArray, codes: AnyArray, add: AnyArray, scale: AnyArray, query: AnyArray, unit: np.float32,
    total: Integer, nprobe: int, chosen: AnyArray, dots: AnyArray, estimates: AnyArray,
) -> int:  # fmt: skip
    """chosen[:count] = keys of groups that have the `nprobe` nearest lists, nearly always; returns count.

    chosen  int64, as many as there are groups or up to LANES - 1 more
    """
    count: int = groups.shape[0] - 1
    lists = groups[count]
    wanted: int = max(GROUPS_LEAST, count // GROUPS_SHARE, CHOICE * nprobe * count // lists)
    if wanted < min(count, SORTED_MAX):
        width = (wanted + LANES - 1) // LANES * LANES
        scan_sorted(bits, codes, add, scale, count, query, unit, total, chosen[:width], wanted, dots, estimates)
        held = 0
        for j in range(wanted):
            held += groups[key_row(chosen[j]) + 1] - groups[key_row(chosen[j])]
        if held >= nprobe:
            return wanted
    for group in range(count):
        chosen[group] = group
    return count


@allocating
def rank_more(
    bits: int, centre_codes: AnyArray, centre_add: AnyArray, centre_scale: AnyArray, centre_starts: AnyArray,
    groups: AnyArray, chosen: AnyArray, query: AnyArray, unit: np.float32, offset: np.float32, nprobe: int, taken: int,
    near: AnyArray, dots: AnyArray, estimates: AnyArray,
) -> None:  # fmt: skip
    """near[taken:nprobe] = the keys of the nearest lists of the chosen groups beside those in near[:taken]."""
    stride, none, one = centre_codes.shape[1], np.float32(0.0), np.float32(1.0)
    known, count = np.zeros(groups[groups.shape[0] - 1], np.bool_), 0
    for j in range(taken):
        known[key_row(near[j])] = True
    others = near[taken:]
    for j in range(chosen.shape[0]):
        group = key_row(chosen[j])
        for block in range(centre_starts[group], centre_starts[group + 1]):
            dot_block(bits, centre_codes, block * stride, query, stride // 128, dots, (block + 1) * stride)
            score_block(
                dots,
                np.intp(0),
                centre_add,
                centre_scale,
                np.intp(block * BLOCK),
                offset,
                unit,
                none,
                one,
                none,
                estimates,
            )
            first = groups[group] + (block - centre_starts[group]) * BLOCK
            for lane in range(min(BLOCK, groups[group + 1] - first)):
                if not known[first + lane]:
                    others[count] = pack_key(estimates[lane], first + lane)
                    count += 1
    if nprobe - taken < count:
        keep_smallest(others, count, nprobe - taken)
    sort_keys(others, nprobe - taken)


@kernel
def rank_lists(
    bits: int, centre_codes: AnyArray, centre_add: AnyArray, centre_scale: AnyArray, centre_starts: AnyArray,
    groups: AnyArray, group_codes: AnyArray, group_add: AnyArray, group_scale: AnyArray, query: AnyArray,
    unit: np.float32, total: Integer, nprobe: int, taken: int, near: AnyArray, chosen: AnyArray, dots: AnyArray,
    estimates: AnyArray,
) -> None:  # fmt: skip
    """near[:nprobe] = the keys of the nearest lists, the nearest first; near[:taken] stays as it is.

    centre_*  codes of `centre_bits`, of the rotated centroids, every group from the block on that centre_starts int32
              (groups + 1,) names;  groups int32 (groups + 1,): the first list of each, and the number of lists
    group_*   codes of the middles of the groups, as one list
    near      int64, as many as there are lists or up to LANES - 1 more;  chosen  see choose_groups
    """
    offset = np.float32(-0.5) * np.float32((1 << bits) - 1) * np.float32(total)
    count = choose_groups(
        bits, groups, group_codes, group_add, group_scale, query, unit, total, nprobe, chosen, dots, estimates
    )
    if taken > 0 or nprobe > SORTED_MAX:
        rank_more(
            bits, centre_codes, centre_add, centre_scale, centre_starts, groups, chosen[:count], query, unit, offset,
            nprobe, taken, near, dots, estimates,
        )  # fmt: skip
        return
    keys, worst = near[: (nprobe + LANES - 1) // LANES * LANES], NO_KEY
    keys[:] = NO_KEY
    for j in range(count):
        group = key_row(chosen[j])
        worst = scan_run(
            bits, centre_codes, centre_add, centre_scale, centre_starts[group], centre_starts[group + 1],
            groups[group], groups[group + 1], query, unit, offset, keys, nprobe, worst, dots, estimates,
        )  # fmt: skip
