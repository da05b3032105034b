"""Goal: a damaged or a forged snapshot is refused with a typed error, before a byte is written outside the target.

Method: snapshots of every form are changed in one way each, most of them by somebody who knows the format and makes all
checksums right again; each is restored and verified. Nothing may appear beside the target, which must not exist, and
the files around it must stay as they were.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import vecdb
from vecdb.files.disk import LocalDisk
from vecdb.files.record import FILE_HEADER_SIZE, FileHeader, decode_file_header, encode_record, read_records
from vecdb.files.seams import Seams
from vecdb.files.workplace import Workplace
from vecdb.storage import schema, snapshot_forms, stream
from vecdb.storage.batch import Part, encode
from vecdb.storage.manifest import MANIFEST_FORMAT, MANIFEST_HEADER, MANIFEST_MAGIC, digest_of, enclose
from vecdb.storage.snapshot_source import FileSource, open_source
from vecdb.storage.stream import (
    END,
    ROWS,
    STREAM_FRAME,
    STREAM_HEADER,
    STREAM_MAGIC,
    Table,
    _frame,
    read_stream,
)
from vecdb.storage.wal import sealed_log

FORM, UUID, LSN, APPLIED, TIME, WRITTEN, BASES, ENTRIES = range(8)
SEGMENT = "segments/1-1/sequences.npy"
Body = list[Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a snapshot of each form."""
    root = tmp_path_factory.mktemp("made")
    with vecdb.open(root / "db", maintenance="manual") as db:
        docs = db.create_collection("docs", dim=4)
        docs.upsert([f"id-{n}" for n in range(40)], np.eye(4)[np.arange(40) % 4], [{"n": n} for n in range(40)])
        db.optimize()
        docs.upsert(["new", "id-3"], np.ones((2, 4)), [{"n": -1}] * 2)
        db.snapshot(root / "snap")
        db.snapshot(root / "snap.vecdb")
    return root


# ---- the forger's tools ---------------------------------------------------------------------------------------------
def body_of(data: bytes) -> Body:
    body: Body = msgpack.unpackb(data[MANIFEST_HEADER.size : -32])
    return body


def forge_manifest(change: Callable[[Body], Any], version: int = MANIFEST_FORMAT) -> Callable[[Path], None]:
    """Of a directory; with its own checksum right."""

    def apply(root: Path) -> None:
        place = root / "snap" / "SNAPSHOT"
        body = body_of(place.read_bytes())
        change(body)
        place.write_bytes(enclose(MANIFEST_MAGIC, version, msgpack.packb(body)))

    return apply


def entry_of(body: Body, start: str) -> list[Any]:
    return next(entry for entry in body[ENTRIES] if entry[0].startswith(start))


def renamed(path: Any) -> Callable[[Path], None]:
    """A file of a segment gets another name in the manifest."""
    return forge_manifest(lambda body: entry_of(body, SEGMENT).__setitem__(0, path))


def resized(size: Any) -> Callable[[Path], None]:
    return forge_manifest(lambda body: entry_of(body, SEGMENT).__setitem__(1, size))


def raw_manifest(data: bytes) -> Callable[[Path], None]:
    return lambda root: (root / "snap" / "SNAPSHOT").write_bytes(data) and None


def damaged_manifest(change: Callable[[bytearray], Any]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        data = bytearray((root / "snap" / "SNAPSHOT").read_bytes())
        change(data)
        (root / "snap" / "SNAPSHOT").write_bytes(data)

    return apply


def replaced(path: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Something else in the place of a file."""

    def apply(root: Path) -> None:
        victim = next(root.glob(f"snap/{path}"))
        victim.unlink()
        make(victim)

    return apply


def rewritten(path: str, change: Callable[[bytes], bytes], *, forged: bool) -> Callable[[Path], None]:
    """A file with other bytes; `forged`: the manifest knows their size and digest."""

    def apply(root: Path) -> None:
        victim = next(root.glob(f"snap/{path}"))
        data = change(victim.read_bytes())
        victim.unlink()  # other names of the file keep their bytes
        victim.write_bytes(data)
        if forged:
            name = victim.relative_to(root / "snap").as_posix()
            forge_manifest(lambda body: entry_of(body, name).__setitem__(slice(1, 3), [len(data), digest_of(data)]))(
                root
            )

    return apply


def forge_file(change: Callable[[dict[str, bytes], Body], Any]) -> Callable[[Path], None]:
    """Of one file: its contents by path and its manifest are changed, and everything is made consistent again."""

    def apply(root: Path) -> None:
        place = root / "snap.vecdb"
        source = FileSource(LocalDisk(), place)
        contents = {entry.path: b"".join(source.pieces(entry)) for entry in source.manifest.entries}
        m = source.manifest
        body: Body = [m.form, m.uuid, m.lsn, m.applied_lsn, m.time_ns, m.written, [], []]
        change(contents, body)
        body[ENTRIES] = [[path, len(data), digest_of(data), 0] for path, data in contents.items()]
        head = place.read_bytes()[: snapshot_forms.CONTAINER_HEADER.size]
        data = head + b"".join(contents.values())
        manifest = enclose(MANIFEST_MAGIC, MANIFEST_FORMAT, msgpack.packb(body))
        place.write_bytes(data + manifest + footer(len(data), len(manifest)))

    return apply


def footer(at: int, length: int, magic: bytes = snapshot_forms.CONTAINER_MAGIC) -> bytes:
    foot = snapshot_forms.CONTAINER_FOOTER.pack(magic, at, length, 0)[:-4]
    return foot + zlib.crc32(foot).to_bytes(4, "little")


def changed_file(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        (root / "snap.vecdb").write_bytes(change((root / "snap.vecdb").read_bytes()))

    return apply


def headed(version: int = snapshot_forms.CONTAINER_FORMAT, flags: int = 0) -> Callable[[bytes], bytes]:
    """Another head of the one file, its checksum right."""

    def change(data: bytes) -> bytes:
        magic, _, _, uuid, _ = snapshot_forms.CONTAINER_HEADER.unpack(data[: snapshot_forms.CONTAINER_HEADER.size])
        head = snapshot_forms.CONTAINER_HEADER.pack(magic, version, flags, uuid, 0)[:-4]
        return head + zlib.crc32(head).to_bytes(4, "little") + data[len(head) + 4 :]

    return change


def stream_headed(version: int, flags: int) -> Callable[[Path], None]:
    def apply(contents: dict[str, bytes], body: Body) -> None:
        stream = contents["catalog.stream"]
        head = STREAM_HEADER.pack(STREAM_MAGIC, version, flags, 0)[:-4]
        contents["catalog.stream"] = head + zlib.crc32(head).to_bytes(4, "little") + stream[STREAM_HEADER.size :]

    return forge_file(apply)


def forge_stream(change: Callable[[list[tuple[Table, Any]]], Any], end: Any = None, tail: bytes = b"") -> Any:
    """The rows of the catalog, frame by frame; `end` replaces the counts."""

    def apply(contents: dict[str, bytes], body: Body) -> None:
        stream = contents["catalog.stream"]
        frames: list[tuple[Table, Any]] = list(read_stream([stream], "stream"))
        change(frames)
        counts = [sum(len(rows) for table, rows in frames if table == one) for one in Table]
        parts = [stream[:20]]
        for table, rows in frames:
            values = [part for row in rows for part in row] if isinstance(rows, list) else rows
            parts.append(_frame(ROWS, table, values if isinstance(values, bytes) else msgpack.packb(values)))
        if end != "none":
            parts.append(_frame(END, 0, msgpack.packb(counts if end is None else end)))
        contents["catalog.stream"] = b"".join(parts) + tail

    return forge_file(apply)


def row_changed(table: Table, change: Callable[[bytes, bytes], tuple[bytes, bytes]], which: int = 0) -> Any:
    """One row of the catalog, sealed again."""

    def apply(frames: list[tuple[Table, Any]]) -> None:
        at = next(i for i, (one, _) in enumerate(frames) if one == table)
        rows = list(frames[at][1])
        key, value = rows[which]
        key, value = change(key, schema.unseal(key, value))
        rows[which] = (key, schema.seal(key, value))
        frames[at] = (table, rows)

    return forge_stream(apply)


def packed(change: Callable[[Any], Any]) -> Callable[[bytes, bytes], tuple[bytes, bytes]]:
    """Of a row whose value is msgpack."""

    def apply(key: bytes, value: bytes) -> tuple[bytes, bytes]:
        values = msgpack.unpackb(value, strict_map_key=False)
        made = change(values)
        return key, msgpack.packb(values if made is None else made)

    return apply


def forge_log(make: Callable[[FileHeader, list[tuple[int, int, Any]]], list[bytes]]) -> Any:
    """The log of a snapshot in one file; `make` gets its header and its batches."""

    def apply(contents: dict[str, bytes], body: Body) -> None:
        path = next(path for path in contents if path.startswith("wal/"))
        header = decode_file_header(contents[path][:FILE_HEADER_SIZE])
        assert isinstance(header, FileHeader)
        records = read_records(memoryview(contents[path]), header.salt, FILE_HEADER_SIZE)
        batches = [(r.lsn, r.time_ns, bytes(r.payload)) for r in records if r.kind == 1]
        contents[path] = b"".join(map(bytes, make(header, batches)))

    return forge_file(apply)


def payload_log(payload: bytes) -> Any:
    """The snapshot's one logged batch holds something else."""
    return forge_log(lambda header, batches: list(sealed_log(header, 0, [(batches[0][0], 0, payload)])))


def part_log(part: Part) -> Any:
    return payload_log(b"".join(map(bytes, encode([part]))))


def head_log(**words: Any) -> Any:
    head = {"c": 1, "q": 41, "k": [b"sa"], "p": [b"\x80"], "f": [], "s": 0, "r": []} | words
    data = msgpack.packb([head])
    data += bytes(-(len(data) + 4) % 8)
    return payload_log(len(data).to_bytes(4, "little") + data)


def set_item(index: int, value: Any) -> Callable[[Any], None]:
    return lambda values: values.__setitem__(index, value)


def sparse(root: Path) -> None:
    """A file of a terabyte that takes no space, and a manifest that knows it."""
    victim = next(root.glob("snap/segments/1-1/sequences.npy"))
    victim.unlink()
    with victim.open("wb") as file:
        file.truncate(1 << 43)
    resized(1 << 43)(root)


def superblock(**flags: int) -> Callable[[dict[str, bytes], Body], None]:
    def apply(contents: dict[str, bytes], body: Body) -> None:
        block = schema.Superblock(body[UUID], 0, **flags)
        contents["VECDB"] = block.encode()

    return apply


HUGE_ARRAY = b"\xdd\xff\xff\xff\xff"
NESTED = b"\x91" * 5000 + b"\xc0"
OTHER = bytes(range(16))

DIRECTORY: dict[str, Callable[[Path], None]] = {
    "a name that climbs out": renamed("../../evil"),
    "a name that climbs out of its segment": renamed("segments/1-1/../../../evil.npy"),
    "an absolute name": renamed("/tmp/evil.npy"),
    "a name with a backslash": renamed("segments\\1-1\\evil.npy"),
    "a name with a NUL": renamed("segments/1-1/a\0.npy"),
    "a name in capitals": renamed("segments/1-1/SEQUENCES.npy"),
    "a hidden name": renamed("segments/1-1/.bashrc.npy"),
    "a name of bytes": renamed(b"segments/1-1/a.npy"),
    "an empty name": renamed(""),
    "a very long name": renamed("segments/1-1/" + "a" * 5000 + ".npy"),
    "a very deep name": renamed("segments/1-1/" + "a/" * 500 + "a.npy"),
    "a name of another kind": renamed("LOCK"),
    "a name twice": forge_manifest(lambda body: body[ENTRIES].append(entry_of(body, SEGMENT))),
    "a file that is not there": renamed("segments/1-1/other.npy"),
    "two logs": forge_manifest(lambda body: body[ENTRIES].append([f"wal/{'0' * 20}-{'a' * 32}.wal", 0, b"x" * 32, 0])),
    "no log": forge_manifest(lambda body: body[ENTRIES].remove(entry_of(body, "wal/"))),
    "no superblock": forge_manifest(lambda body: body[ENTRIES].remove(entry_of(body, "VECDB"))),
    "no catalog": forge_manifest(lambda body: body[ENTRIES].remove(entry_of(body, "catalog-"))),
    "no files": forge_manifest(lambda body: body[ENTRIES].clear()),
    "a file that the catalog names is left out": forge_manifest(
        lambda body: body[ENTRIES].remove(entry_of(body, SEGMENT))
    ),
    "a huge size": resized(1 << 61),
    "sizes that are huge together": forge_manifest(
        lambda body: [entry.__setitem__(1, 1 << 62) for entry in body[ENTRIES]]
    ),
    "a size beyond 64 bits of sign": resized((1 << 64) - 1),
    "a negative size": resized(-1),
    "a size that is a float": resized(40.0),
    "a size that is true": resized(True),
    "a digest that is short": forge_manifest(lambda body: entry_of(body, SEGMENT).__setitem__(2, b"short")),
    "a digest of another file": forge_manifest(lambda body: entry_of(body, SEGMENT).__setitem__(2, b"x" * 32)),
    "a base that is not named": forge_manifest(lambda body: entry_of(body, SEGMENT).__setitem__(3, 1)),
    "a base that climbs out": forge_manifest(lambda body: body[BASES].append("../db")),
    "a base that is absolute": forge_manifest(lambda body: body[BASES].append("/etc")),
    "a base that is missing": forge_manifest(lambda body: body[BASES].append("yesterday")),
    "a catalog beyond the snapshot": forge_manifest(lambda body: body.__setitem__(APPLIED, body[LSN] + 1)),
    "a huge lsn": forge_manifest(lambda body: body.__setitem__(LSN, 1 << 60)),
    "an lsn that is text": forge_manifest(lambda body: body.__setitem__(LSN, "9")),
    "an unknown form": forge_manifest(lambda body: body.__setitem__(FORM, "tape")),
    "another form": forge_manifest(lambda body: body.__setitem__(FORM, "file")),
    "another form, with its catalog": forge_manifest(
        lambda body: (body.__setitem__(FORM, "file"), entry_of(body, "catalog-").__setitem__(0, "catalog.stream"))
    ),
    "a manifest beyond all limits": replaced("SNAPSHOT", lambda path: (path.touch(), os.truncate(path, 1 << 40))),
    "a short uuid": forge_manifest(lambda body: body.__setitem__(UUID, b"x")),
    "the uuid of another database": forge_manifest(lambda body: body.__setitem__(UUID, OTHER)),
    "an entry of too many words": forge_manifest(lambda body: entry_of(body, SEGMENT).append(0)),
    "a body of too few words": forge_manifest(lambda body: body.pop()),
    "a body that is a number": raw_manifest(enclose(MANIFEST_MAGIC, 1, msgpack.packb(7))),
    "a body of four thousand million words": raw_manifest(enclose(MANIFEST_MAGIC, 1, HUGE_ARRAY)),
    "a body of five thousand levels": raw_manifest(enclose(MANIFEST_MAGIC, 1, NESTED)),
    "an extension type in the body": raw_manifest(enclose(MANIFEST_MAGIC, 1, b"\xc7\x01\x05a")),
    "a format of tomorrow": forge_manifest(lambda body: None, version=2),
    "an empty manifest": raw_manifest(b""),
    "a manifest that is cut off": damaged_manifest(lambda data: data.__delitem__(slice(-9, None))),
    "a manifest with a tail": damaged_manifest(lambda data: data.extend(b"tail")),
    "a flipped bit in the manifest": damaged_manifest(lambda data: data.__setitem__(60, data[60] ^ 1)),
    "a length beyond all limits": damaged_manifest(lambda data: data.__setitem__(slice(16, 24), b"\xff" * 8)),
    "another magic": damaged_manifest(lambda data: data.__setitem__(0, 0)),
    "a link in the place of the manifest": replaced("SNAPSHOT", lambda path: path.symlink_to("/etc/passwd")),
    "a link in the place of a file": replaced(SEGMENT, lambda path: path.symlink_to("/etc/passwd")),
    "a directory in the place of a file": replaced(SEGMENT, lambda path: path.mkdir()),
    "a pipe in the place of a file": replaced(SEGMENT, os.mkfifo),
    "a file that grew zeros": rewritten(SEGMENT, lambda data: data + bytes(4096), forged=False),
    "a file that was cut off": rewritten(SEGMENT, lambda data: data[:-1], forged=False),
    "a flipped bit in a file": rewritten(SEGMENT, lambda data: data[:-1] + bytes([data[-1] ^ 1]), forged=False),
    "a forged file of a segment": rewritten(SEGMENT, lambda data: data[:-1] + b"x", forged=True),
    "a flipped bit in the catalog": rewritten(
        "catalog-1/data.mdb", lambda data: data[:9000] + b"x" + data[9001:], forged=False
    ),
    "a forged catalog of zeros": rewritten("catalog-1/data.mdb", lambda data: bytes(len(data)), forged=True),
    "a forged catalog that is cut off": rewritten("catalog-1/data.mdb", lambda data: data[:8192], forged=True),
    "a forged catalog of noise": rewritten(
        "catalog-1/data.mdb", lambda data: data[:8192] + os.urandom(len(data) - 8192), forged=True
    ),
    "an empty log": rewritten("wal/*", lambda data: b"", forged=True),
    "a terabyte that takes no space": sparse,
}

ONE_FILE: dict[str, Callable[[Path], None]] = {
    "a head of tomorrow": changed_file(headed(version=2)),
    "a head with a flag that nobody knows": changed_file(headed(flags=1)),
    "a stream of tomorrow": stream_headed(2, 0),
    "a stream with a flag that nobody knows": stream_headed(1, 1),
    "nothing": changed_file(lambda data: b""),
    "zeros": changed_file(lambda data: bytes(len(data))),
    "a header of another kind": changed_file(lambda data: b"PK\x03\x04" + data[4:]),
    "a flipped bit in the header": changed_file(lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:]),
    "a tail": changed_file(lambda data: data + b"tail"),
    "two in one": changed_file(lambda data: data + data),
    "a manifest before the file": changed_file(lambda data: data[:-28] + footer(0, len(data) - 28)),
    "a manifest beyond the file": changed_file(lambda data: data[:-28] + footer(len(data), 100)),
    "a manifest of the size of the world": changed_file(lambda data: data[:-28] + footer(36, (1 << 64) - 37)),
    "a gap before the manifest": forge_file(lambda contents, body: None),  # set below
    "the superblock of another database": forge_file(
        lambda contents, body: contents.__setitem__("VECDB", schema.Superblock(OTHER, 0).encode())
    ),
    "a superblock with unknown features": forge_file(superblock(must_know=1)),
    "a superblock of zeros": forge_file(lambda contents, body: contents.__setitem__("VECDB", bytes(64))),
    "a file that the catalog does not name": forge_file(
        lambda contents, body: contents.__setitem__("segments/1-1/more.npy", b"more")
    ),
    "a base beside it that is no snapshot": forge_file(lambda contents, body: body[BASES].append("snap")),
    "a file that is said to lie in itself as a base": forge_file(lambda contents, body: None),  # set below
    # the stream of the catalog
    "a stream that is cut off": forge_file(
        lambda contents, body: contents.__setitem__("catalog.stream", contents["catalog.stream"][:-30])
    ),
    "a stream of another format": forge_file(
        lambda contents, body: contents.__setitem__("catalog.stream", b"VECDBSTR" + bytes(100))
    ),
    "a frame of four gigabytes": forge_file(
        lambda contents, body: contents.__setitem__(
            "catalog.stream",
            contents["catalog.stream"][:20] + STREAM_FRAME.pack(0x53434556, ROWS, 0, 0, 0xFFFFFFFF, 0),
        )
    ),
    "a stream without an end": forge_stream(lambda frames: None, end="none"),
    "a stream that miscounts": forge_stream(lambda frames: None, end=[1, 1, 1, 1, 1, 1, 1]),
    "a stream that goes on after its end": forge_stream(lambda frames: None, tail=b"more"),
    "rows of a table that does not exist": forge_stream(lambda frames: frames.append((77, [(b"a", b"b")]))),  # type: ignore[arg-type]
    "rows out of order": forge_stream(lambda frames: frames.reverse()),
    "rows twice": forge_stream(lambda frames: frames.insert(0, frames[0])),
    "rows that are no pairs": forge_stream(lambda frames: frames.append((Table.DELETIONS, msgpack.packb([b"a"])))),
    "rows that are a number": forge_stream(lambda frames: frames.append((Table.DELETIONS, msgpack.packb(3)))),
    "rows of numbers": forge_stream(lambda frames: frames.append((Table.DELETIONS, [(1, 2)]))),
    "four thousand million rows": forge_stream(lambda frames: frames.append((Table.DELETIONS, HUGE_ARRAY))),
    "a key of a thousand bytes": forge_stream(
        lambda frames: frames.append((Table.DELETIONS, [(b"a" * 1000, b"b" * 8)]))
    ),
    "a row with a wrong checksum": forge_stream(lambda frames: frames.append((Table.DELETIONS, [(b"a", b"bbbbbb")]))),
    # what the rows say
    "no rows at all": forge_stream(lambda frames: frames.clear()),
    "a catalog of another batch": row_changed(Table.DATABASE, packed(set_item(0, 0))),
    "a collection of nonsense": row_changed(Table.COLLECTIONS, lambda key, value: (key, b"\xc1")),
    "a collection without a name": row_changed(Table.COLLECTIONS, packed(set_item(0, None))),
    "a collection of an unknown metric": row_changed(Table.COLLECTIONS, packed(lambda v: v[2][0].__setitem__(3, 99))),
    "a collection of an unknown dtype": row_changed(Table.COLLECTIONS, packed(lambda v: v[2][0].__setitem__(4, "|O"))),
    "a collection of an unknown index": row_changed(
        Table.COLLECTIONS, packed(lambda v: v[2][0].__setitem__(5, {"kind": "os.system"}))
    ),
    "a collection that counts more records": row_changed(Table.COLLECTIONS, packed(set_item(5, 1 << 40))),
    "a segment of more rows": row_changed(Table.SEGMENTS, packed(set_item(0, 41))),
    "a segment of a million million rows": row_changed(Table.SEGMENTS, packed(set_item(0, 1 << 40))),
    "a segment with a field that is not there": row_changed(
        Table.SEGMENTS, packed(lambda v: v[4][0].__setitem__(0, 9))
    ),
    "a segment of another dimension": row_changed(Table.SEGMENTS, packed(lambda v: v[4][0].__setitem__(2, 1 << 30))),
    "a segment of paths that are not there": row_changed(Table.SEGMENTS, packed(lambda v: v[5].append(99))),
    "a file named out of the segment": row_changed(
        Table.FILES, lambda key, value: (key[:8] + b"../../../evil.npy", value), which=0
    ),
    "a file of another shape": row_changed(Table.FILES, packed(set_item(1, [1 << 40, 4])), which=-1),
    "a file of objects": row_changed(Table.FILES, packed(set_item(0, "|O")), which=-1),
    "an id that leads nowhere": row_changed(Table.IDS, lambda key, value: (key, (1 << 50).to_bytes(8, "big")), which=0),
    "a record of nonsense": row_changed(Table.RECORDS, lambda key, value: (key, b"\xff\xff\xff"), which=0),
    # the log
    "a log of another database": forge_log(
        lambda header, batches: list(sealed_log(FileHeader(OTHER, 1, header.start_lsn, 7), 0, batches))
    ),
    "a log that begins later": forge_log(
        lambda header, batches: list(sealed_log(FileHeader(header.uuid, 1, header.start_lsn + 1, 7), 0, batches))
    ),
    "a log without its batch": forge_log(lambda header, batches: list(sealed_log(header, 0, []))),
    "a log with a batch too many": forge_log(
        lambda header, batches: list(sealed_log(header, 0, [*batches, (header.start_lsn + 1, 0, batches[0][2])]))
    ),
    "a log that was not closed": forge_log(lambda header, batches: list(sealed_log(header, 0, batches))[:-1]),
    "a log with a tail": forge_log(lambda header, batches: [*sealed_log(header, 0, batches), b"tail tail"]),
    "a log with an unknown record": forge_log(
        lambda header, batches: [
            *list(sealed_log(header, 0, batches))[:-1],
            *encode_record(header.salt, 9, 0, header.start_lsn, 0, 0, b""),
        ]
    ),
    "a batch of nonsense": payload_log(b"\x00"),
    "a batch with a head of four gigabytes": payload_log(b"\xff\xff\xff\xff" + HUGE_ARRAY),
    "a batch of huge vectors": head_log(f=[[1, 1 << 40, 1 << 20, None, "float32"]]),
    "a batch of negative vectors": head_log(f=[[1, -1, -4, None, "float32"]]),
    "a batch of a field that is not there": head_log(f=[[9, 0, 4, None, "float32"]]),
    "a batch with fewer payloads than ids": head_log(p=[]),
    "a batch of negative sequences": head_log(q=-5),
    "a batch of huge sequences": head_log(q=1 << 62),
    "a batch with a payload of nonsense": head_log(p=[b"\xc1"]),
    "a batch with keys of nonsense": head_log(k=[b"x"]),
    "a batch with a number for its keys": head_log(k=7),
}


def gap(root: Path) -> None:
    data = (root / "snap.vecdb").read_bytes()
    at, length = snapshot_forms.CONTAINER_FOOTER.unpack(data[-28:])[1:3]
    (root / "snap.vecdb").write_bytes(data[:at] + bytes(8) + data[at:-28] + footer(at + 8, length))


def itself(root: Path) -> None:
    forge_file(lambda contents, body: body[BASES].append("snap.vecdb"))(root)
    data = (root / "snap.vecdb").read_bytes()
    at, length = snapshot_forms.CONTAINER_FOOTER.unpack(data[-28:])[1:3]
    body = body_of(data[at : at + length])
    entry_of(body, SEGMENT)[3] = 1
    manifest = enclose(MANIFEST_MAGIC, MANIFEST_FORMAT, msgpack.packb(body))
    (root / "snap.vecdb").write_bytes(data[:at] + manifest + footer(at, len(manifest)))


ONE_FILE["a file that is said to lie in itself as a base"] = itself
ONE_FILE["a gap before the manifest"] = gap


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(root)): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in root.rglob("*")}


def refused(root: Path, place: Path) -> None:
    before = tree(root)
    with pytest.raises((vecdb.Corrupted, vecdb.UnsupportedFormat, vecdb.StorageFailed)) as found:
        vecdb.restore(place, root / "target" / "back")
    assert str(found.value)
    after = tree(root)
    (root / "target").touch()
    del before["target"], after["target"]  # its time: a workplace came and went
    assert after == before
    assert not list((root / "target").iterdir())


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", DIRECTORY)
def test_directory_with(name: str, made: Path, root: Path) -> None:
    shutil.copytree(made / "snap", root / "snap")
    DIRECTORY[name](root)
    refused(root, root / "snap")


@pytest.mark.parametrize("name", ONE_FILE)
def test_one_file_with(name: str, made: Path, root: Path) -> None:
    shutil.copy(made / "snap.vecdb", root / "snap.vecdb")
    ONE_FILE[name](root)
    refused(root, root / "snap.vecdb")


def test_one_file_cut_off_anywhere(made: Path, root: Path) -> None:
    data = (made / "snap.vecdb").read_bytes()
    for length in [*range(0, 100, 7), *range(100, len(data), len(data) // 40), len(data) - 1]:
        (root / "snap.vecdb").write_bytes(data[:length])
        refused(root, root / "snap.vecdb")


def test_one_file_with_a_flipped_bit_anywhere(made: Path, root: Path) -> None:
    data = bytearray((made / "snap.vecdb").read_bytes())
    for offset in [*range(0, 36, 5), *range(36, len(data), len(data) // 40), *range(len(data) - 28, len(data), 3)]:
        data[offset] ^= 16
        (root / "snap.vecdb").write_bytes(data)
        data[offset] ^= 16
        with pytest.raises((vecdb.Corrupted, vecdb.UnsupportedFormat)):
            vecdb.verify_snapshot(root / "snap.vecdb")
        refused(root, root / "snap.vecdb")


def test_the_forger_can_make_a_sound_one(made: Path, root: Path) -> None:
    """The tools above change what they say and nothing else."""
    shutil.copytree(made / "snap", root / "snap")
    shutil.copy(made / "snap.vecdb", root / "snap.vecdb")
    forge_manifest(lambda body: None)(root)
    rewritten(SEGMENT, lambda data: data, forged=True)(root)
    assert vecdb.restore(root / "snap", root / "target" / "one").records == 41
    for n, sound in enumerate(
        [
            forge_file(lambda contents, body: None),
            forge_stream(lambda frames: None),
            row_changed(Table.COLLECTIONS, packed(lambda values: None)),
            forge_log(lambda header, batches: list(sealed_log(header, 0, batches))),
            forge_file(superblock()),
            part_log(Part(1, 41, [b"sx"], [b"\x80"])),
            head_log(),
        ]
    ):
        shutil.copy(made / "snap.vecdb", root / "snap.vecdb")
        sound(root)
        assert vecdb.restore(root / "snap.vecdb", root / "target" / f"file-{n}").records == 41


def test_a_file_that_shrinks_while_it_is_read_is_told(made: Path, tmp_path: Path) -> None:
    """Its size was right when the sizes were compared."""
    shutil.copytree(made / "snap", tmp_path / "snap")
    source = open_source(Seams(), str(tmp_path / "snap"))
    entry = source.manifest.find(SEGMENT)
    assert entry is not None
    os.truncate(tmp_path / "snap" / SEGMENT, entry.size - 1)
    with pytest.raises(vecdb.Corrupted, match="the file ends here, 1 bytes are missing"):
        list(source.pieces(entry))


def test_a_catalog_of_many_frames_is_read_as_one_of_few(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FileSource(LocalDisk(), made / "snap.vecdb")
    (entry,) = (entry for entry in source.manifest.entries if entry.path == "catalog.stream")
    few = list(read_stream(source.pieces(entry), "stream"))
    rows = {table: [row for one, found in few for row in found if one == table] for table in Table}

    class Listed:
        def page(self, table: Table, prefix: bytes, after: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
            return [row for row in rows[table] if after is None or row[0] > after][:limit]

    monkeypatch.setattr(stream, "FRAME_BYTES", 200)
    many = list(read_stream(stream.write_stream(Listed()), "stream"))  # type: ignore[arg-type]
    assert len(many) > len(few)
    assert [(table, row) for table, found in many for row in found] == [
        (table, row) for table, found in few for row in found
    ]


def test_what_a_second_attempt_does_not_name_goes(tmp_path: Path) -> None:
    """The catalog was compacted, and a segment merged, between two attempts to take a snapshot."""
    with Workplace(LocalDisk(), tmp_path / "snap") as work:
        form = snapshot_forms.DirectoryForm(LocalDisk(), work)
        for path in ("catalog-1/data.mdb", "segments/1-1/a.npy", "segments/1-1/b.npy"):
            form.put(path, [b"first"])
        form.forget({"catalog-2/data.mdb", "segments/1-1/b.npy"})
        form.put("catalog-2/data.mdb", [b"second"])
        form.forget({"catalog-2/data.mdb", "segments/1-1/b.npy"})
        form.settle()
        form.close()
        found = {str(path.relative_to(work.path)) for path in work.path.rglob("*") if path.is_file()}
        assert found == {"LOCK", "catalog-2/data.mdb", "segments/1-1/b.npy"}
        assert not (work.path / "catalog-1").exists()
