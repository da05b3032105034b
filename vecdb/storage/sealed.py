"""Sealed segments: immutable files that the catalog names, opened as read-only maps.

Draft            what a new segment shall hold: from a growing segment, or from others that merge
write_segment    draft -> synced files, an entry and a file list for the catalog
open_segment     entry -> Sealed; every size and header is checked against the catalog first
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from vecdb.errors import Corrupted
from vecdb.files import names
from vecdb.files.arrays import ArrayEntry, little_endian, open_array, verify_open, write_array, write_blocks
from vecdb.files.disk import Disk
from vecdb.files.mapping import MappedPages
from vecdb.storage.columns import SealedColumns
from vecdb.storage.first_use import FirstUseCheck
from vecdb.storage.growing import inverse_norms
from vecdb.storage.ids import IdColumn
from vecdb.storage.schema import CollectionMeta, FieldEntry, FieldMeta, IndexEntry, SegmentEntry
from vecdb.types import F32, I32, I64, AnyArray, Matrix, Metric, Vectors

Files = dict[str, ArrayEntry]
Columns = Mapping[str, Mapping[str, AnyArray]]


@dataclass(frozen=True, slots=True)
class DraftField:
    """Vectors of one field. `rows_of`: record row of each field row, None when all records have it."""

    meta: FieldMeta
    dim: int
    count: int
    rows_of: I32 | None
    blocks: Callable[[], Iterable[Vectors]]


@dataclass(frozen=True, slots=True)
class Draft:
    sequences: I64
    ids: IdColumn
    fields: tuple[DraftField, ...]
    columns: Columns


@dataclass(frozen=True, slots=True)
class SealedField:
    """`rows_of` None: field rows are record rows."""

    entry: FieldEntry
    matrix: Matrix
    rows_of: I32 | None


class Sealed:
    """The storage of one sealed segment."""

    def __init__(
        self,
        entry: SegmentEntry,
        sequences: I64,
        order: I32,
        ids: IdColumn,
        fields: dict[int, SealedField],
        columns: SealedColumns,
        files: Files,
        opened: Mapping[Path, AnyArray] | None = None,
    ) -> None:
        self.opened = opened or {}  # every array but those of indexes, by the path of its file
        self.entry, self.sequences, self.order = entry, sequences, order
        self.ids, self.fields, self.columns, self.files = ids, fields, columns, files
        self.rows = entry.rows

    def sequence_of(self, rows: I32) -> I64:
        return self.sequences[rows]

    def rows_of_sequences(self, sequences: I64) -> I32:
        """Row of each sequence, -1 where it is not here."""
        rows = np.full(len(sequences), -1, np.int32)
        entry = self.entry
        inside = np.flatnonzero((sequences >= entry.first_sequence) & (sequences <= entry.last_sequence))
        if len(inside) == 0:
            return rows
        wanted = sequences[inside]
        at = np.minimum(np.searchsorted(self.sequences, wanted, sorter=self.order), self.rows - 1)
        found = self.order[at]
        rows[inside] = np.where(self.sequences[found] == wanted, found, -1)
        return rows

    def verify(self, directory: Path) -> None:
        """Every byte of every file but those of indexes. Corrupted names the first bad block."""
        for path, array in self.opened.items():
            verify_open(path, array, self.files[path.relative_to(directory).as_posix()])

    @property
    def size_bytes(self) -> int:
        return sum(entry.size for entry in self.files.values())


# ---- writing --------------------------------------------------------------------------------------------------------
class SegmentWriter:
    """Writes arrays below one segment directory and keeps their entries."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self.disk, self.directory = disk, directory
        self.files: Files = {}
        self.made: list[Path] = []

    def put(self, path: str, array: AnyArray) -> None:
        self.files[path] = write_array(self.disk, self._place(path), array)

    def put_blocks(self, path: str, dtype: str, shape: tuple[int, ...], blocks: Iterable[AnyArray]) -> None:
        self.files[path] = write_blocks(self.disk, self._place(path), dtype, shape, blocks)

    def _place(self, path: str) -> Path:
        target = self.directory / path
        missing = []
        parent = target.parent
        while parent != self.directory.parent and parent not in self.made and self.disk.kind(parent) != "directory":
            missing.append(parent)
            parent = parent.parent
        for directory in reversed(missing):
            self.disk.make_directory(directory)
            self.made.append(directory)
        return target

    def finish(self) -> None:
        """Syncs every directory that got an entry, deepest first, and the parent of the segment."""
        touched = {self.directory / PurePosixPath(path).parent for path in self.files} | set(self.made)
        touched |= {path.parent for path in self.made}
        for directory in sorted(touched, key=lambda path: -len(path.parts)):
            self.disk.sync_directory(directory)


def write_segment(
    disk: Disk, directory: Path, meta: CollectionMeta, number: int, draft: Draft
) -> tuple[SegmentEntry, Files, tuple[str, ...]]:
    """(entry, files, payload paths of the collection with the new ones). Nothing names the files until a commit."""
    writer = SegmentWriter(disk, directory)
    sequences = draft.sequences
    writer.put("sequences.npy", sequences)
    writer.put("order.npy", np.argsort(sequences, kind="stable").astype(np.int32))
    for name, array in draft.ids.arrays().items():
        writer.put(f"{name}.npy", array)
    for field in draft.fields:
        _write_field(writer, field)
    paths = {path: i for i, path in enumerate(meta.paths)}
    for path, arrays in draft.columns.items():
        place = names.column_directory(paths.setdefault(path, len(paths)))
        for name, array in arrays.items():
            writer.put(f"{place.as_posix()}/{name}.npy", array)
    writer.finish()
    entry = SegmentEntry(
        number,
        len(sequences),
        int(sequences.min()) if len(sequences) else 0,
        int(sequences.max()) if len(sequences) else 0,
        draft.ids.integers is not None,
        tuple(FieldEntry(f.meta.number, f.count, f.dim, f.rows_of is not None) for f in draft.fields),
        tuple(paths[path] for path in draft.columns),
    )
    return entry, writer.files, tuple(paths)


def _write_field(writer: SegmentWriter, field: DraftField) -> None:
    place, cosine = names.field_directory(field.meta.number), field.meta.metric is Metric.COSINE
    norms: list[F32] = []

    def measured() -> Iterable[Vectors]:
        for block in field.blocks():
            if cosine:
                norms.append(inverse_norms(block))
            yield block

    stored = little_endian(np.dtype(field.meta.dtype))
    writer.put_blocks(f"{place}/vectors.npy", stored, (field.count, field.dim), measured())
    if cosine:
        writer.put(f"{place}/inverse_norms.npy", np.concatenate([*norms, np.zeros(0, np.float32)]))
    if field.rows_of is not None:
        writer.put(f"{place}/rows.npy", field.rows_of)


def write_index_arrays(disk: Disk, directory: Path, field: int, number: int, arrays: Mapping[str, AnyArray]) -> Files:
    """The arrays of an index in its numbered directory, synced."""
    writer = SegmentWriter(disk, directory)
    place = names.index_directory(field, number).as_posix()
    for name, array in arrays.items():
        writer.put(f"{place}/{name}.npy", array)
    writer.finish()
    return writer.files


# ---- opening --------------------------------------------------------------------------------------------------------
def open_segment(
    disk: Disk,
    directory: Path,
    meta: CollectionMeta,
    entry: SegmentEntry,
    files: Files,
    check: FirstUseCheck | None = None,
) -> Sealed:
    """Corrupted names the file that is missing or not what the catalog says. Index files are not opened here.

    check   looks at the bytes of files that another process may have written; those of columns wait for their use
    """
    opened: dict[Path, AnyArray] = {}

    def load(path: str) -> AnyArray:
        if path not in files:
            raise Corrupted(directory / path, 0, "the catalog does not know the file")
        place = directory / path
        opened[place] = array = open_array(disk, place, files[path])
        if check is not None and not path.startswith(names.COLUMN_DIRECTORY):
            check(place, array, files[path])
        return array

    def check_column(name: str) -> None:
        for path in column_files(meta.paths.index(name), files):
            verify_open(directory / path, opened[directory / path], files[path])

    ids = ["ids"] if entry.integer_ids else ["id_offsets", "id_bytes"]
    fields = {}
    for field in entry.fields:
        field_meta = next((f for f in meta.fields if f.number == field.number), None)
        if field_meta is None:
            raise Corrupted(directory, 0, f"the catalog names a field {field.number} that the collection does not have")
        fields[field.number] = _open_field(directory, field_meta, field, load)
    if any(number >= len(meta.paths) for number in entry.paths):
        raise Corrupted(directory, 0, "the catalog names a payload path that the collection does not have")
    columns = {
        meta.paths[number]: {PurePosixPath(path).stem: load(path) for path in column_files(number, files)}
        for number in entry.paths
    }
    sequences, order = load("sequences.npy"), load("order.npy")
    loaded = {name: load(f"{name}.npy") for name in ids}
    unknown = sorted(path for path in files if "/index-" not in path and directory / path not in opened)
    if unknown:
        raise Corrupted(directory / unknown[0], 0, "the catalog knows the file, and no part of its segment has it")
    return Sealed(
        entry,
        sequences,
        order,
        IdColumn.from_arrays(loaded),
        fields,
        SealedColumns(entry.rows, columns, check_column),
        files,
        opened,
    )


def column_files(number: int, files: Files) -> list[str]:
    place = names.column_directory(number).as_posix() + "/"
    return [path for path in files if path.startswith(place)]


def _open_field(directory: Path, meta: FieldMeta, field: FieldEntry, load: Callable[[str], AnyArray]) -> SealedField:
    metric, place = meta.metric, names.field_directory(field.number)
    norms = load(f"{place}/inverse_norms.npy") if metric is Metric.COSINE else None
    vectors = load(f"{place}/vectors.npy")
    if vectors.dtype != meta.dtype or vectors.shape != (field.rows, field.dim):
        told = f"{vectors.dtype}{vectors.shape}, not {meta.dtype}{(field.rows, field.dim)}"
        raise Corrupted(directory / place / "vectors.npy", 0, f"the array is {told} as its field says")
    matrix = Matrix(vectors, norms, metric, MappedPages(vectors) if vectors.size else None)
    return SealedField(field, matrix, load(f"{place}/rows.npy") if field.sparse else None)


def open_index_arrays(disk: Disk, directory: Path, field: int, index: IndexEntry, files: Files) -> dict[str, AnyArray]:
    """The arrays of one index. Corrupted if a file is not what the catalog says."""
    place = names.index_directory(field, index.number).as_posix() + "/"
    return {
        path[len(place) : -len(".npy")]: open_array(disk, directory / path, entry)
        for path, entry in files.items()
        if path.startswith(place)
    }
