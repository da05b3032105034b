"""The pages of a catalog, looked at before LMDB may follow them.

LMDB trusts its file: it has no checksums, does not look at the length of the file, and follows page numbers through its
map, where a bad one ends the process. So every page that a lookup can reach is checked first: that it lies in the file,
is what its parent says, and that its nodes lie inside it. The layout is that of LMDB 0.9 (`lmdb.h`, `mdb.c`).

A file may be shorter than its last page number says when the pages at its end are free; those are not reached.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from vecdb.errors import Corrupted
from vecdb.types import I64, AnyArray

MAGIC, DATA_VERSION = 0xBEEFC0DE, 1
PAGE_SIZES = tuple(1 << n for n in range(9, 17))
META = struct.Struct("<IIQQ")  # magic version address map_size
TREE = struct.Struct("<IHHQQQQQ")  # pad flags depth branch_pages leaf_pages overflow_pages entries root
META_TAIL = struct.Struct("<QQ")  # last page, transaction
META_SIZE = META.size + 2 * TREE.size + META_TAIL.size
PAGE_HEADER, NODE_HEADER = 16, 8
BRANCH, LEAF, OVERFLOW, META_PAGE = 1, 2, 4, 8
BIG_DATA, SUB_TREE = 1, 2  # flags of a node
NO_ROOT = 2**64 - 1
DEPTH_MAX = 32
KEY_MAX = 511
PAGES_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Tree:
    """A B-tree as its owner describes it."""

    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int

    @staticmethod
    def decode(data: bytes) -> Tree:
        _, *fields = TREE.unpack(data)
        return Tree(*fields)


@dataclass(frozen=True, slots=True)
class Meta:
    """One of the two meta pages. The one with the higher transaction counts."""

    page_size: int
    free: Tree
    main: Tree
    last_page: int
    transaction: int


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of some leaf pages: int64 arrays of one length. `at` is the byte of the file where a node begins."""

    at: I64
    flags: I64
    key_size: I64
    data_size: I64


class Pages:
    """The pages of one file, `data` its bytes. Whatever is wrong is raised as Corrupted with the byte of its page."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path, self.data = path, data
        self.meta = self._newest_meta()
        self.size = self.meta.page_size
        self.count = len(data) // self.size
        self.seen = np.zeros(self.count, np.bool_)
        self.seen[:2] = True
        self.words = np.frombuffer(data, "<u2", self.count * self.size // 2)

    def fail(self, page: int, reason: str) -> Corrupted:
        return Corrupted(self.path, page * self.meta.page_size, f"{reason} (page {page} of the catalog)")

    # ---- meta pages -----------------------------------------------------------------------------------------------
    def _newest_meta(self) -> Meta:
        first = self._meta(0, 0)
        second = self._meta(first.page_size, 1)
        older, newer = sorted((first, second), key=lambda meta: meta.transaction)
        if first.page_size != second.page_size or newer.transaction - older.transaction > 1:
            raise Corrupted(self.path, 0, "the two meta pages of the catalog do not follow each other")
        return newer

    def _meta(self, offset: int, number: int) -> Meta:
        body = bytes(self.data[offset + PAGE_HEADER : offset + PAGE_HEADER + META_SIZE])
        if len(body) < META_SIZE:
            raise Corrupted(self.path, offset, "the catalog ends inside a meta page")
        magic, version, _, _ = META.unpack_from(body)
        flags = int.from_bytes(self.data[offset + 10 : offset + 12], "little")
        if magic != MAGIC or version != DATA_VERSION or not flags & META_PAGE:
            raise Corrupted(self.path, offset, "this is not a meta page of LMDB")
        page_size = int.from_bytes(body[META.size : META.size + 4], "little")
        if page_size not in PAGE_SIZES or len(self.data) < 2 * page_size:
            raise Corrupted(self.path, offset, f"the catalog cannot have pages of {page_size} bytes")
        free, main = (Tree.decode(body[at : at + TREE.size]) for at in (META.size, META.size + TREE.size))
        last_page, transaction = META_TAIL.unpack_from(body, META.size + 2 * TREE.size)
        if transaction and transaction % 2 != number:
            raise Corrupted(self.path, offset, f"transaction {transaction} is in the wrong meta page")
        return Meta(page_size, free, main, last_page, transaction)

    # ---- trees ----------------------------------------------------------------------------------------------------
    def leaves(self, tree: Tree) -> Iterator[I64]:
        """The numbers of the leaf pages in order, some at a time. Branch pages and their number are checked."""
        if tree.root == NO_ROOT:
            if (tree.depth, tree.branch_pages, tree.leaf_pages, tree.overflow_pages, tree.entries) != (0, 0, 0, 0, 0):
                raise self.fail(0, "an empty tree is said to have pages")
            return
        if not 1 <= tree.depth <= DEPTH_MAX:
            raise self.fail(0, f"a tree is said to have {tree.depth} levels")
        level, branches = np.array([min(tree.root, 2**62)], np.int64), 0
        for _ in range(tree.depth - 1):
            self._claim(level)
            branches += len(level)
            level = self._children(level)
        self._claim(level)
        if branches != tree.branch_pages or len(level) != tree.leaf_pages:
            raise self.fail(tree.root, "a tree has not as many pages as it should")
        for start in range(0, len(level), PAGES_AT_ONCE):
            yield level[start : start + PAGES_AT_ONCE]

    def bounded_leaves(self, tree: Tree) -> Iterator[tuple[int, bytes, bytes | None]]:
        """(leaf page, lowest key, first key beyond or None) as the branch pages say, in order; after `leaves`."""
        stack: list[tuple[int, int, bytes, bytes | None]] = []
        if tree.root != NO_ROOT:
            stack.append((tree.root, tree.depth, b"", None))
        while stack:
            page, depth, low, high = stack.pop()
            if depth == 1:
                yield page, low, high
                continue
            at, _ = self._nodes_of(np.array([page], np.int64), BRANCH)
            children = self._children(np.array([page], np.int64)).tolist()
            keys = [self._branch_key(start) for start in at.tolist()]
            lows = [low, *keys[1:]]  # the first key of a branch page is not looked at
            highs = [*keys[1:], high]
            if any(a >= b for a, b in pairwise(lows)):
                raise self.fail(page, "the keys of a branch page are out of order")
            for child in reversed(range(len(children))):
                stack.append((children[child], depth - 1, lows[child], highs[child]))

    def _branch_key(self, at: int) -> bytes:
        size = int(self.words[(at >> 1) + 3])
        return bytes(self.data[at + NODE_HEADER : at + NODE_HEADER + size])

    def _claim(self, pages: I64) -> None:
        """Each page lies in the file and belongs to one place of one tree."""
        outside = (pages < 2) | (pages >= min(self.count, self.meta.last_page + 1))
        if outside.any():
            page = int(pages[outside][0])
            raise self.fail(0, f"page {page} is named, but it lies outside the file, which has {self.count} pages")
        twice = self.seen[pages]
        if twice.any() or len(np.unique(pages)) != len(pages):
            raise self.fail(int(pages[twice][0]) if twice.any() else int(pages[0]), "a page is used twice")
        self.seen[pages] = True

    def _children(self, pages: I64) -> I64:
        at, page_of = self._nodes_of(pages, BRANCH)
        words = at >> 1
        key_size = self.words[words + 3].astype(np.int64)
        self._require(NODE_HEADER + key_size <= self._room(at), page_of, "a key reaches beyond its page")
        low, high, top = (self.words[words + i].astype(np.int64) for i in range(3))
        children: I64 = low | high << 16 | top << 32
        return children

    def leaf_nodes(self, pages: I64) -> Nodes:
        """The nodes of leaf pages. Keys and values lie inside their pages; what is large on pages of its own."""
        at, page_of = self._nodes_of(pages, LEAF)
        words = at >> 1
        low, high, flags, key_size = (self.words[words + i].astype(np.int64) for i in range(4))
        data_size: I64 = low | high << 16
        big = (flags & BIG_DATA) != 0
        self._require((flags & ~(BIG_DATA | SUB_TREE)) == 0, page_of, "a node has unknown flags")
        self._require((key_size >= 1) & (key_size <= KEY_MAX), page_of, "a key has an impossible length")
        used = NODE_HEADER + key_size + np.where(big, 8, data_size)
        self._require(used <= self._room(at), page_of, "a value reaches beyond its page")
        return Nodes(at, flags, key_size, data_size)

    def overflow_pages(self, nodes: Nodes) -> int:
        """Checks the pages of large values, and returns how many there are."""
        total = 0
        for i in np.flatnonzero(nodes.flags & BIG_DATA).tolist():
            first, size = self._big_data(nodes, i)
            wanted = (PAGE_HEADER + size - 1) // self.size + 1
            self._claim(np.arange(first, min(first + wanted, max(first, self.count) + 1), dtype=np.int64))
            number, flags, pages = struct.unpack_from("<QxxHI", self.data, first * self.size)
            if number != first or flags != OVERFLOW or pages != wanted:
                raise self.fail(first, "this is not the page of a large value that it should be")
            total += wanted
        return total

    def _big_data(self, nodes: Nodes, i: int) -> tuple[int, int]:
        at = int(nodes.at[i] + NODE_HEADER + nodes.key_size[i])
        return min(int.from_bytes(self.data[at : at + 8], "little"), 2**62), int(nodes.data_size[i])

    def entries(self, nodes: Nodes) -> list[tuple[bytes, bytes]]:
        """(key, value) of nodes whose overflow pages were checked."""
        found, data = [], self.data
        columns = (nodes.at, nodes.flags, nodes.key_size, nodes.data_size)
        for at, flags, key_size, size in zip(*(column.tolist() for column in columns), strict=True):
            start = at + NODE_HEADER + key_size
            key = bytes(data[at + NODE_HEADER : start])
            if flags & BIG_DATA:
                start = int.from_bytes(data[start : start + 8], "little") * self.size + PAGE_HEADER
            found.append((key, bytes(data[start : start + size])))
        return found

    # ---- nodes ----------------------------------------------------------------------------------------------------
    def _nodes_of(self, pages: I64, kind: int) -> tuple[I64, I64]:
        """(byte of each node, its page) of claimed pages, after their headers were checked."""
        head = pages * (self.size // 2)
        low, high, top = (self.words[head + i].astype(np.int64) for i in range(3))
        flags, lower, upper = (self.words[head + i].astype(np.int64) for i in (5, 6, 7))
        self._require((low | high << 16 | top << 32) == pages, pages, "a page says that it is another one")
        self._require(flags == kind, pages, "a page is of the wrong kind")
        fits = (lower >= PAGE_HEADER + 2) & (lower <= upper) & (upper <= self.size) & (lower % 2 == 0)
        self._require(fits, pages, "a page has impossible bounds")
        counts = (lower - PAGE_HEADER) // 2
        page_of = np.repeat(pages, counts)
        position = np.arange(len(page_of)) - np.repeat(np.cumsum(counts) - counts, counts)
        offset = self.words[page_of * (self.size // 2) + PAGE_HEADER // 2 + position].astype(np.int64)
        inside = (offset >= np.repeat(upper, counts)) & (offset % 2 == 0) & (offset + NODE_HEADER <= self.size)
        self._require(inside, page_of, "a node lies outside its page")
        return page_of * self.size + offset, page_of

    def _room(self, at: I64) -> I64:
        """Bytes from a node to the end of its page."""
        return self.size - (at & (self.size - 1))

    def _require(self, holds: AnyArray, pages: I64, reason: str) -> None:
        if not holds.all():
            raise self.fail(int(pages[~holds][0]), reason)
