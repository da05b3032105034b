"""Making an HNSW graph: levels, arrays, and several threads that insert rows in short turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from vecdb.index.base import NO_BITS, NO_NORMS, NO_ROWS, frozen, kernel_inputs
from vecdb.index.code_quality import Codes
from vecdb.kernels.graph_build import dot_extras, insert_rows, reach_rows
from vecdb.kernels.graph_links import measure_links
from vecdb.kernels.quantize import encode_rows, scale_of
from vecdb.kernels.row_codes import encode_records, record_bytes
from vecdb.kernels.twins import chain_twins, hash_rows
from vecdb.memory import aligned
from vecdb.threads import Pool
from vecdb.types import F32, I32, I64, U8, U64, AnyArray, Matrix, Metric, Progress

FINE_BITS = 4
LINE = 64  # bytes: codes and links start on a cache line
TURN_SECONDS = 0.04  # between two calls of progress
ALONE = 1024  # first rows that one thread inserts: threads do not see what the others are inserting
FIRST_TURN = 64  # rows inserted before the speed is known
LEVEL_MAX = 24
REACH_ROUNDS = 8  # one is enough unless every list of links is full


@dataclass(frozen=True, slots=True)
class Graph:
    """The arrays of a graph over n rows.

    codes    the codes that walks read
    records  uint8 (n, stride)   those codes: kernels.row_codes, whole cache lines a row
    fine     uint8 (n, stride)   FINE_BITS codes that sort the candidates of a walk; no rows unless walks read 2 bits
    levels   uint8 (n,)          the highest level of each node
    links    int32 (n, 2m)       neighbours on level 0, ended by -1
    upper    int32 (u, m)        the same for the higher levels: row first_upper[node] + level - 1
    twins    int32 (n,)          rows of one vector are one node and a chain of rows behind it: see kernels.twins
    centre   float32 (dim,)      what the codes are relative to
    entry    the node at which searches start; no other has a higher level
    """

    codes: Codes
    records: U8
    fine: U8
    levels: U8
    links: I32
    upper: I32
    twins: I32
    centre: F32
    entry: int

    @property
    def bits(self) -> int:
        return self.codes.bits

    @property
    def top(self) -> int:
        return int(self.levels[self.entry]) if len(self.levels) else 0

    def first_upper(self) -> I64:
        return first_of(self.levels)

    def nodes(self) -> U8:
        """uint8 (n,): 1 for the rows that are nodes, 0 for those that follow a twin."""
        return nodes_of(self.twins)


def first_of(levels: U8) -> I64:
    """int64 (n,): the row of `upper` that holds level 1 of each node."""
    ends = np.cumsum(levels, dtype=np.int64)
    return np.asarray(ends - levels)


def nodes_of(twins: I32) -> U8:
    nodes = np.ones(len(twins), np.uint8)
    nodes[twins[twins >= 0]] = 0
    return nodes


def find_twins(matrix: Matrix, preferred: U8 | None = None) -> I32:
    """int32 (n,): the chains of rows with one vector; the node is the preferred row of each, else the first."""
    everyone = np.arange(matrix.rows, dtype=np.int32)
    hashes = hash_vectors(matrix, everyone)
    order = np.argsort(hashes, kind="stable").astype(np.int32)
    twins = np.full(matrix.rows, -1, np.int32)
    preferred = np.zeros(matrix.rows, np.uint8) if preferred is None else preferred
    chain_twins(words_of(matrix), frozen(hashes), frozen(order), frozen(preferred), twins)
    return twins


def words_of(matrix: Matrix) -> AnyArray:
    """The vectors as unsigned numbers: equal words are equal vectors."""
    return frozen(matrix.vectors.view(f"u{matrix.vectors.itemsize}"))


def hash_vectors(matrix: Matrix, rows: I32) -> U64:
    weights = np.random.default_rng(0).integers(0, 1 << 64, matrix.dim, np.uint64) | np.uint64(1)
    hashes = np.empty(len(rows), np.uint64)
    hash_rows(words_of(matrix), frozen(rows), frozen(weights), hashes)
    return hashes


def draw_levels(first: int, last: int, m: int, seed: int) -> U8:
    """Levels of the nodes first..last-1: level l with probability m^-l."""
    chance = 1.0 - np.random.default_rng([seed, first]).random(last - first)
    return np.asarray(np.minimum(-np.log(chance) / np.log(m), LEVEL_MAX).astype(np.uint8))


def fine_shape(bits: int, rows: int, dim: int) -> tuple[int, int]:
    """Shape of `fine`: the coarsest codes need a second look, finer ones are followed by float32 at once."""
    return (rows, record_bytes(FINE_BITS, dim)) if bits == 2 else (0, LINE)


def empty_graph(rows: int, dim: int, m: int, levels: U8, twins: I32, centre: F32, codes: Codes) -> Graph:
    """Room for a graph; `levels` of rows that follow a twin must be 0."""
    return Graph(
        codes,
        aligned((rows, record_bytes(codes.bits, dim)), np.uint8, 0),
        aligned(fine_shape(codes.bits, rows, dim), np.uint8, 0),
        levels,
        aligned((rows, 2 * m), np.int32, -1),
        aligned((int(levels.sum(dtype=np.int64)), m), np.int32, -1),
        twins,
        centre,
        int(np.argmax(levels)) if rows else 0,
    )


def encode(graph: Graph, matrix: Matrix, first: int, progress: Progress | None) -> None:
    """Fill the codes of the rows from `first` on."""
    centre, inputs = frozen(graph.centre), kernel_inputs(matrix)
    for start, last in steps(matrix, first, progress):
        encode_records(graph.bits, *inputs, centre, start, last, graph.records, graph.records.view(np.float32))
        if len(graph.fine):
            encode_records(FINE_BITS, *inputs, centre, start, last, graph.fine, graph.fine.view(np.float32))


def steps(matrix: Matrix, first: int, progress: Progress | None) -> Iterator[tuple[int, int]]:
    """Parts of the rows from `first` on that take some tens of milliseconds to encode."""
    step = max(256, (4 << 20) // matrix.dim)
    for start in range(first, matrix.rows, step):
        if progress is not None:
            progress(first, matrix.rows)
        yield start, min(start + step, matrix.rows)


@dataclass(frozen=True, slots=True)
class LinkCodes:
    """What links are chosen by while a graph is built: one-scale codes, whose distances are those between any two rows.

    codes, bias, offsets   see kernels.quantize.encode_rows
    extra, lift            under dot the further value of each row (see dot_extras), and the same in the unit of the
                           vectors; else empty
    """

    codes: AnyArray
    bias: AnyArray
    extra: AnyArray
    offsets: AnyArray
    lift: AnyArray


def link_codes(graph: Graph, matrix: Matrix, progress: Progress | None) -> LinkCodes:
    inputs, rows = kernel_inputs(matrix), matrix.rows
    scale = np.float32(scale_of(matrix.metric, matrix.vectors, matrix.inverse_norms, graph.centre))
    codes = aligned((rows, -(-matrix.dim // LINE) * LINE), np.uint8, 128)
    bias, offsets = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
    for start, last in steps(matrix, 0, progress):
        encode_rows(*inputs, frozen(graph.centre), scale, start, last, codes, bias, offsets)
    if matrix.metric != Metric.DOT:
        return LinkCodes(frozen(codes), frozen(bias), NO_ROWS, frozen(offsets), NO_NORMS)
    extra = np.empty_like(bias)
    dot_extras(frozen(codes), bias, extra)
    return LinkCodes(
        frozen(codes), frozen(bias), frozen(extra), frozen(offsets), frozen((extra * scale).astype(np.float32))
    )


def order_of(graph: Graph) -> I32:
    """All nodes in order of their numbers, but the entry first, which must be there before the others."""
    order = np.flatnonzero(graph.nodes()).astype(np.int32)
    order[np.flatnonzero(order == graph.entry)] = order[0]
    order[0] = graph.entry
    return order


def insert(
    graph: Graph,
    matrix: Matrix,
    first: int,
    ef: int,
    threads: int,
    progress: Progress | None,
    order: I32,
    held: int,
    measure: Callable[[I32], None],
) -> None:
    """Link the nodes order[first:] into the graph, all nodes once, the entry first of all.

    measure   called with the last `held` of them while only they are missing, unless there are none
    """
    rows, m = matrix.rows, graph.upper.shape[1]
    everyone = np.arange(rows, dtype=np.int32)
    by = link_codes(graph, matrix, progress)
    space = (by.codes, by.bias, by.extra, by.offsets)
    first_upper = graph.first_upper()
    lengths, upper_lengths = np.zeros(graph.links.shape, np.int32), np.zeros(graph.upper.shape, np.int32)
    if first > 0:
        owners = np.repeat(np.arange(rows, dtype=np.int32), graph.levels)
        for links, owner, out in ((graph.links, everyone, lengths), (graph.upper, owners, upper_lengths)):
            measure_links(*space, frozen(links), frozen(owner), out)
    counter, locks = np.full(1, first, np.int64), np.zeros(rows, np.int32)
    stamps = [np.zeros(rows, np.uint8) for _ in range(threads)]
    epochs = [0] * threads

    def work(thread: int, limit: int) -> None:
        epochs[thread] = insert_rows(
            *kernel_inputs(matrix), frozen(graph.centre), graph.bits, frozen(graph.records),
            frozen(graph.records.view(np.float32)), by.lift, *space,
            frozen(order), frozen(graph.levels), frozen(first_upper),
            graph.links, frozen(graph.links), lengths, graph.upper, frozen(graph.upper), upper_lengths,
            locks, counter, limit, graph.entry, graph.top, m, ef, NO_BITS, NO_ROWS, stamps[thread], epochs[thread],
        )  # fmt: skip

    followers = rows - len(order)  # done by having been found

    def told(done: int, _: int) -> None:
        if progress is not None:
            progress(done + followers, rows)

    take_turns(work, first, len(order) - held, threads, counter, told)
    if held:
        measure(order[-held:])
        take_turns(work, len(order) - held, len(order), threads, counter, told)
    reach(graph)


def reach(graph: Graph) -> None:
    """Make every node reachable from the entry."""
    nodes = frozen(graph.nodes())
    for _ in range(REACH_ROUNDS):
        if reach_rows(graph.links, graph.entry, nodes) == 0:
            break


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
    with Pool(threads, "vecdb-build") as pool:
        while done < rows:
            if progress is not None:
                progress(done, rows)
            limit = min(done + turn, rows)
            counter[0], started = done, time.perf_counter()
            together = threads if done >= ALONE else 1
            for future in [pool.submit(work, thread, limit) for thread in range(together)]:
                future.result()
            seconds = time.perf_counter() - started
            turn = max(FIRST_TURN, min(4 * turn, int((limit - done) * TURN_SECONDS / max(seconds, 1e-6))))
            done = limit
    if progress is not None:
        progress(rows, rows)
