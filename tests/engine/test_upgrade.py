"""Goal: what this release cannot read it refuses and says which can; and a later format can follow this one in place.

Method: superblocks with other numbers and flags; and a made-up format 2, whose collections hold one thing more, under
which a database of format 1 is opened, written, killed in between, and given back to the release of format 1.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

import vecdb
from tests.crash.test_recovery import picture
from tests.engine import damage
from tests.engine.test_repair import contents
from tests.faults import PassingDisk
from vecdb.engine import registry
from vecdb.files import names
from vecdb.storage import schema
from vecdb.storage.schema import CollectionMeta, Superblock, collection_key, seal, unseal
from vecdb.storage.snapshot import Table


def make(path: Path) -> None:
    with vecdb.open(path, maintenance="manual") as db:
        for name in ("one", "two"):
            db.create_collection(name, dim=2).upsert([1, "a"], [[1, 2], [3, 4]], [{"n": 1}, {"n": 2}])
        damage.checkpoint_now(db)
        db.get_collection("one").upsert([2], [[5, 6]])


def superblock(path: Path, **changes: Any) -> None:
    file = path / names.SUPERBLOCK
    found = Superblock.decode(file.read_bytes(), str(file))
    file.write_bytes(replace(found, **changes).encode())


# ---- refused --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "modes", "told"),
    [
        ({"version": 2}, ("r", "rw"), "format 2; this vecdb reads formats 1 to 1. Open it with a newer release"),
        ({"version": 2**31}, ("r", "rw"), "format 2147483648; .* newer release: the history in FORMAT.md"),
        ({"version": 0}, ("r", "rw"), "format 0; this vecdb reads formats 1 to 1. Open it with an older release"),
        ({"must_know": 4}, ("r", "rw"), "unknown features 0x4; .* newer release"),
        ({"read_only": 1 << 63}, ("rw",), "unknown features 0x8000000000000000; .* newer release"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, changes: dict[str, int], modes: tuple[str, ...], told: str
) -> None:
    path = tmp_path / "db"
    make(path)
    superblock(path, **changes)
    before = picture(path)
    for mode in modes:
        with pytest.raises(vecdb.UnsupportedFormat, match=told):
            vecdb.open(path, mode=mode)  # type: ignore[arg-type]
    if "r" in modes:
        with pytest.raises(vecdb.UnsupportedFormat, match=told):
            vecdb.verify(path)
        with pytest.raises(vecdb.UnsupportedFormat, match=told):
            vecdb.repair(path, tmp_path / "new")
    else:
        with vecdb.open(path, mode="r") as db:
            assert db.get_collection("one").count() == 3
    assert picture(path) == before
    assert [found.name for found in tmp_path.iterdir()] == ["db"]


# ---- a format 2 that is made up -------------------------------------------------------------------------------------
NOTE = "of format 2"


def encode_two(meta: CollectionMeta) -> bytes:
    key = collection_key(meta.number)
    return seal(key, msgpack.packb([*msgpack.unpackb(unseal(key, ENCODE(meta))), NOTE]))


def decode_both(key: bytes, stored: bytes) -> CollectionMeta:
    value = msgpack.unpackb(unseal(key, stored), strict_map_key=False)
    return DECODE(key, seal(key, msgpack.packb(value[:-1] if value[-1] == NOTE else value)))


ENCODE, DECODE = schema.encode_collection, schema.decode_collection


def become_format_two(patch: pytest.MonkeyPatch) -> None:
    """What a release does that brings a new format: it reads both, and writes its own."""
    changes: dict[str, Callable[..., Any] | int] = {
        "encode_collection": encode_two,
        "decode_collection": decode_both,
        "FORMAT_VERSION": 2,
    }
    for module in [module for name, module in sys.modules.items() if name.startswith("vecdb.")]:
        for name, new in changes.items():
            if getattr(module, name, None) in (ENCODE, DECODE, 1):
                patch.setattr(module, name, new)


def notes(path: Path) -> list[bool]:
    """For each collection, whether its entry is of format 2."""
    return [
        msgpack.unpackb(unseal(key, value), strict_map_key=False)[-1] == NOTE
        for key, value in damage.entries(path, Table.COLLECTIONS)
    ]


def version(path: Path) -> int:
    return int.from_bytes((path / names.SUPERBLOCK).read_bytes()[8:12], "little")


def test_a_later_format_follows_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "db"
    make(path)
    told, before = contents(path), picture(path)
    with monkeypatch.context() as patch:
        become_format_two(patch)
        assert contents(path) == told, "readers read the older format, and change nothing"
        assert picture(path) == before
        with vecdb.open(path, maintenance="manual") as db:
            assert version(path) == 2
            assert db.stats().format == 2
            assert db._engine.superblock.uuid == Superblock.decode(before["VECDB"], "").uuid  # type: ignore[union-attr]
            db.get_collection("one").upsert([3], [[7, 8]])
            damage.checkpoint_now(db)
        assert notes(path) == [True, False], "what was not written is as it was"
        with vecdb.open(path, maintenance="manual") as db:
            db.rename_collection("two", "other")
        assert notes(path) == [True, True]
        assert vecdb.verify(path, deep=True).ok
        later = contents(path)
        assert later["other"] == told["two"]
        assert set(later["one"]) == {*told["one"], 3}
    with pytest.raises(vecdb.UnsupportedFormat, match="format 2; this vecdb reads formats 1 to 1"):
        vecdb.open(path)


class Cut(Exception):
    """The process ends here."""


class CutDisk(PassingDisk):
    """Ends the process at the n-th change of the superblock: its file, its sync, its rename, its directory."""

    def __init__(self, inner: Any, calls: int) -> None:
        super().__init__(inner)
        self.calls = calls

    def _count(self, path: Path) -> None:
        if path.name.startswith(names.SUPERBLOCK):
            self.calls -= 1
            if self.calls < 0:
                raise Cut

    def create(self, path: Path) -> Any:
        self._count(path)
        return self.inner.create(path)

    def rename(self, source: Path, target: Path) -> None:
        self._count(source)
        self.inner.rename(source, target)
        self._count(source)


@pytest.mark.parametrize("calls", range(3))
def test_a_kill_while_the_format_is_raised_leaves_one_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    path = tmp_path / "db"
    make(path)
    told, usual = contents(path), registry.DEFAULT_SEAMS
    with monkeypatch.context() as patch:
        become_format_two(patch)
        patch.setattr(registry, "DEFAULT_SEAMS", replace(usual, disk=CutDisk(usual.disk, calls)))
        with pytest.raises(Cut):
            vecdb.open(path, maintenance="manual")
    assert version(path) == (1 if calls < 2 else 2)
    assert notes(path) == [False, False]
    shutil.copytree(path, tmp_path / "copy")
    if calls < 2:
        with vecdb.open(tmp_path / "copy", maintenance="manual") as db:  # the older release goes on
            db.get_collection("one").upsert([9], [[1, 1]])
    with monkeypatch.context() as patch:
        become_format_two(patch)
        with vecdb.open(path, maintenance="manual"):
            assert version(path) == 2
        assert contents(path) == told
        assert not (path / (names.SUPERBLOCK + names.TEMPORARY)).exists()
