"""Snapshots in a store: objects below a URI, by fsspec (the extra `cloud`), which is imported when it is needed.

The manifest is uploaded last, so that a snapshot that was not finished is none. Stores have errors of their own kinds;
all of them come out as StorageFailed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from vecdb.errors import AlreadyExists, InvalidInput, StorageFailed, VecdbError
from vecdb.files import names
from vecdb.files.arrays import DIGEST_SIZE
from vecdb.files.disk import Bytes
from vecdb.storage.manifest import Manifest, ManifestEntry, encode_manifest

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.+")
PIECE = 8 << 20  # bytes asked for at a time; a request costs some 20 ms


def is_uri(place: str) -> bool:
    return URI.fullmatch(place) is not None


def open_store(uri: str) -> Store:
    """InvalidInput when the library for this kind of URI is not installed."""
    try:
        import fsspec
    except ImportError as error:
        raise InvalidInput(f"{uri} needs fsspec: pip install 'vecdb-engine[cloud]'") from error
    uri = uri.rstrip("/")
    try:
        system, root = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise InvalidInput(f"{uri} cannot be used: {error}") from error
    return Store(system, root.rstrip("/"), uri)


@contextmanager
def reaching(action: str, uri: str) -> Iterator[None]:
    try:
        yield
    except VecdbError:
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        raise StorageFailed(code or 0, f"cannot {action} {uri}: {error!r}; try again when the store answers") from error


class Store:
    """Objects below one URI. Their names are those of `names.is_snapshot_file`, and the manifest's."""

    def __init__(self, system: Any, root: str, uri: str) -> None:
        self.system, self.root, self.uri = system, root, uri
        self.parent, _, self.name = uri.rpartition("/")

    def beside(self, name: str) -> Store:
        return Store(self.system, f"{self.root.rpartition('/')[0]}/{name}", f"{self.parent}/{name}")

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"

    def size(self, name: str) -> int | None:
        with reaching("examine", f"{self.uri}/{name}"):
            self.system.invalidate_cache()
            if not self.system.isfile(self._at(name)):
                return None
            return int(self.system.size(self._at(name)))

    def sizes(self) -> dict[str, int]:
        """Every object below the URI."""
        with reaching("list", self.uri):
            self.system.invalidate_cache()
            found = self.system.find(self.root, detail=True)
        return {path.removeprefix(self.root).lstrip("/"): int(about["size"]) for path, about in found.items()}

    def children(self) -> list[str]:
        """Names directly below the URI."""
        with reaching("list", self.uri):
            self.system.invalidate_cache()
            if not self.system.exists(self.root):
                return []
            found = self.system.ls(self.root, detail=False)
        return sorted({path.rstrip("/").rpartition("/")[2] for path in found})

    def read(self, name: str, size: int) -> Iterator[bytes]:
        """At most `size` bytes."""
        with reaching("read", f"{self.uri}/{name}"):
            for start in range(0, size, PIECE):
                yield self.system.cat_file(self._at(name), start=start, end=min(size, start + PIECE))

    def write(self, name: str, pieces: Iterable[Bytes]) -> None:
        with reaching("write", f"{self.uri}/{name}"):
            self.system.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
            with self.system.open(self._at(name), "wb") as file:
                for piece in pieces:
                    file.write(piece)

    def remove(self, name: str) -> None:
        with reaching("remove", f"{self.uri}/{name}"):
            self.system.rm_file(self._at(name))


class StoreForm:
    """Uploads a snapshot, object by object."""

    form = "store"

    def __init__(self, store: Store) -> None:
        self.store = store
        if store.size(names.MANIFEST) is not None or store.sizes():
            raise AlreadyExists(f"{store.uri} exists, and nothing is ever written over it; choose a new name")

    def put(self, path: str, pieces: Iterable[Bytes]) -> ManifestEntry:
        digest, size = hashlib.blake2b(digest_size=DIGEST_SIZE), 0

        def hashed() -> Iterator[Bytes]:
            nonlocal size
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                yield piece

        self.store.write(path, hashed())
        return ManifestEntry(path, size, digest.digest())

    def finish(self, manifest: Manifest) -> bytes:
        data = encode_manifest(manifest)
        self.store.write(names.MANIFEST, [data])
        return data
