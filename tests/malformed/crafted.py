"""Files that someone made on purpose: their checksums fit, their contents do not."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import numpy as np

from tests.malformed import damage
from tests.malformed.template import DELETED, ROWS, TAIL, TAIL_ROWS
from vecdb.files.record import (
    BATCH,
    CLOSE,
    COMMIT,
    FILE_HEADER_SIZE,
    MARK,
    RECORD_HEADER_SIZE,
    FileHeader,
    decode_file_header,
    encode_record,
    read_records,
)
from vecdb.storage.catalog_pages import META, META_TAIL, PAGE_HEADER, TREE
from vecdb.storage.schema import SUPERBLOCK, seal
from vecdb.storage.snapshot import Table

PAGE = 4096
SEALED = ROWS - DELETED  # rows of the segment of "docs"
NEXT = ROWS + TAIL * TAIL_ROWS + 1  # the sequence that the next record of "docs" gets


@dataclass(frozen=True, slots=True)
class Crafted:
    """`make` changes a database directory. `outcomes`: what may follow."""

    make: Callable[[Path], None]
    outcomes: tuple[str, ...] = ("error",)


CASES: dict[str, Crafted] = {}


def case(name: str, *outcomes: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def keep(make: Callable[[Path], None]) -> Callable[[Path], None]:
        assert name not in CASES, name
        CASES[name] = Crafted(make, outcomes or ("error",))
        return make

    return keep


def add(name: str, make: Callable[[Path], None], *outcomes: str) -> None:
    case(name, *outcomes)(make)


# ---- superblock -----------------------------------------------------------------------------------------------------
def superblock(root: Path, **changes: int) -> None:
    path = damage.place_of(root, "superblock")
    names = ("magic", "version", "zero", "must_know", "read_only", "uuid", "time_ns", "zero_2", "crc")
    fields = dict(zip(names, SUPERBLOCK.unpack(path.read_bytes()), strict=True))
    fields.update(changes)
    body = SUPERBLOCK.pack(*list(fields.values())[:-1], 0)[:-4]
    damage.put(path, body + struct.pack("<I", zlib.crc32(body)))


for version in (0, 2, 3, 2**31, 2**32 - 1):
    add(f"superblock-version-{version}", lambda root, v=version: superblock(root, version=v))  # type: ignore[misc]
for bit in (0, 1, 31, 63):
    add(f"superblock-must-know-{bit}", lambda root, b=bit: superblock(root, must_know=1 << b))  # type: ignore[misc]
    add(f"superblock-read-only-{bit}", lambda root, b=bit: superblock(root, read_only=1 << b), "error", "answer")  # type: ignore[misc]
add("superblock-other-uuid", lambda root: superblock(root, uuid=b"\x00" * 16))  # type: ignore[arg-type]
add("superblock-time-overflow", lambda root: superblock(root, time_ns=2**64 - 1), "answer")


# ---- arrays ---------------------------------------------------------------------------------------------------------
def npy(descr: object, shape: object, fortran: object = False, data: bytes = b"", version: int = 1) -> bytes:
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape})
    return raw_npy(text.encode(), data, version)


def raw_npy(text: bytes, data: bytes = b"", version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


class Bomb:
    """Unpickling this would end the process with a code that no other case has."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import os; os._exit(99)",)


def pickled() -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return out.getvalue() + pickle.dumps(np.array([Bomb()], object))


HOSTILE_ARRAYS = {
    "pickled-objects": pickled(),
    "objects-no-data": npy("|O", (1 << 20,)),
    "fortran": npy("<f4", (SEALED, 64), True, bytes(SEALED * 64 * 4)),
    "negative-rows": npy("<f4", (-1, 64)),
    "rows-2-63": npy("<f4", (2**63, 64)),
    "rows-2-63-less-1": npy("<f4", (2**63 - 1,)),
    "rows-2-64": npy("<f4", (2**64, 1)),
    "product-overflow": npy("<f4", (2**32, 2**32)),
    "product-wraps-to-0": npy("<f4", (2**31, 2**31, 4)),
    "zero-rows": npy("<f4", (0, 64)),
    "thousand-dimensions": npy("<f4", (1,) * 1000),
    "float-shape": npy("<f4", (1.5, 64)),
    "string-shape": npy("<f4", ("a",)),
    "nested-shape": npy("<f4", ((1, 2), 3)),
    "nested-dtype": npy([("a", [("b", "<f4")])], (1,)),
    "sub-array-dtype": npy([("a", "<f4", (2**31,))], (1,)),
    "huge-string-dtype": npy("|S2147483647", (1,)),
    "void-dtype": npy("|V1099511627776", (1,)),
    "big-endian": npy(">f4", (SEALED, 64), False, bytes(SEALED * 64 * 4)),
    "float64": npy("<f8", (SEALED, 32), False, bytes(SEALED * 64 * 4)),
    "unknown-dtype": npy("<f3", (1,)),
    "missing-keys": raw_npy(b"{'descr': '<f4'}"),
    "more-keys": raw_npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}"),
    "code": raw_npy(b"__import__('os')._exit(99)"),
    "deep-nesting": raw_npy(b"(" * 30000 + b")" * 30000),
    "header-of-64-kib": raw_npy(b" " * 65535),
    "header-of-4-gib": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{}",
    "version-2": npy("<f4", (SEALED, 64), False, bytes(SEALED * 64 * 4), version=2),
    "version-9": npy("<f4", (1,), version=9),
    "not-ascii": raw_npy("{'descr': '<f4', 'shape': (é)}".encode()),
    "nul-bytes": raw_npy(b"\x00" * 118),
    "only-magic": b"\x93NUMPY",
    "zip-archive": b"PK\x03\x04" + bytes(200),
}
for title, hostile in HOSTILE_ARRAYS.items():
    add(f"array-{title}", lambda root, data=hostile: damage.put(damage.place_of(root, "docs.vectors"), data))  # type: ignore[misc]
    add(
        f"array-padded-{title}",  # of the right size
        lambda root, data=hostile: same_size(damage.place_of(root, "docs.vectors"), data),  # type: ignore[misc]
        *(("answer",) if title == "only-magic" else ()),  # it is what was there
    )


def same_size(path: Path, data: bytes) -> None:
    old = path.read_bytes()
    damage.put(path, data[: len(old)] + old[len(data) :])


# ---- the log --------------------------------------------------------------------------------------------------------
def log_of(root: Path) -> tuple[Path, FileHeader, list[tuple[int, int, int, int, bytes]]]:
    """(path, header, [(kind, flags, lsn, synced, payload)])"""
    path = damage.place_of(root, "log")
    data = path.read_bytes()
    header = decode_file_header(data)
    assert isinstance(header, FileHeader)
    records = read_records(memoryview(data), header.salt, FILE_HEADER_SIZE)
    return path, header, [(r.kind, r.flags, r.lsn, r.synced_upto, bytes(r.payload)) for r in records]


def put_log(path: Path, header: FileHeader, records: list[tuple[int, int, int, int, bytes]]) -> None:
    parts: list[Any] = [header.encode()]
    for kind, flags, lsn, synced, payload in records:
        parts += encode_record(header.salt, kind, flags, lsn, synced, 0, payload)
    damage.put(path, b"".join(parts))


def log_header(root: Path, **changes: Any) -> None:
    path, header, records = log_of(root)
    put_log(path, replace(header, **changes), records)


def log_record(root: Path, at: int, kind: Any = None, flags: Any = None, lsn: Any = None, synced: Any = None) -> None:
    path, header, records = log_of(root)
    old = records[at]
    new = [was if value is None else value for was, value in zip(old, (kind, flags, lsn, synced), strict=False)]
    records[at] = (*new, old[4])  # type: ignore[assignment]
    put_log(path, header, records)


def log_payload(root: Path, payload: bytes) -> None:
    """A batch of these bytes after the others, with all checksums right."""
    path, header, records = log_of(root)
    batches = [record for record in records if record[0] == BATCH]
    put_log(path, header, [*batches, (BATCH, COMMIT, batches[-1][2] + 1, 0, payload)])


def raw_header(root: Path, offset: int, value: int, size: int, fixed: bool) -> None:
    """Other bytes in the header of the first record; `fixed`: with a checksum that fits."""
    path, header, _ = log_of(root)
    data = bytearray(path.read_bytes())
    start = FILE_HEADER_SIZE
    data[start + offset : start + offset + size] = value.to_bytes(size, "little")
    if fixed:
        head = bytes(data[start : start + RECORD_HEADER_SIZE - 4])
        data[start + RECORD_HEADER_SIZE - 4 : start + RECORD_HEADER_SIZE] = zlib.crc32(
            head, header.salt & 0xFFFFFFFF
        ).to_bytes(4, "little")
    damage.put(path, bytes(data))


for length in (0, 1, 7, 2**24, 2**24 + 1, 2**31, 2**32 - 1):
    add(f"log-length-{length}", lambda root, n=length: raw_header(root, 8, n, 4, True), "error", "prefix")  # type: ignore[misc]
    add(f"log-length-{length}-unsealed", lambda root, n=length: raw_header(root, 8, n, 4, False), "error", "prefix")  # type: ignore[misc]
for kind in (0, 4, 255):
    add(f"log-kind-{kind}", lambda root, n=kind: log_record(root, 0, kind=n), "error", "prefix")  # type: ignore[misc]
for flags in (0, 2, 3, 128, 255):
    add(f"log-flags-{flags}", lambda root, n=flags: log_record(root, 0, flags=n), "error", "prefix", "answer")  # type: ignore[misc]
for lsn in (0, 1, 7, 100, 2**63, 2**64 - 1):
    add(f"log-lsn-{lsn}", lambda root, n=lsn: log_record(root, 0, lsn=n), "error", "prefix")  # type: ignore[misc]
    add(f"log-last-lsn-{lsn}", lambda root, n=lsn: log_record(root, 3, lsn=n), "error", "prefix")  # type: ignore[misc]
for synced in (1, 2**20, 2**63, 2**64 - 1):
    add(f"log-synced-{synced}", lambda root, n=synced: log_record(root, 0, synced=n), "error", "answer")  # type: ignore[misc]
add("log-format-2", lambda root: log_other_format(root, 2))
add("log-format-0", lambda root: log_other_format(root, 0))
add("log-other-uuid", lambda root: log_header(root, uuid=b"\x07" * 16))
for start in (0, 1, 8, 2**63, 2**64 - 1):
    add(f"log-start-{start}", lambda root, n=start: log_header(root, start_lsn=n), "error", "prefix")  # type: ignore[misc]
for epoch in (0, 2, 2**32 - 1):
    add(f"log-epoch-{epoch}", lambda root, n=epoch: log_header(root, epoch=n), "error", "answer", "prefix")  # type: ignore[misc]
add("log-chain-claimed", lambda root: log_header(root, previous=77, previous_length=2**63), "error", "answer")


def log_other_format(root: Path, number: int) -> None:
    path = damage.place_of(root, "log")
    data = bytearray(path.read_bytes())
    data[8:10] = number.to_bytes(2, "little")
    data[60:64] = zlib.crc32(bytes(data[:60])).to_bytes(4, "little")
    damage.put(path, bytes(data))


@case("log-marks-only", "prefix", "error")
def _marks_only(root: Path) -> None:
    path, header, _ = log_of(root)
    put_log(path, header, [(MARK, 0, 0, 0, b"")] * 1000 + [(CLOSE, 0, 0, 0, b"")])


@case("log-frames-without-end", "prefix", "error")
def _frames_without_end(root: Path) -> None:
    path, header, records = log_of(root)
    put_log(path, header, [(BATCH, 0, records[0][2], 0, bytes(1 << 16))] * 64)


@case("log-twice-the-same-batch", "error", "prefix")
def _twice(root: Path) -> None:
    path, header, records = log_of(root)
    put_log(path, header, [records[0], *records])


@case("log-two-files-of-one-start", "error")
def _two_files(root: Path) -> None:
    path, header, records = log_of(root)
    other = path.with_name(f"{header.start_lsn:020d}-{'ab' * 16}.wal")
    other.write_bytes(path.read_bytes())
    put_log(other, replace(header, salt=header.salt ^ 1), records)


@case("log-a-thousand-empty-files", "error", "answer")
def _thousand_files(root: Path) -> None:
    path, _, _ = log_of(root)
    for number in range(1000):
        path.with_name(f"{number:020d}-{number:032x}.tmp").write_bytes(b"")


def batch(heads: Any, tail: bytes = b"") -> bytes:
    head = msgpack.packb(heads) if not isinstance(heads, bytes) else heads
    return struct.pack("<I", len(head)) + head + tail


def part(**changes: Any) -> dict[str, Any]:
    return {"c": 1, "q": NEXT, "k": [], "p": [], "f": [], "s": 0, "r": [], **changes}


KEY = b"snew"
PAYLOAD = msgpack.packb({"int": 1})
HOSTILE_BATCHES = {
    "empty": b"",
    "short": b"\x01\x00",
    "length-beyond": struct.pack("<I", 2**32 - 1) + b"\x90",
    "not-msgpack": batch(b"\xc1" * 40),
    "deep-lists": batch(b"\x91" * 200_000 + b"\xc0"),
    "deep-maps": batch(b"\x81\xa1a" * 100_000 + b"\xc0"),
    "array-announced-2-32": batch(b"\xdd\xff\xff\xff\xff"),
    "map-announced-2-32": batch(b"\xdf\xff\xff\xff\xff"),
    "bytes-announced-2-32": batch(b"\xc6\xff\xff\xff\xff"),
    "string-announced-2-31": batch(b"\xdb\x7f\xff\xff\xff"),
    "extension-announced": batch(b"\xc9\x7f\xff\xff\xff\x01"),
    "a-number": batch(7),
    "a-map": batch({"c": 1}),
    "no-keys": batch([{}]),
    "trailing": batch(msgpack.packb([]) + b"\xc0" * 100),
    "negative-collection": batch([part(c=-1, k=[KEY], p=[PAYLOAD])]),
    "collection-string": batch([part(c="1", k=[KEY], p=[PAYLOAD])]),
    "collection-list": batch([part(c=[1])]),
    "sequence-negative": batch([part(q=-5, k=[KEY], p=[PAYLOAD])]),
    "sequence-2-63": batch([part(q=2**63, k=[KEY], p=[PAYLOAD])]),
    "sequence-float": batch([part(q=1.5, k=[KEY], p=[PAYLOAD])]),
    "sequence-used": batch([part(q=1, k=[KEY], p=[PAYLOAD])]),
    "superseded-2-40": batch([part(s=2**40)]),
    "superseded-negative": batch([part(s=-2)]),
    "superseded-string": batch([part(s="x")]),
    "keys-without-payloads": batch([part(k=[KEY])]),
    "payloads-without-keys": batch([part(p=[PAYLOAD])]),
    "key-number": batch([part(k=[5], p=[PAYLOAD])]),
    "key-empty": batch([part(k=[b""], p=[PAYLOAD])]),
    "key-unknown-type": batch([part(k=[b"z123"], p=[PAYLOAD])]),
    "key-huge": batch([part(k=[b"s" + b"x" * 4000], p=[PAYLOAD])]),
    "key-not-utf8": batch([part(k=[b"s\xff\xfe"], p=[PAYLOAD])]),
    "payload-number": batch([part(k=[KEY], p=[7])]),
    "payload-not-msgpack": batch([part(k=[KEY], p=[b"\xc1"])]),
    "payload-list": batch([part(k=[KEY], p=[msgpack.packb([1])])]),
    "payload-deep": batch([part(k=[KEY], p=[b"\x81\xa1a" * 5000 + b"\xc0"])]),
    "payload-announced": batch([part(k=[KEY], p=[b"\xdf\xff\xff\xff\xff"])]),
    "payload-extension": batch([part(k=[KEY], p=[b"\x81\xa1a\xd4\x09\x00"])]),
    "payload-date-overflow": batch([part(k=[KEY], p=[b"\x81\xa1a\xd7\x01" + b"\x7f" * 8])]),
    "rows-2-62": batch([part(k=[KEY], p=[PAYLOAD], f=[[1, 2**62, 64, None, "float32"]])]),
    "rows-negative": batch([part(k=[KEY], p=[PAYLOAD], f=[[1, -1, 64, None, "float32"]])], bytes(256)),
    "rows-more-than-keys": batch([part(k=[KEY], p=[PAYLOAD], f=[[1, 2, 64, None, "float32"]])], bytes(512)),
    "dim-other": batch([part(k=[KEY], p=[PAYLOAD], f=[[1, 1, 63, None, "float32"]])], bytes(252)),
    "dim-0": batch([part(k=[KEY], p=[PAYLOAD], f=[[1, 1, 0, None, "float32"]])]),
    "dtype-object": batch([part(k=[KEY], p=[PAYLOAD], f=[[1, 1, 64, None, "object"]])], bytes(512)),
    "dtype-other": batch([part(k=[KEY], p=[PAYLOAD], f=[[1, 1, 64, None, "float16"]])], bytes(128)),
    "field-unknown": batch([part(k=[KEY], p=[PAYLOAD], f=[[9, 1, 64, None, "float32"]])], bytes(256)),
    "field-short": batch([part(k=[KEY], p=[PAYLOAD], f=[[1]])]),
    "places-beyond": batch([part(k=[KEY], p=[PAYLOAD], f=[[1, 1, 64, struct.pack("<i", 9), "float32"]])], bytes(256)),
    "places-negative": batch(
        [part(k=[KEY], p=[PAYLOAD], f=[[1, 1, 64, struct.pack("<i", -1), "float32"]])], bytes(256)
    ),
    "places-odd": batch([part(k=[KEY], p=[PAYLOAD], f=[[1, 1, 64, b"abc", "float32"]])], bytes(256)),
    "removed-number": batch([part(r=[5])]),
    "vectors-nan": batch([part(k=[KEY], p=[PAYLOAD], f=[[1, 1, 64, None, "float32"]])], b"\xff" * 256),
}
for title, hostile in HOSTILE_BATCHES.items():
    add(f"batch-{title}", lambda root, data=hostile: log_payload(root, data))  # type: ignore[misc]


# ---- the catalog ----------------------------------------------------------------------------------------------------
def meta_page(root: Path, number: int, **changes: int) -> None:
    """Words of a meta page: magic, version, page_size, transaction, last_page, or free_/main_ and a word of a tree."""
    path = damage.place_of(root, "catalog")
    data = bytearray(path.read_bytes())
    base = number * PAGE + PAGE_HEADER
    tree = {"flags": (4, 2), "depth": (6, 2), "branch": (8, 8), "leaf": (16, 8), "entries": (32, 8), "root": (40, 8)}
    places = {"magic": (0, 4), "version": (4, 4), "map_size": (16, 8), "page_size": (META.size, 4)}
    for name, (offset, size) in tree.items():
        places[f"free_{name}"] = (META.size + offset, size)
        places[f"main_{name}"] = (META.size + TREE.size + offset, size)
    tail = META.size + 2 * TREE.size
    places |= {"last_page": (tail, 8), "transaction": (tail + META_TAIL.size - 8, 8)}
    for name, value in changes.items():
        offset, size = places[name]
        data[base + offset : base + offset + size] = value.to_bytes(size, "little")
    damage.put(path, bytes(data))


def newest_meta(root: Path, **changes: int) -> None:
    data = damage.place_of(root, "catalog").read_bytes()
    at = PAGE_HEADER + META.size + 2 * TREE.size + 8
    newest = max((0, 1), key=lambda n: int.from_bytes(data[n * PAGE + at : n * PAGE + at + 8], "little"))
    meta_page(root, newest, **changes)


HOSTILE_METAS: dict[str, dict[str, int]] = {
    "magic": {"magic": 0xDEADBEEF},
    "version-2": {"version": 2},
    "version-999": {"version": 999},
    "page-size-0": {"page_size": 0},
    "page-size-1": {"page_size": 1},
    "page-size-3000": {"page_size": 3000},
    "page-size-512": {"page_size": 512},
    "page-size-65536": {"page_size": 65536},
    "page-size-2-31": {"page_size": 2**31},
    "transaction-2-63": {"transaction": 2**63},
    "transaction-max": {"transaction": 2**64 - 1},
    "transaction-0": {"transaction": 0},
    "last-page-0": {"last_page": 0},
    "last-page-2-40": {"last_page": 2**40},
    "last-page-max": {"last_page": 2**64 - 1},
    "main-root-0": {"main_root": 0},
    "main-root-1": {"main_root": 1},
    "main-root-beyond": {"main_root": 100_000},
    "main-root-2-62": {"main_root": 2**62},
    "main-root-none": {"main_root": 2**64 - 1},
    "main-depth-0": {"main_depth": 0},
    "main-depth-2": {"main_depth": 2},
    "main-depth-33": {"main_depth": 33},
    "main-depth-max": {"main_depth": 65535},
    "main-entries": {"main_entries": 2**60},
    "free-root-beyond": {"free_root": 99_999},
    "free-root-1": {"free_root": 1},
    "free-depth-64": {"free_depth": 64},
    "free-flags": {"free_flags": 0x3F},
    "map-size-0": {"map_size": 0},
    "map-size-max": {"map_size": 2**64 - 1},
}
FREE_TO_DIFFER = ("main-entries", "map-size-0", "map-size-max", "free-flags")  # nothing is read by these words
for title, words in HOSTILE_METAS.items():
    expected = ("error", "answer") if title in FREE_TO_DIFFER else ("error",)
    add(f"meta-{title}", lambda root, w=words: newest_meta(root, **w), *expected)  # type: ignore[misc]


def tree_pages(root: Path) -> dict[int, list[int]]:
    """kind -> pages of the catalog that are in use, 1 branch, 2 leaf, 4 overflow."""
    data = damage.place_of(root, "catalog").read_bytes()
    kinds: dict[int, list[int]] = {1: [], 2: [], 4: []}
    for page in range(2, len(data) // PAGE):
        number, _, flags = struct.unpack_from("<QHH", data, page * PAGE)
        if number == page and flags in kinds:
            kinds[flags].append(page)
    return kinds


def page_word(root: Path, kind: int, offset: int, value: int, size: int = 2) -> None:
    """The word at `offset` of every page of a kind, so that the one that is read is among them."""
    path = damage.place_of(root, "catalog")
    data = bytearray(path.read_bytes())
    for page in tree_pages(root)[kind]:
        at = page * PAGE + offset
        data[at : at + size] = value.to_bytes(size, "little")
    damage.put(path, bytes(data))


def node_word(root: Path, kind: int, offset: int, value: int, size: int = 2) -> None:
    """The same in the first node of each page."""
    path = damage.place_of(root, "catalog")
    data = bytearray(path.read_bytes())
    for page in tree_pages(root)[kind]:
        at = page * PAGE + int.from_bytes(data[page * PAGE + 16 : page * PAGE + 18], "little") + offset
        data[at : at + size] = value.to_bytes(size, "little")
    damage.put(path, bytes(data))


BRANCH, LEAF = 1, 2
for kind, title in ((BRANCH, "branch"), (LEAF, "leaf")):
    for name, (offset, value, size) in {
        "number-0": (0, 0, 8),
        "number-max": (0, 2**64 - 1, 8),
        "flags-dirty": (10, kind | 0x10, 2),
        "flags-leaf2": (10, 0x20 | kind, 2),
        "flags-overflow": (10, 4, 2),
        "flags-0": (10, 0, 2),
        "lower-0": (12, 0, 2),
        "lower-odd": (12, 33, 2),
        "lower-max": (12, 65535, 2),
        "upper-0": (14, 0, 2),
        "upper-max": (14, 65535, 2),
        "first-node-0": (16, 0, 2),
        "first-node-end": (16, PAGE - 2, 2),
        "first-node-beyond": (16, 65534, 2),
    }.items():
        add(f"{title}-{name}", lambda root, k=kind, o=offset, v=value, s=size: page_word(root, k, o, v, s))  # type: ignore[misc]
    for name, (offset, value, size) in {
        "key-huge": (6, 65535, 2),
        "size-2-32": (0, 2**32 - 1, 4),
    }.items():
        add(f"{title}-node-{name}", lambda root, k=kind, o=offset, v=value, s=size: node_word(root, k, o, v, s))  # type: ignore[misc]
add("leaf-node-key-0", lambda root: node_word(root, LEAF, 6, 0))
for flags in (1, 2, 4, 255):
    add(f"leaf-node-flags-{flags}", lambda root, f=flags: node_word(root, LEAF, 4, f))  # type: ignore[misc]
add("branch-child-itself", lambda root: branch_loop(root))


def large_value(root: Path, page: int) -> None:
    """The first value of each leaf page, those of tables left out, is said to be large and to stand on this page."""
    path = damage.place_of(root, "catalog")
    data = bytearray(path.read_bytes())
    for leaf in tree_pages(root)[LEAF]:
        at = leaf * PAGE + int.from_bytes(data[leaf * PAGE + 16 : leaf * PAGE + 18], "little")
        size, flags, key_size = struct.unpack_from("<IHH", data, at)
        if flags == 0 and size >= 8:
            data[at + 4] = 1
            data[at + 8 + key_size : at + 16 + key_size] = page.to_bytes(8, "little")
    damage.put(path, bytes(data))


for title, place in {"0": 0, "2-20": 2**20, "2-40": 2**40, "2-51": 2**51, "2-63": 2**63, "max": 2**64 - 1}.items():
    add(f"large-value-{title}", partial(large_value, page=place))


def branch_loop(root: Path) -> None:
    path = damage.place_of(root, "catalog")
    data = bytearray(path.read_bytes())
    for page in tree_pages(root)[BRANCH]:
        at = page * PAGE + int.from_bytes(data[page * PAGE + 16 : page * PAGE + 18], "little")
        data[at : at + 6] = page.to_bytes(4, "little") + bytes(2)
    damage.put(path, bytes(data))


def change_values(root: Path, table: Table, change: Callable[[bytes, bytes], bytes | None]) -> None:
    """Every value of a table through LMDB itself: the pages are right, what stands in them is not. None deletes."""
    path = damage.place_of(root, "catalog").parent
    environment = lmdb.open(str(path), map_size=1 << 30, max_dbs=16)
    database = environment.open_db(b"%d" % table, create=False)
    with environment.begin(write=True) as transaction:
        for key, value in list(transaction.cursor(database)):
            changed = change(key, value)
            if changed is None:
                transaction.delete(key, db=database)
            else:
                transaction.put(key, changed, db=database)
    environment.close()


HOSTILE_VALUES = {
    "empty": b"",
    "a-number": msgpack.packb(7),
    "a-map": msgpack.packb({}),
    "empty-list": msgpack.packb([]),
    "long-list": msgpack.packb([0] * 100),
    "negative-numbers": msgpack.packb([-1] * 7),
    "huge-numbers": msgpack.packb([2**63] * 7),
    "strings": msgpack.packb(["x"] * 7),
    "deep-lists": b"\x91" * 100_000 + b"\xc0",
    "array-announced": b"\xdd\xff\xff\xff\xff",
    "bytes-announced": b"\xc6\xff\xff\xff\xff",
    "not-msgpack": b"\xc1" * 16,
    "trailing": msgpack.packb([]) + b"\x00" * 16,
    "extension": b"\xc9\x00\x00\x00\x01\x7f\x00",
}
MSGPACK_TABLES = (Table.DATABASE, Table.COLLECTIONS, Table.SEGMENTS, Table.FILES)
for table in MSGPACK_TABLES:
    for title, hostile in HOSTILE_VALUES.items():
        add(
            f"value-{table.name.lower()}-{title}",
            lambda root, t=table, v=hostile: change_values(root, t, lambda key, _: seal(key, v)),  # type: ignore[misc]
        )
for table in Table:
    add(
        f"value-{table.name.lower()}-unsealed",
        lambda root, t=table: change_values(root, t, lambda _, value: value[:-1] + bytes([value[-1] ^ 1])),  # type: ignore[misc]
    )
    add(
        f"value-{table.name.lower()}-cut",
        lambda root, t=table: change_values(root, t, lambda _, value: value[:3]),  # type: ignore[misc]
    )
for table in (Table.IDS, Table.RECORDS, Table.DELETIONS):
    for title in ("empty", "a-number", "deep-lists"):
        add(
            f"value-{table.name.lower()}-{title}",
            lambda root, t=table, v=HOSTILE_VALUES[title]: change_values(root, t, lambda key, _: seal(key, v)),  # type: ignore[misc]
        )
for table in (Table.SEGMENTS, Table.FILES, Table.RECORDS, Table.DELETIONS):
    add(f"table-{table.name.lower()}-emptied", lambda root, t=table: change_values(root, t, lambda *_: None))  # type: ignore[misc]


def change_entry(root: Path, name: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """The catalog's word on the file `name` of "docs", sealed again."""

    def changed(key: bytes, value: bytes) -> bytes:
        if not key.endswith(name.encode()) or key[:4] != b"\0\0\0\1":
            return value
        return seal(key, msgpack.packb(change(msgpack.unpackb(value[4:]))))

    change_values(root, Table.FILES, changed)


def entry(position: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [*values[:position], value, *values[position + 1 :]]


for title, change in {
    "dtype-object": entry(0, "|O"),
    "dtype-unknown": entry(0, "<zz"),
    "dtype-number": entry(0, 7),
    "dtype-list": entry(0, [["a", "<f4"]]),
    "shape-negative": entry(1, [-SEALED, 64]),
    "shape-2-63": entry(1, [2**63, 64]),
    "shape-string": entry(1, "ab"),
    "shape-strings": entry(1, ["a", "b"]),
    "shape-transposed": entry(1, [64, SEALED]),
    "shape-flat": entry(1, [SEALED * 64]),
    "size-0": entry(2, 0),
    "size-2-62": entry(2, 2**62),
    "size-string": entry(2, "x"),
    "crcs-empty": entry(4, b""),
    "crcs-odd": entry(4, b"abc"),
    "crcs-number": entry(4, 7),
}.items():
    add(f"entry-{title}", lambda root, c=change: change_entry(root, "field-1/vectors.npy", c))  # type: ignore[misc]


def change_segment(root: Path, position: int, value: Any) -> None:
    def changed(key: bytes, stored: bytes) -> bytes:
        if key[:4] != b"\0\0\0\1":
            return stored
        values = msgpack.unpackb(stored[4:], strict_map_key=False)
        values[position] = value
        return seal(key, msgpack.packb(values))

    change_values(root, Table.SEGMENTS, changed)


for title, (position, value) in {
    "rows-0": (0, 0),
    "rows-2-62": (0, 2**62),
    "rows-negative": (0, -1),
    "rows-more": (0, 2000),
    "rows-less": (0, 1000),
    "integer-ids": (3, True),
    "no-fields": (4, []),
    "fields-number": (4, 5),
    "field-unknown": (4, [[77, SEALED, 64, False, 1, []]]),
    "field-sparse": (4, [[1, SEALED, 64, True, 1, []]]),
    "field-rows": (4, [[1, 5, 64, False, 1, []]]),
    "field-dim": (4, [[1, SEALED, 63, False, 1, []]]),
    "path-beyond": (5, [99]),
    "path-negative": (5, [-1]),
    "paths-none": (5, []),
}.items():
    add(f"segment-{title}", lambda root, p=position, v=value: change_segment(root, p, v))  # type: ignore[misc]
for title, index in {
    "kind-unknown": [1, "quantum", {}, "x", SEALED, {}],
    "kind-number": [1, 7, {}, "x", SEALED, {}],
    "options-unknown": [2, "hnsw", {"zz": 1}, "rabitq-records-v1", SEALED, {}],
    "options-list": [2, "hnsw", [], "rabitq-records-v1", SEALED, {}],
    "parameters-empty": [2, "hnsw", {"m": 4}, "rabitq-records-v1", SEALED, {}],
    "entry-beyond": [2, "hnsw", {"m": 4}, "rabitq-records-v1", SEALED, {"entry": 2**40, "bits": 2, "seed": 0}],
    "entry-negative": [2, "hnsw", {"m": 4}, "rabitq-records-v1", SEALED, {"entry": -7, "bits": 2, "seed": 0}],
    "no-files": [77, "hnsw", {"m": 4}, "rabitq-records-v1", SEALED, {}],
    "quantiser-unknown": [1, "flat", {"bits": 2}, "quantiser-of-tomorrow", SEALED, {}],
}.items():
    add(
        f"index-{title}",
        lambda root, i=index: change_segment(root, 4, [[1, SEALED, 64, False, 3, [i]]]),  # type: ignore[misc]
        "answer",
    )
