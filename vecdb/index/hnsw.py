"""HNSW: a navigable small-world graph, walked with RaBitQ codes, decided with float32 vectors."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from vecdb.index import calibration, graph_builder
from vecdb.index.base import NO_BITS, NO_NORMS, expect, frozen, kernel_inputs, result_arrays
from vecdb.index.calibration import Curve, Curves
from vecdb.index.code_quality import BITS, Codes, choose_codes
from vecdb.index.excerpt import Excerpt
from vecdb.index.flat import search_exact
from vecdb.index.gather import FEW_DIMS, can_gather, gather
from vecdb.index.graph_builder import FINE_BITS, LINE, Graph, fine_shape
from vecdb.index.graph_carrier import carry_graph
from vecdb.index.graph_check import check_links
from vecdb.index.second_look import counts
from vecdb.index.visited import Visited
from vecdb.kernels import bitset
from vecdb.kernels.graph import NO_LIMIT
from vecdb.kernels.graph_search import EXPECTED, search_graph
from vecdb.kernels.quantize import centre_of
from vecdb.kernels.row_codes import record_bytes
from vecdb.options import EF_MAX, HNSW
from vecdb.types import F32, I32, I64, U64, AnyArray, Matrix, Progress, Traits

QUANTISER = "rabitq-records-v1"
EFFORTS_MAX = 1024  # readings of the curves that are kept
NO_BALLS = frozen(np.empty((0, 2), np.int64))
NO_FINE = frozen(np.empty((0, LINE), np.uint8))
GRAPH_ARRAYS = ("records", "fine", "levels", "links", "upper", "twins", "centre")


# What search_graph takes first: metric, vectors, bits, records, factors, fine bits, fine, fine factors, no_extra,
# links, upper, first_upper, twins, centre, entry, top.
WalkInputs = tuple[
    int, AnyArray, int, AnyArray, AnyArray, int, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray,
    AnyArray, int, int,
]  # fmt: skip


class HnswIndex:
    """See vecdb.options.HNSW."""

    kind: ClassVar[str] = "hnsw"

    def __init__(self, matrix: Matrix, options: HNSW, graph: Graph, seed: int, curves: Curves) -> None:
        self.matrix, self.options, self.graph, self.seed, self.curves = matrix, options, graph, seed, curves
        self._inputs = kernel_inputs(matrix)
        self._fixed: WalkInputs = (
            *self._inputs[:2],
            graph.bits,
            frozen(graph.records),
            frozen(graph.records.view(np.float32)),
            FINE_BITS,
            frozen(graph.fine),
            frozen(graph.fine.view(np.float32)),
            NO_NORMS,
            frozen(graph.links),
            frozen(graph.upper),
            frozen(graph.first_upper()),
            frozen(graph.twins),
            frozen(graph.centre),
            graph.entry,
            graph.top,
        )
        self._efforts: dict[tuple[int, int, float | None], int] = {}  # readings of the curves
        self._steps: dict[tuple[int, int, int], AnyArray] = {}  # of filtered walks
        # None is left out where codes tell too little, or where scoring costs nothing.
        self._sure = graph.codes.sure and matrix.dim >= FEW_DIMS
        self._visited: deque[Visited] = deque()  # one per concurrent search, kept for the next

    @property
    def traits(self) -> Traits:
        rows, dim, bits = self.matrix.rows, self.matrix.dim, self.graph.bits
        return Traits(self.kind, rows, dim, bits, masked=False, graph=True, gathers=can_gather(self.graph, dim))

    @property
    def indexed_rows(self) -> int:
        return self.matrix.rows

    @classmethod
    def build(
        cls, matrix: Matrix, options: HNSW, *, seed: int = 0, threads: int = 1, progress: Progress | None = None
    ) -> Self:
        centre = centre_of(matrix.metric, matrix.vectors, matrix.inverse_norms)
        twins = graph_builder.find_twins(matrix)
        levels = graph_builder.draw_levels(0, matrix.rows, options.m, seed) * graph_builder.nodes_of(twins)
        codes = choose_codes(matrix, centre, options.bits)
        graph = graph_builder.empty_graph(matrix.rows, matrix.dim, options.m, levels, twins, centre, codes)
        curves: dict[int, Curve] = {}

        def measure(nodes: I32) -> None:
            curves.update(cls._measured(matrix, options, graph, nodes, threads, progress))

        if matrix.rows:
            graph_builder.encode(graph, matrix, 0, progress)
            order, held = calibration.hold_out(graph_builder.order_of(graph), 1)
            graph_builder.insert(
                graph, matrix, 0, options.ef_construction, max(1, threads), progress, order, held, measure
            )
        return cls(matrix, options, graph, seed, curves)

    def carried(self, matrix: Matrix, new_rows: I32, *, threads: int = 1, progress: Progress | None = None) -> Self:
        options, seed = self.options, self.seed + 1  # other levels than those of the rows that were new last time
        centre = centre_of(matrix.metric, matrix.vectors, matrix.inverse_norms)
        codes = choose_codes(matrix, centre, options.bits)
        curves: dict[int, Curve] = {}

        def measure(graph: Graph, nodes: I32) -> None:
            curves.update(self._measured(matrix, options, graph, nodes, threads, progress))

        graph = carry_graph(
            self.graph, self.matrix, matrix, new_rows, centre, codes, options.ef_construction, seed, max(1, threads),
            progress, measure,
        )  # fmt: skip
        if graph is None:
            return type(self).build(matrix, options, seed=seed, threads=threads, progress=progress)
        return type(self)(matrix, options, graph, seed, curves or self.curves)

    @classmethod
    def _measured(
        cls, matrix: Matrix, options: HNSW, graph: Graph, held: I32, threads: int, progress: Progress | None
    ) -> dict[int, Curve]:
        """The curves of a graph that holds all nodes but `held`."""
        part = cls(matrix, options, graph, 0, {})

        def tick() -> None:
            if progress is not None:
                progress(matrix.rows - len(held), matrix.rows)

        def walk(queries: F32, k: int, ef: int) -> F32:
            return part.search(queries, k, ef=ef)[1]

        return calibration.measure(matrix, graph.twins, held, walk, max(1, threads), tick)

    def search(
        self,
        queries: F32,
        k: int,
        *,
        allow: U64 | None = None,
        rows: I32 | None = None,
        ef: int | None = None,
        nprobe: int | None = None,
        rescore: int | None = None,
        budget: int | None = None,
        counters: I64 | None = None,
    ) -> tuple[I32, F32]:
        if rows is not None or self.matrix.rows == 0:
            return search_exact(self.matrix, queries, k, allow, rows, counters)
        found, distances = result_arrays(queries, k)
        width = max(ef or self.effort(k), k)
        balls = NO_BALLS if allow is None or budget is None else self._balls(k, width, bitset.count(allow))
        reach, width = (width, width) if len(balls) == 0 else (int(balls[-1, 1]), int(balls[0, 1]))
        scored, collected = counts(self.graph.bits, self._sure, k, width, rescore)
        visited = self._take()
        try:
            visited.epoch = search_graph(
                *self._fixed,
                NO_BITS if allow is None else frozen(allow),
                frozen(queries),
                k,
                reach,
                max(reach, collected),
                scored,
                balls,
                collected,
                NO_LIMIT if budget is None else np.int64(budget),
                visited.stamps,
                visited.epoch,
                found,
                distances,
                visited.counters if counters is None else counters,
            )
        finally:
            self._visited.append(visited)
        return found, distances

    def gather(
        self, queries: F32, k: int, rows: I32, *, rescore: int | None = None, counters: I64 | None = None
    ) -> tuple[I32, F32]:
        """The k nearest of `rows`, ascending, by their codes, the best of them scored exactly; traits.gathers."""
        return gather(self._fixed, queries, k, rows, rescore, counters)

    def excerpt(self, rows: I32) -> Excerpt:
        """Copies of the codes of `rows`, ascending, that are searched like these in less time; traits.gathers."""
        return Excerpt(self._fixed, rows)

    def _balls(self, k: int, ef: int, allowed: int) -> AnyArray:
        """Steps of a walk under a filter: (how many nearest are known, how many nodes that takes); see widen.

        ef   what finds k allowed rows where the filter is the same everywhere: the scale of what the curves say
        """
        share = max(allowed, 1) / self.matrix.rows
        key = k, ef, round(calibration.STEPS_PER_DOUBLING * math.log2(share))
        balls = self._steps.get(key)
        if balls is None:
            balls = frozen(calibration.steps(self.curves, k, ef, share, EXPECTED, self.matrix.rows))
            if len(self._steps) < EFFORTS_MAX:
                self._steps[key] = balls
        return balls

    def effort(self, k: int, recall: float | None = None, share: float = 1.0) -> int:
        """The k nearest of a share of the rows are among the k / share nearest of all: a walk has to meet these."""
        deep = min(math.ceil(k / max(share, 1e-6)), max(k, EF_MAX))
        ef = self._efforts.get((k, deep, recall))
        if ef is None:
            wish = recall or calibration.DEFAULT_RECALL
            ef = calibration.effort(self.curves, k, wish)
            if recall is None:
                ef = max(self.options.ef, k) if self.options.ef else max(ef, calibration.DEFAULT_EF_MIN)
            ef = min(math.ceil(ef * calibration.further(self.curves, k, deep, wish)), max(k, EF_MAX))
            if len(self._efforts) < EFFORTS_MAX:
                self._efforts[k, deep, recall] = ef
        return ef

    def _take(self) -> Visited:
        try:
            return self._visited.pop()
        except IndexError:  # all are in use
            return Visited(self.matrix.rows)

    def arrays(self) -> dict[str, AnyArray]:
        return {name: array for name in GRAPH_ARRAYS if (array := getattr(self.graph, name)).size or name != "fine"}

    def parameters(self) -> dict[str, Any]:
        return {
            "quantiser": QUANTISER,
            "rows": self.matrix.rows,
            "bits": self.graph.bits,
            "sure": self.graph.codes.sure,
            "entry": self.graph.entry,
            "seed": self.seed,
            "curves": calibration.to_lists(self.curves),
        }

    @classmethod
    def from_arrays(
        cls, matrix: Matrix, options: HNSW, arrays: Mapping[str, AnyArray], parameters: Mapping[str, Any]
    ) -> Self:
        rows, m = matrix.rows, options.m
        for name, value in (("quantiser", QUANTISER), ("rows", rows)):
            if parameters.get(name) != value:
                raise ValueError(f"{name} is {parameters.get(name)!r}, not {value!r}")
        entry, bits = int(parameters["entry"]), int(parameters["bits"])
        if not 0 <= entry < max(rows, 1) or bits not in BITS:
            raise ValueError(f"entry {entry} or bits {bits} is out of range")
        levels = expect(arrays, "levels", np.uint8, (rows,))
        graph = Graph(
            Codes(bits, bool(parameters["sure"])),
            expect(arrays, "records", np.uint8, (rows, record_bytes(bits, matrix.dim))),
            expect({"fine": NO_FINE, **arrays}, "fine", np.uint8, fine_shape(bits, rows, matrix.dim)),
            levels,
            expect(arrays, "links", np.int32, (rows, 2 * m)),
            expect(arrays, "upper", np.int32, (int(levels.sum(dtype=np.int64)), m)),
            expect(arrays, "twins", np.int32, (rows,)),
            expect(arrays, "centre", np.float32, (matrix.dim,)),
            entry,
        )
        curves = calibration.from_lists(parameters.get("curves"))
        return cls(matrix, options, graph, int(parameters.get("seed", 0)), curves)

    def check(self) -> None:
        """Ids, row ends, levels and the entry; ValueError says what is damaged."""
        graph, rows = self.graph, self.matrix.rows
        if rows and int(graph.levels.max()) > graph.top:
            raise ValueError("the entry is not on the highest level")
        if not np.isfinite(graph.centre).all():
            raise ValueError("array 'centre' holds a value that is not a number")
        owners = np.repeat(np.arange(rows), graph.levels)
        for name, links, nodes in (("links", graph.links, np.arange(rows)), ("upper", graph.upper, owners)):
            check_links(name, links, nodes, rows)
        followers = graph.twins[graph.twins != -1]
        if len(followers) and (
            followers.min() < 0 or followers.max() >= rows or len(np.unique(followers)) < len(followers)
        ):
            raise ValueError("array 'twins' holds an id outside the rows, or one twice")
        level = np.concatenate([np.arange(1, top + 1) for top in graph.levels[graph.levels > 0]] or [np.empty(0, int)])
        used = graph.upper >= 0
        if (graph.levels[graph.upper[used]] < np.repeat(level, used.sum(1))).any():
            raise ValueError("array 'upper' links to a node that is not on that level")
