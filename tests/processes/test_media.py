"""Goal: a database is refused where it cannot be safe, its files are its owner's alone, and many collections fit.

Method: a table of mounts written by the test; real processes with other masks, limits and rights.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import lmdb
import msgpack
import numpy as np
import pytest

import vecdb
from vecdb.files import media
from vecdb.storage.schema import STATE_KEY, DatabaseState, encode_state, seal
from vecdb.storage.snapshot import Table

ROOT = Path(__file__).parents[2]


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, resource, sys\nimport numpy as np\nimport vecdb\npath = sys.argv[1]\n" + code,
            str(path),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of mounts in which the directory of the test is of the type in `table`'s second line."""
    table = tmp_path / "mountinfo"
    monkeypatch.setattr(media, "MOUNTS", table)
    return table


def mount(table: Path, kind: str) -> None:
    number = table.parent.stat().st_dev
    lines = ["21 1 0:5 / /proc rw - proc proc rw"]
    lines += [f"30 1 {os.major(number)}:{os.minor(number)} / /data rw,relatime shared:1 - {kind} server:/x rw"]
    table.write_text("\n".join([*lines, "", "broken"]))


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "fuse.s3fs", "fuse.rclone"]
)
def test_network_file_systems_are_refused_unless_allowed(tmp_path: Path, mounted: Path, kind: str) -> None:
    mount(mounted, kind)
    for mode in ("rw", "r"):
        with pytest.raises(vecdb.StorageFailed, match=rf"network file system \({kind}\).*allow_network_fs=True"):
            vecdb.open(tmp_path / "db", mode=mode)  # type: ignore[arg-type]
    assert not (tmp_path / "db").exists()
    with vecdb.open(tmp_path / "db", allow_network_fs=True) as db:
        db.create_collection("docs", dim=2).upsert([1], [[1.0, 2.0]])
    with vecdb.open(tmp_path / "db", mode="r", allow_network_fs=True) as db:
        assert db.get_collection("docs").count() == 1


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuse.fuse-overlayfs", "fuseblk"])
def test_local_file_systems_are_not(tmp_path: Path, mounted: Path, kind: str) -> None:
    mount(mounted, kind)
    vecdb.open(tmp_path / "db").close()


def test_without_a_table_of_mounts_nothing_is_refused(tmp_path: Path, mounted: Path) -> None:
    assert media.file_system_of(tmp_path) is None
    vecdb.open(tmp_path / "db").close()


def test_a_real_table_of_mounts_is_understood() -> None:
    if media.MOUNTS.exists():
        assert media.file_system_of(Path("/proc/self")) == "proc"


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_files_are_the_owners_alone_whatever_the_mask(tmp_path: Path, mask: int) -> None:
    run(
        f"""
os.umask({mask})
with vecdb.open(path, maintenance="manual") as db:
    docs = db.create_collection("docs", dim=4)
    for start in range(0, 300, 100):
        docs.upsert(list(range(start, start + 100)), np.ones((100, 4)), [{{"n": n}} for n in range(100)])
        db.optimize()
    docs.delete(list(range(150)))
    docs.upsert([1], np.ones((1, 4)))
""",
        tmp_path / "db",
    )
    for path in [tmp_path / "db", *(tmp_path / "db").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), f"{path} {mode:o}"


def test_an_unreadable_file_is_told_with_its_name(tmp_path: Path) -> None:
    root = os.getuid() == 0  # may read everything: another user reads instead, where it can reach the directory
    place = Path("/dev/shm") if root and os.access("/dev/shm", os.W_OK) else tmp_path
    path = place / f"vecdb-unreadable-{os.getpid()}"
    with vecdb.open(path, maintenance="manual") as db:
        db.create_collection("docs", dim=4).upsert([1, 2], np.ones((2, 4)))
        db.optimize()
    try:
        for found in [path, *path.rglob("*")]:
            found.chmod(0o755 if found.is_dir() else 0o644)
        next(path.glob("segments/1-*/sequences.npy")).chmod(0o200)
        told = run(
            ("os.setgid(65534); os.setuid(65534)\n" if root else "")
            + 'try: vecdb.open(path, mode="r").get_collection("docs")\n'
            + "except vecdb.StorageFailed as error: print(error)",
            path,
        ).stdout
        assert "sequences.npy" in told
        assert "permission denied" in told
    finally:
        shutil.rmtree(path)


def clone_collection(root: Path, count: int) -> None:
    """Collections 2 to `count` like the first and only one: its entries again, its files by hard links."""
    environment = lmdb.open(str(root / "catalog-1"), map_size=1 << 30, max_dbs=16)
    tables = {table: environment.open_db(b"%d" % table, create=False) for table in Table}
    with environment.begin(write=True) as transaction:
        entries = {table: list(transaction.cursor(db)) for table, db in tables.items() if table is not Table.DATABASE}
        for number in range(2, count + 1):
            for table, found in entries.items():
                for key, value in found:
                    new, body = number.to_bytes(4, "big") + key[4:], value[4:]
                    if table is Table.COLLECTIONS:
                        body = msgpack.packb([f"c{number}", *msgpack.unpackb(body)[1:]])
                    transaction.put(new, seal(new, body), db=tables[table])
        state = encode_state(DatabaseState(1, count + 1))
        transaction.put(STATE_KEY, state, db=tables[Table.DATABASE])
    environment.close()
    (first,) = root.glob("segments/1-*")
    for number in range(2, count + 1):
        shutil.copytree(first, first.with_name(f"{number}-{first.name.split('-')[1]}"), copy_function=os.link)


def test_two_thousand_collections_with_few_descriptors(tmp_path: Path) -> None:
    """Maps keep no descriptor, so what is open at once is not bounded by them."""
    count = 2000
    with vecdb.open(tmp_path / "db", maintenance="manual") as db:
        db.create_collection("c1", dim=2).upsert([7, 8], [[7.0, 1.0], [-8.0, 1.0]], [{"n": 7}, {"n": 8}])
        db.optimize()
    clone_collection(tmp_path / "db", count)
    told = run(
        f"""
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
for mode in ("r", "rw"):
    with vecdb.open(path, mode=mode, maintenance="manual") as db:
        held = [db.get_collection(name) for name in db.list_collections()]
        assert len(held) == {count}
        for collection in held[::40]:
            assert collection.search([7.0, 1.0], k=1, where={{"n": 7}}).ids.tolist() == [7]
        print(len(os.listdir("/proc/self/fd")))
        if mode == "rw":
            held[-1].upsert([9], [[9.0, 1.0]])
""",
        tmp_path / "db",
    ).stdout
    assert all(int(descriptors) < 64 for descriptors in told.split())
