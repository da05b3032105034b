"""Making an HNSW graph: levels, arrays, and several threads that insert rows in short turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb.index.base import NO_BITS, NO_ROWS, frozen, kernel_inputs
from vecdb.kernels.graph_build import dot_extras, insert_rows, reach_rows
from vecdb.kernels.graph_links import measure_links
from vecdb.kernels.quantize import encode_rows
from vecdb.types import F32, I32, I64, U8, AnyArray, Matrix, Metric, Progress

LINE = 64  # bytes: codes and links start on a cache line
TURN_SECONDS = 0.04  # between two calls of progress
FIRST_TURN = 64  # rows inserted before the speed is known
LEVEL_MAX = 24
REACH_ROUNDS = 8  # one is enough unless every list of links is full


def aligned(shape: tuple[int, ...], dtype: Any, value: int) -> AnyArray:
    """An array that starts on a cache line, filled with `value`."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    array: AnyArray = raw[start : start + size].view(dtype).reshape(shape)
    array[...] = value
    return array


@dataclass(frozen=True, slots=True)
class Graph:
    """The arrays of a graph over n rows.

    codes   uint8 (n, stride)   one-scale codes, + 128, padded to whole cache lines
    bias    int32 (n,)          see kernels.quantize.encode_rows;  offsets int32 (n,) likewise
    levels  uint8 (n,)          the highest level of each node
    links   int32 (n, 2m)       neighbours on level 0, ended by -1
    upper   int32 (u, m)        the same for the higher levels: row first_upper[node] + level - 1
    entry   the node at which searches start; no other has a higher level
    """

    codes: U8
    bias: I32
    offsets: I32
    levels: U8
    links: I32
    upper: I32
    centre: F32
    scale: float
    entry: int

    @property
    def top(self) -> int:
        return int(self.levels[self.entry]) if len(self.levels) else 0

    def first_upper(self) -> I64:
        return first_of(self.levels)


def first_of(levels: U8) -> I64:
    """int64 (n,): the row of `upper` that holds level 1 of each node."""
    ends = np.cumsum(levels, dtype=np.int64)
    return np.asarray(ends - levels)


def draw_levels(first: int, last: int, m: int, seed: int) -> U8:
    """Levels of the nodes first..last-1: level l with probability m^-l."""
    chance = 1.0 - np.random.default_rng([seed, first]).random(last - first)
    return np.asarray(np.minimum(-np.log(chance) / np.log(m), LEVEL_MAX).astype(np.uint8))


def empty_graph(rows: int, dim: int, m: int, levels: U8, centre: F32, scale: float) -> Graph:
    stride = -(-dim // LINE) * LINE
    return Graph(
        aligned((rows, stride), np.uint8, 128),
        np.zeros(rows, np.int32),
        np.zeros(rows, np.int32),
        levels,
        aligned((rows, 2 * m), np.int32, -1),
        aligned((int(levels.sum(dtype=np.int64)), m), np.int32, -1),
        centre,
        scale,
        int(np.argmax(levels)) if rows else 0,
    )


def extended(graph: Graph, rows: int, dim: int, m: int, seed: int) -> Graph:
    """A copy with room for `rows`; new nodes reach no higher than the entry, which stays."""
    old = len(graph.levels)
    drawn = np.minimum(draw_levels(old, rows, m, seed), graph.top).astype(np.uint8)
    larger = empty_graph(rows, dim, m, np.concatenate([graph.levels, drawn]), graph.centre, graph.scale)
    for name in ("codes", "bias", "offsets", "links", "upper"):
        mine, theirs = getattr(larger, name), getattr(graph, name)
        mine[: len(theirs)] = theirs
    return larger


def encode(graph: Graph, matrix: Matrix, first: int, progress: Progress | None) -> None:
    step = max(256, (4 << 20) // matrix.dim)
    for start in range(first, matrix.rows, step):
        if progress is not None:
            progress(first, matrix.rows)
        last = min(start + step, matrix.rows)
        encode_rows(
            *kernel_inputs(matrix),
            frozen(graph.centre),
            np.float32(graph.scale),
            start,
            last,
            graph.codes,
            graph.bias,
            graph.offsets,
        )


def insert(graph: Graph, metric: Metric, first: int, ef: int, threads: int, progress: Progress | None) -> None:
    """Link the rows from `first` on into the graph."""
    rows, m = len(graph.levels), graph.upper.shape[1]
    order = np.arange(rows, dtype=np.int32)
    if first == 0:  # the entry must be there before the others
        order[0], order[graph.entry] = order[graph.entry], order[0]
    codes, offsets = frozen(graph.codes), frozen(graph.offsets)
    bias, extra = link_space(graph, metric)
    first_upper = graph.first_upper()
    lengths, upper_lengths = np.zeros(graph.links.shape, np.int32), np.zeros(graph.upper.shape, np.int32)
    if first > 0:
        owners = np.repeat(np.arange(rows, dtype=np.int32), graph.levels)
        for links, owner, out in ((graph.links, order, lengths), (graph.upper, owners, upper_lengths)):
            measure_links(codes, bias, extra, offsets, frozen(links), frozen(owner), out)
    counter, locks = np.full(1, first, np.int64), np.zeros(rows, np.int32)
    stamps = [np.zeros(rows, np.int32) for _ in range(threads)]
    epochs = [0] * threads

    def work(thread: int, limit: int) -> None:
        epochs[thread] = insert_rows(
            codes, bias, extra, offsets, frozen(order), frozen(graph.levels), frozen(first_upper),
            graph.links, frozen(graph.links), lengths, graph.upper, frozen(graph.upper), upper_lengths,
            locks, counter, limit, graph.entry, graph.top, m, ef, NO_BITS, stamps[thread], epochs[thread],
        )  # fmt: skip

    take_turns(work, first, rows, threads, counter, progress)
    for _ in range(REACH_ROUNDS):
        if reach_rows(graph.links, graph.entry) == 0:
            break


def link_space(graph: Graph, metric: Metric) -> tuple[AnyArray, AnyArray]:
    """(bias, extra) of the space in which links are chosen; that of searches, except under dot."""
    if metric != Metric.DOT:
        return frozen(graph.bias), NO_ROWS
    bias, extra = np.empty_like(graph.bias), np.empty_like(graph.bias)
    dot_extras(frozen(graph.codes), bias, extra)
    return frozen(bias), frozen(extra)


def take_turns(
    work: Callable[[int, int], None],
    first: int,
    rows: int,
    threads: int,
    counter: I64,
    progress: Progress | None,
) -> None:
    """Run `work(thread, limit)` on all threads for about TURN_SECONDS at a time, calling `progress` in between."""
    done, turn = first, FIRST_TURN
    with ThreadPoolExecutor(threads, thread_name_prefix="vecdb-build") as pool:
        while done < rows:
            if progress is not None:
                progress(done, rows)
            limit = min(done + turn, rows)
            counter[0], started = done, time.perf_counter()
            for future in [pool.submit(work, thread, limit) for thread in range(threads)]:
                future.result()
            seconds = time.perf_counter() - started
            turn = max(FIRST_TURN, min(4 * turn, int((limit - done) * TURN_SECONDS / max(seconds, 1e-6))))
            done = limit
    if progress is not None:
        progress(rows, rows)
