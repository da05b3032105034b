"""What can search one field of one segment now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from vecdb.engine.costs import Place
from vecdb.engine.kernels import Kernels
from vecdb.engine.slots import IndexSlot
from vecdb.engine.view import FieldView
from vecdb.index.base import Index
from vecdb.index.growing import GrowingFlat
from vecdb.types import Traits

if TYPE_CHECKING:  # it loads the compiler
    from vecdb.index.hnsw import HnswIndex

CODED_BY_SEARCH = 16_384  # rows of a growing segment without codes at which a search codes them itself
FLAT_KINDS = ("flat",)
GRAPH_KINDS = ("hnsw",)
LIST_KINDS = ("ivf", "ivfpq")


class Door(NamedTuple):
    """What can search one field of one segment now. `compiled` is false while NumPy answers for the kernels."""

    field: FieldView
    compiled: bool
    flat: Index | GrowingFlat | None = None
    graph: Index | None = None
    lists: Index | None = None

    @property
    def traits(self) -> list[Traits]:
        traits = []
        if isinstance(self.flat, GrowingFlat):
            traits.append(self.flat.traits(self.field.matrix))
        elif self.flat is not None:
            traits.append(self.flat.traits)
        return traits + [index.traits for index in (self.graph, self.lists) if index is not None]

    def stands(self) -> bool:
        """Whether no index behind it was found damaged since."""
        slots = self.field.indexes or {}
        return not any(slot.damaged for slot in slots.values())


def open_door(kernels: Kernels, field: FieldView) -> Door:
    if not kernels.usable(field.matrix):
        return Door(field, compiled=False)
    if field.growing is not None:
        if field.matrix.rows - field.growing.coded_rows > CODED_BY_SEARCH:
            field.growing.extend(field.matrix, wait=False)
        return Door(field, True, field.growing)
    slots = field.indexes or {}
    flat, graph, lists = _attached(slots, FLAT_KINDS), _attached(slots, GRAPH_KINDS), _attached(slots, LIST_KINDS)
    return Door(field, True, flat, graph, lists)


def _attached(slots: Mapping[str, IndexSlot], kinds: Sequence[str]) -> Index | None:
    for kind in kinds:
        if kind in slots:
            return slots[kind].get()
    return None


def place_of(door: Door) -> Place | None:
    """What the costs of its searches depend on; None while NumPy answers."""
    if not door.compiled:
        return None
    matrix, flat, graph = door.field.matrix, door.flat, cast("HnswIndex | None", door.graph)
    if isinstance(flat, GrowingFlat):
        flat_bits = flat.traits(matrix).code_bits
    else:
        flat_bits = 0 if flat is None else flat.traits.code_bits
    graph_bits, m = (0, 0) if graph is None else (graph.traits.code_bits, graph.options.m)
    lists = None if door.lists is None else door.lists.traits
    listed = None if lists is None else (lists.kind, lists.code_bits, lists.lists)
    return Place(matrix.dim, matrix.vectors.dtype.name, flat_bits, graph_bits, m, matrix.rows.bit_length(), listed)
