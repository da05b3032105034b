"""IVF: rows in the lists of their nearest centroids, scanned by RaBitQ codes, decided with float32 vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from vecdb.index import calibration, probing
from vecdb.index.arrivals import arrived, stage, trained
from vecdb.index.base import NO_BITS, expect, frozen, kernel_inputs, result_arrays
from vecdb.index.cold import Cold, decide_cold
from vecdb.index.drift import Fit
from vecdb.index.flat import search_exact
from vecdb.index.grouped import one_group
from vecdb.index.halves import Halves
from vecdb.index.levels import Levels
from vecdb.index.lists import Centres, Codes, Grouping, ListCodes
from vecdb.index.probing import Probing, Setting
from vecdb.index.two_levels import list_count
from vecdb.kernels.blocks import BLOCK
from vecdb.kernels.lists import search_lists
from vecdb.options import IVF, IVFPQ
from vecdb.types import F32, I32, I64, U64, AnyArray, Matrix, Progress, Traits

WHOLE_SHARE = 0.2  # of the rows: where the nearest so many have to be seen, all lists are scanned
PROBES_MIN = 4  # lists that are scanned at least, however near the rows were that were looked for
FILTERED = 1.5  # times as many lists for a filter, which need not pass rows at random
USUAL_SHARE = 0.25  # of the lists, scanned where nothing was measured

# What search_lists takes first: metric, vectors, code, codes, add, scale, slots, starts, sizes, centroids, units;
# those of Centres; signs, turn, bounds, books.
ListInputs = tuple[
    int, AnyArray, int, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray,
    AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray, AnyArray,
]  # fmt: skip


class IvfIndex:
    """See vecdb.options.IVF. trained: how the lists fitted the rows that they were trained on."""

    kind: ClassVar[str] = "ivf"
    coder: ClassVar[type[ListCodes]] = Levels

    def __init__(
        self,
        matrix: Matrix,
        options: IVF | IVFPQ,
        grouping: Grouping,
        coding: ListCodes,
        codes: Codes,
        fit: Fit,
        trained: Fit,
        measured: Probing,
        retrained: Mapping[str, Any] | None = None,
    ) -> None:
        self.matrix, self.options, self.grouping, self.coding, self.codes = matrix, options, grouping, coding, codes
        self.fit, self.trained, self.measured, self.retrained = fit, trained, measured, retrained
        number, signs, turn, bounds, books = coding.inputs()
        centres = Centres(grouping.centroids.values(), grouping.groups, codes.spreads, matrix.metric, signs)
        units = np.array([codes.add.unit, codes.scale.unit, grouping.centroids.unit], np.float32)
        self._fixed: ListInputs = (
            *kernel_inputs(matrix)[:2],
            number,
            codes.codes,
            codes.add.bits,
            codes.scale.bits,
            grouping.slots,
            grouping.starts,
            grouping.sizes,
            grouping.centroids.bits,
            frozen(units),
            *centres.inputs,
            signs,
            turn,
            bounds,
            books,
        )
        self._efforts: dict[tuple[int, float | None, bool], int] = {}  # readings of what was measured
        self._settings: dict[tuple[int, int], Setting] = {}
        self._cold, self._reach = Cold(matrix.pages), fit.reach

    @property
    def traits(self) -> Traits:
        lists = self.grouping.count
        return Traits(self.kind, self.matrix.rows, self.matrix.dim, self.coding.dim_bits, True, False, lists)

    @property
    def indexed_rows(self) -> int:
        return self.matrix.rows

    # ---- made -------------------------------------------------------------------------------------------------------
    @classmethod
    def build(
        cls, matrix: Matrix, options: Any, *, seed: int = 0, threads: int = 1, progress: Progress | None = None
    ) -> Self:
        count = list_count(matrix.rows, options.nlist)
        grouping, assigned = trained(matrix, count, seed, threads, progress)
        return cls._grouped(matrix, options, grouping, assigned, None, None, seed, threads, progress)

    @classmethod
    def _grouped(
        cls,
        matrix: Matrix,
        options: IVF | IVFPQ,
        grouping: Grouping,
        assigned: I32,
        trained: Fit | None,
        coding: ListCodes | None,
        seed: int,
        threads: int,
        progress: Progress | None,
    ) -> Self:
        """An index of rows in these lists; trained, coding: of lists that were trained on other rows."""
        values = grouping.centroids.values()
        fit = Fit.of(matrix, values, assigned)
        if coding is None or not coding.serves(matrix.rows):
            told = stage(progress, matrix.rows, 0.7, 0.8)
            coding = cls.coder.learn(matrix, values, assigned, options, seed=seed, threads=threads, progress=told)
        codes = coding.encode(matrix, grouping, threads, stage(progress, matrix.rows, 0.8, 0.9))
        index = cls(matrix, options, grouping, coding, codes, fit, trained or fit, coding.usual)
        return cls(matrix, options, grouping, coding, codes, fit, trained or fit, index._measure(threads, progress))

    def _measure(self, threads: int, progress: Progress | None) -> Probing:
        def tick() -> None:
            if progress is not None:
                progress(self.matrix.rows, self.matrix.rows)

        def search(queries: F32, k: int, setting: Setting, allow: AnyArray) -> tuple[I32, F32]:
            share = probing.share_of(allow, self.matrix.rows)
            return self._run(queries, k, setting, 0, share, allow, None)

        return probing.measure(self.matrix, self.grouping.count, search, threads, tick, self.measured)

    def carried(self, matrix: Matrix, new_rows: I32, *, threads: int = 1, progress: Progress | None = None) -> Self:
        """New rows go to the nearest lists; lists that have drifted are trained again."""
        assigned = arrived(self.grouping, self.matrix.rows, matrix, new_rows, threads, progress)
        grouping, options = Grouping.of(self.grouping.centroids, self.grouping.groups, assigned), self.options
        fit = Fit.of(matrix, grouping.centroids.values(), assigned)
        wanted = list_count(matrix.rows, options.nlist)
        why = fit.drifted(self.trained, self.grouping.count, wanted) if matrix.rows else "no row is left"
        kept = type(self)._grouped(matrix, options, grouping, assigned, self.trained, self.coding, 0, threads, progress)
        if not why:
            return kept
        index = type(self).build(matrix, options, threads=threads, progress=progress)
        index.retrained = {
            "because": why,
            "rows": matrix.rows,
            "error": [fit.error, index.fit.error],
            "largest": [fit.largest, index.fit.largest],
            "recall": probing.compared(kept.measured, index.measured),
        }
        return index

    # ---- searched ---------------------------------------------------------------------------------------------------
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
        bits = NO_BITS if allow is None else frozen(allow)
        share = probing.share_of(bits, self.matrix.rows)
        lists = self.grouping.count
        scanned, scored = min(nprobe or self.effort(k, None, share), lists), rescore or self.options.rescore
        setting = Setting(scanned, scored) if scored else self._setting(k, scanned)
        # A filter may pass few rows of the nearest lists: go on until as many were seen as of a filter at random.
        wanted = max(k, int(share * scanned * self.matrix.rows / lists)) if allow is not None else k
        return self._run(queries, k, setting, wanted, share, bits, counters)

    def _run(
        self, queries: F32, k: int, setting: Setting, wanted: int, share: float, allow: AnyArray, counters: I64 | None
    ) -> tuple[I32, F32]:
        """share: of the rows that `allow` lets pass."""
        patience = probing.patience(setting, self.grouping.count, share * self.matrix.rows)
        pool = max(k, min(setting.pool, self.matrix.rows))
        slack = np.float32(setting.slack * self._reach)
        counted = np.zeros(4, np.int64) if counters is None else counters
        asked = frozen(queries)

        def scan(kept: int, decided: bool) -> tuple[I32, F32]:
            found, distances = result_arrays(queries, kept)
            search_lists(
                *self._fixed, allow, asked, kept, setting.nprobe, wanted, patience, pool, slack, decided, found,
                distances, counted,
            )  # fmt: skip
            return found, distances

        return self._cold.search(
            lambda: scan(k, True), lambda: decide_cold(self.matrix, queries, k, scan(pool, False)[0], counters)
        )

    def _setting(self, k: int, nprobe: int) -> Setting:
        """As measured; remembered, for it costs as much as scanning a list."""
        setting = self._settings.get((k, nprobe))
        if setting is None:
            setting = probing.setting_of(self.measured, k, nprobe)
            if len(self._settings) < probing.READINGS_MAX:
                self._settings[k, nprobe] = setting
        return setting

    def effort(self, k: int, recall: float | None = None, share: float = 1.0) -> int:
        """As for a graph: the k nearest of a share of the rows are among the k / share nearest of all."""
        if recall is None and self.options.nprobe:
            return min(self.options.nprobe, self.grouping.count)
        if not self.measured.curves:
            return max(1, math.ceil(USUAL_SHARE * self.grouping.count))
        deep = math.ceil(k / max(share, 1e-6))
        if deep > WHOLE_SHARE * self.matrix.rows:
            return self.grouping.count
        nprobe = self._efforts.get((deep, recall, share < 1.0))
        if nprobe is None:
            wanted = calibration.width(self.measured.curves, deep, recall or calibration.DEFAULT_RECALL)
            wanted *= 1.0 if share >= 1.0 else FILTERED
            nprobe = min(max(PROBES_MIN, math.ceil(wanted - 1e-9)), self.grouping.count)
            if len(self._efforts) < probing.READINGS_MAX:
                self._efforts[deep, recall, share < 1.0] = nprobe
        return nprobe

    # ---- stored -----------------------------------------------------------------------------------------------------
    def arrays(self) -> dict[str, AnyArray]:
        grouping = self.grouping
        stored: dict[str, AnyArray] = {
            "codes": self.codes.codes, "slots": grouping.slots, "starts": grouping.starts, "sizes": grouping.sizes,
            "spreads": self.codes.spreads, **{name: halves.stored for name, halves in self._halves().items()},
        }  # fmt: skip
        if len(grouping.groups) > 2:
            stored["groups"] = grouping.groups
        return {**stored, **self.coding.arrays()}

    def _halves(self) -> dict[str, Halves]:
        return {"add": self.codes.add, "scale": self.codes.scale, "centroids": self.grouping.centroids}

    def parameters(self) -> dict[str, Any]:
        return {
            "quantiser": self.coding.name,
            "learned_rows": self.coding.rows,
            "rows": self.matrix.rows,
            "lists": self.grouping.count,
            "groups": len(self.grouping.groups) - 1,
            "blocks": self.grouping.blocks,
            "units": {name: halves.unit for name, halves in self._halves().items()},
            "fit": self.fit.to_dict(),
            "trained": self.trained.to_dict(),
            "probing": self.measured.to_dict(),
            "retrained": dict(self.retrained) if self.retrained else None,
        }

    @classmethod
    def from_arrays(
        cls, matrix: Matrix, options: Any, arrays: Mapping[str, AnyArray], parameters: Mapping[str, Any]
    ) -> Self:
        coding = cls.coder.read(options, arrays, matrix.dim, int(parameters.get("learned_rows", 0)))
        for name, value in (("quantiser", coding.name), ("rows", matrix.rows)):
            if parameters.get(name) != value:
                raise ValueError(f"{name} is {parameters.get(name)!r}, not {value!r}")
        lists, blocks, units = int(parameters["lists"]), int(parameters["blocks"]), parameters.get("units")
        groups = int(parameters.get("groups", 1))
        grouping = Grouping(
            Halves.read(arrays, "centroids", (lists, matrix.dim), units),
            expect(arrays, "groups", np.int32, (groups + 1,)) if groups > 1 else one_group(lists),
            expect(arrays, "starts", np.int32, (lists + 1,)),
            expect(arrays, "sizes", np.int32, (lists,)),
            expect(arrays, "slots", np.int32, (blocks * BLOCK,)),
        )
        grouping.check_bounds(matrix.rows)
        codes = Codes(
            expect(arrays, "codes", np.uint8, (blocks, coding.stride(matrix.dim))),
            Halves.read(arrays, "add", (blocks * BLOCK,), units),
            Halves.read(arrays, "scale", (blocks * BLOCK,), units),
            expect(arrays, "spreads", np.float32, (lists,)),
        )
        fit, trained = Fit.read(parameters.get("fit")), Fit.read(parameters.get("trained"))
        measured = probing.read(parameters.get("probing"), coding.usual)
        return cls(matrix, options, grouping, coding, codes, fit, trained, measured, parameters.get("retrained"))

    def check(self) -> None:
        """Every code is valid; the factors must be numbers, or good rows would be lost."""
        self.grouping.check(self.matrix.rows)
        halves = {name: halves.stored for name, halves in self._halves().items()}
        for name, values in {**halves, "spreads": self.codes.spreads, **self.coding.arrays()}.items():
            if not np.isfinite(values).all():
                raise ValueError(f"array {name!r} holds a value that is not a number")
