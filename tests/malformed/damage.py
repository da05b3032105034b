"""What is done to one file of a database: the files by role, the ways to damage them, and the cases made of both."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_COLUMNS = {
    0: ("int_values", "int_rows"),
    1: ("float_values", "float_rows"),
    2: ("string_bytes", "string_offsets", "string_starts", "string_rows"),
    3: ("bool_values", "bool_rows"),
    4: ("timestamp_values", "timestamp_rows"),
    5: ("bytes_bytes", "bytes_offsets", "bytes_starts", "bytes_rows"),
    6: ("string_bytes", "string_offsets", "string_starts", "string_rows", "size_values", "size_rows"),
    7: ("int_values", "int_rows", "null_rows", "present_rows"),
}

# role -> pattern of exactly one file. "docs" is collection 1, "twin" 2, "pair" 3.
TOP = {"superblock": "VECDB", "lock": "LOCK", "catalog": "catalog-*/data.mdb", "readers": "catalog-*/lock.mdb"}
LOG = {"log": "wal/*.wal"}
SEGMENT = {
    **{f"docs.{name}": f"segments/1-*/{name}.npy" for name in ("sequences", "order", "id_offsets", "id_bytes")},
    **{f"docs.{name}": f"segments/1-*/field-1/{name}.npy" for name in ("vectors", "inverse_norms")},
    **{f"pair.{name}": f"segments/3-*/{name}.npy" for name in ("ids", "sequences")},
    "pair.left": "segments/3-*/field-1/vectors.npy",
    "pair.right": "segments/3-*/field-2/vectors.npy",
    "pair.rows": "segments/3-*/field-2/rows.npy",
}
INDEX = {
    **{f"flat.{name}": f"segments/1-*/field-1/index-*/{name}.npy" for name in ("add", "centre", "codes", "scale")},
    **{
        f"graph.{name}": f"segments/1-*/field-1/index-*/{name}.npy"
        for name in ("centre", "levels", "links", "records", "twins", "upper")
    },
}
COLUMN = {
    f"column-{number}.{name}": f"segments/1-*/columns/{number}/{name}.npy"
    for number, names in _COLUMNS.items()
    for name in names
}
ROLES = {**TOP, **LOG, **SEGMENT, **INDEX, **COLUMN}


BESIDE = {"flat": "codes.npy", "graph": "links.npy"}  # tells the directories of two indexes apart


def place_of(root: Path, role: str) -> Path:
    found = sorted(root.glob(ROLES[role]))
    beside = BESIDE.get(role.split(".")[0])
    if beside is not None:
        found = [path for path in found if path.with_name(beside).exists()]
    assert len(found) == 1, f"{role}: {found}"
    return found[0]


# ---- damages --------------------------------------------------------------------------------------------------------
def put(path: Path, data: bytes) -> None:
    """Other bytes under the name; the old file may be shared with the template by a hard link."""
    path.unlink()
    path.write_bytes(data)


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    put(path, data[: int(len(data) * share)])


def flip(path: Path, offset: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= 1 << bit
    put(path, bytes(data))


def middle(path: Path) -> None:
    flip(path, path.stat().st_size // 2, 4)


def swap(path: Path) -> None:
    """The file of the same name in another collection, or of another database, or a like one, takes its place."""
    root = next(parent for parent in path.parents if (parent / "wal").is_dir())
    inside = path.relative_to(root).as_posix()
    other = LIKE.get(path.name, path.name)
    if inside.startswith("segments/1-"):
        source = next(root.glob("segments/2-*")) / "/".join(path.relative_to(root).parts[2:])
        if not source.exists():  # an index, which has another number there
            source = next(source.parents[1].glob(f"index-*/{path.name}"))
    elif inside.startswith("segments/"):
        source = next(root.glob(f"segments/3-*/{other}"))
    else:
        source = next((root.parent / "foreign").glob(inside if path.suffix != ".wal" else "wal/*.wal"))
    put(path, source.read_bytes())


LIKE = {  # of "pair": files of one size, or nearly
    "ids.npy": "sequences.npy",
    "sequences.npy": "ids.npy",
    "rows.npy": "order.npy",
    "vectors.npy": "field-2/vectors.npy",
}


def link(path: Path) -> None:
    """The file is moved aside and a link to it takes its place."""
    aside = path.parent.parent / f"aside-{path.name}"
    shutil.move(path, aside)
    path.symlink_to(aside)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def grow(path: Path) -> None:
    put(path, path.read_bytes() + bytes(4096))


def noise(path: Path) -> None:
    seed = zlib.crc32(path.name.encode())
    put(path, bytes((seed * n >> 7) & 255 for n in range(path.stat().st_size)))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: put(path, b""),
    "half": lambda path: cut(path, 0.5),
    "short": lambda path: put(path, path.read_bytes()[:-1]),
    "magic": lambda path: flip(path, 1),
    "head": lambda path: flip(path, 28, 2),
    "body": lambda path: flip(path, 128),
    "middle": middle,
    "last": lambda path: flip(path, -1, 7),
    "zeros": lambda path: put(path, bytes(path.stat().st_size)),
    "noise": noise,
    "grown": grow,
    "missing": Path.unlink,
    "link": link,
    "directory": directory,
    "pipe": pipe,
    "swap": swap,
}
SOME = ("empty", "half", "head", "middle", "grown", "missing", "link", "swap")  # for the files of a segment
FEW = ("half", "middle", "link")  # for those of which there are many alike


@dataclass(frozen=True, slots=True)
class Case:
    """`damage` of the file with `role`, then the database is opened with `mode`."""

    role: str
    damage: str
    mode: str

    @property
    def name(self) -> str:
        return f"{self.role}-{self.damage}-{self.mode}"


def default_cases() -> Iterator[Case]:
    """A writer and a reader in turns."""
    for number, (role, damage) in enumerate(_pairs()):
        yield Case(role, damage, ("rw", "r")[(number + number // len(DAMAGES)) % 2])


def _pairs() -> Iterator[tuple[str, str]]:
    for role in ROLES:
        for damage in FEW if role in COLUMN or role in INDEX else SOME if role in SEGMENT else DAMAGES:
            yield role, damage


def all_cases() -> Iterator[Case]:
    for role in ROLES:
        for damage in DAMAGES:
            for mode in ("rw", "r"):
                yield Case(role, damage, mode)
