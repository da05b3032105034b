"""Rows with one and the same vector: a graph holds one node for all of them, the others follow it in a chain.

Copies of one vector would fill the links of their neighbours and the pools of walks with what tells them nothing new.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.jit import Integer, allocating, inlined, kernel
from vecdb.types import AnyArray


@kernel
def hash_rows(words: AnyArray, rows: AnyArray, weights: AnyArray, out: AnyArray) -> None:
    """out uint64 (r,) = a hash of words[rows], unsigned (n, dim): equal rows have equal hashes."""
    for i in range(rows.shape[0]):
        total = np.uint64(0)
        for j in range(words.shape[1]):
            total += np.uint64(words[rows[i], j]) * weights[j]
        out[i] = total


@inlined
def same_words(left: AnyArray, left_row: Integer, right: AnyArray, right_row: Integer) -> bool:
    differ = left[left_row, 0] ^ right[right_row, 0]
    for j in range(1, left.shape[1]):
        differ |= left[left_row, j] ^ right[right_row, j]
    return bool(differ == 0)


@kernel
def equal_rows(left: AnyArray, left_rows: AnyArray, right: AnyArray, right_rows: AnyArray, out: AnyArray) -> None:
    """out uint8 (r,) = whether left[left_rows] and right[right_rows], unsigned (n, dim), are the same words."""
    for i in range(left_rows.shape[0]):
        out[i] = np.uint8(same_words(left, left_rows[i], right, right_rows[i]))


@allocating
def chain_twins(words: AnyArray, hashes: AnyArray, order: AnyArray, preferred: AnyArray, twins: AnyArray) -> None:
    """twins int32 (n,), -1 before: for each row the next with the same words, the node first, then by row.

    order      the rows by (hash, row);  preferred  uint8 (n,): rows that are to be the node of their vector, at most
               one of equals; where there is none the lowest row is
    """
    size = order.shape[0]
    done = np.zeros(size, np.uint8)
    for first in range(size):
        if done[first] or first + 1 == size or hashes[order[first]] != hashes[order[first + 1]]:
            continue
        head, node, end = order[first], order[first], first + 1
        while end < size and hashes[order[end]] == hashes[head]:
            if preferred[order[end]] and not preferred[node] and same_words(words, head, words, order[end]):
                node = order[end]
            end += 1
        last = node
        for at in range(first, end):
            row = order[at]
            if not done[at] and same_words(words, head, words, row):
                done[at] = 1
                if row != node:
                    twins[last] = np.int32(row)
                    last = row


@inlined
def next_twin(twins: AnyArray, node: Integer, row: Integer) -> np.int64:
    """The row after `row` in the chain of `node`, or -1. After the node rows ascend, so even a damaged chain ends."""
    following = np.int64(twins[row])
    if following < 0 or following >= twins.shape[0] or (row != node and following <= row):
        return np.int64(-1)
    return following
