"""Goal: whatever is wrong with the pages of a catalog is Corrupted, with the words for it, before LMDB follows them.

Method: a catalog with branch pages, large values and free pages; one word of it is changed at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import PassingDisk
from vecdb.errors import Corrupted, StorageFailed
from vecdb.files.disk import LocalDisk
from vecdb.files.seams import Seams
from vecdb.storage import catalog_check
from vecdb.storage.catalog import LmdbCatalog, create_catalog
from vecdb.storage.catalog_check import DATA, LOCK, check_catalog
from vecdb.storage.catalog_pages import META, META_SIZE, META_TAIL, NODE_HEADER, PAGE_HEADER, TREE, Pages, Tree
from vecdb.storage.schema import seal
from vecdb.storage.snapshot import Table

PAGE, MAP = 4096, 1 << 30
FREE, MAIN, TAIL = META.size, META.size + TREE.size, META.size + 2 * TREE.size  # in the body of a meta page
FLAGS, DEPTH, LEAVES, ENTRIES, ROOT = 4, 6, 16, 32, 40  # words in the description of a tree
ROWS = 400


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("catalog")
    create_catalog(Seams(), place)
    catalog = LmdbCatalog(Seams(), place, 1, writable=True)
    for low in (0, ROWS // 2):  # the second commit leaves pages free
        with catalog.write() as writer:
            keys = [b"%08d" % number for number in range(low, ROWS)]
            writer.put_many(Table.IDS, [(key, seal(key, bytes(100))) for key in keys])
            writer.put(Table.RECORDS, b"large", seal(b"large", bytes(10_000)))
            writer.put(Table.RECORDS, b"other", seal(b"other", bytes(9_000)))
            writer.put(Table.RECORDS, b"small", seal(b"small", bytes(10)))
    catalog.close()
    return (place / "catalog-1" / DATA).read_bytes()


class Catalog:
    """The bytes of a catalog, to be changed."""

    def __init__(self, data: bytes, place: Path) -> None:
        self.data, self.place = bytearray(data), place
        (place / LOCK).touch()
        self.pages = Pages(Path("data.mdb"), memoryview(data))
        self.meta = self.pages.meta.transaction % 2 * PAGE + PAGE_HEADER  # the newest meta page's body
        (main,) = self.pages.leaves(self.pages.meta.main)
        nodes = (int(at) + NODE_HEADER for at in self.pages.leaf_nodes(main).at)
        self.places = {data[at : at + 1]: at + 1 for at in nodes}  # of the tables, by their names of one letter

    def put(self, offset: int, value: int, size: int = 2) -> None:
        self.data[offset : offset + size] = value.to_bytes(size, "little")

    def get(self, offset: int, size: int = 2) -> int:
        return int.from_bytes(self.data[offset : offset + size], "little")

    def described(self, table: Table) -> int:
        """Where the main tree describes the tree of a table."""
        return self.places[b"%d" % table]

    def tree(self, table: Table) -> Tree:
        at = self.described(table)
        return Tree.decode(bytes(self.data[at : at + TREE.size]))

    def node(self, page: int, number: int) -> int:
        return page * PAGE + self.get(page * PAGE + PAGE_HEADER + 2 * number)

    def leaf(self, table: Table) -> int:
        """The first leaf page of a table."""
        page = self.tree(table).root
        for _ in range(self.tree(table).depth - 1):
            page = self.get(self.node(page, 0), 4)
        return page

    def check(self, disk: PassingDisk | LocalDisk | None = None, map_size: int = MAP) -> None:
        (self.place / DATA).write_bytes(self.data)
        check_catalog(disk or LocalDisk(), self.place, map_size)


@pytest.fixture
def catalog(template: bytes, tmp_path: Path) -> Catalog:
    return Catalog(template, tmp_path)


def test_the_catalog_has_what_is_damaged_below(catalog: Catalog) -> None:
    catalog.check()
    ids, records = catalog.tree(Table.IDS), catalog.tree(Table.RECORDS)
    assert ids.depth == 2
    assert ids.leaf_pages > 3
    assert records.overflow_pages >= 5
    assert catalog.pages.meta.free.entries
    assert catalog.tree(Table.DELETIONS).root == 2**64 - 1


# ---- meta pages -----------------------------------------------------------------------------------------------------
def older_by_three(catalog: Catalog) -> None:
    older = PAGE - (catalog.meta - PAGE_HEADER) + PAGE_HEADER
    catalog.put(older + TAIL + 8, catalog.pages.meta.transaction - 3, 8)


def metas_of_two_sizes(catalog: Catalog) -> None:
    catalog.put(PAGE_HEADER + META.size, 2 * PAGE, 4)
    catalog.data[2 * PAGE : 3 * PAGE] = catalog.data[PAGE : 2 * PAGE]
    catalog.data.extend(bytes(PAGE * (len(catalog.data) // PAGE % 2)))


def wrong_parity(catalog: Catalog) -> None:
    catalog.put(catalog.meta + TAIL + 8, catalog.pages.meta.transaction + 1, 8)


# ---- trees ----------------------------------------------------------------------------------------------------------
def same_child_twice(catalog: Catalog) -> None:
    root = catalog.tree(Table.IDS).root
    catalog.put(catalog.node(root, 1), catalog.get(catalog.node(root, 0), 4), 4)


def table_shares_a_page(catalog: Catalog) -> None:
    at, other = catalog.described(Table.RECORDS), catalog.described(Table.IDS)
    catalog.data[at : at + TREE.size] = catalog.data[other : other + TREE.size]


def branch_keys_swapped(catalog: Catalog) -> None:
    root = catalog.tree(Table.IDS).root
    one, two = (catalog.node(root, number) + NODE_HEADER for number in (1, 2))
    size = catalog.get(one - 2)
    assert size == catalog.get(two - 2)
    catalog.data[one : one + size], catalog.data[two : two + size] = (
        catalog.data[two : two + size],
        catalog.data[one : one + size],
    )


def branch_key_moved(catalog: Catalog) -> None:
    """Still in order, and beyond some keys of the page before."""
    key = catalog.node(catalog.tree(Table.IDS).root, 2) + NODE_HEADER
    catalog.data[key + 7] += 1


def leaf_keys_swapped(catalog: Catalog) -> None:
    page = catalog.leaf(Table.IDS)
    one, two = (catalog.node(page, number) + NODE_HEADER for number in (0, 1))
    catalog.data[one : one + 8], catalog.data[two : two + 8] = catalog.data[two : two + 8], catalog.data[one : one + 8]


def value_changed(catalog: Catalog) -> None:
    catalog.data[catalog.node(catalog.leaf(Table.IDS), 0) + NODE_HEADER + 8 + 20] ^= 1


def entry_missing(catalog: Catalog) -> None:
    at = catalog.described(Table.IDS)
    catalog.put(at + ENTRIES, ROWS + 1, 8)


# ---- nodes ----------------------------------------------------------------------------------------------------------
def in_leaf(offset: int, value: int, size: int = 2) -> Callable[[Catalog], None]:
    """A word of the first node of the first leaf page of the ids."""
    return lambda catalog: catalog.put(catalog.node(catalog.leaf(Table.IDS), 0) + offset, value, size)


def in_head(offset: int, value: int, size: int = 2) -> Callable[[Catalog], None]:
    """A word of the head of that page."""
    return lambda catalog: catalog.put(catalog.leaf(Table.IDS) * PAGE + offset, value, size)


def in_branch(offset: int, value: int, size: int = 2) -> Callable[[Catalog], None]:
    return lambda catalog: catalog.put(catalog.node(catalog.tree(Table.IDS).root, 0) + offset, value, size)


def in_table(offset: int, value: int, size: int, table: Table = Table.IDS) -> Callable[[Catalog], None]:
    return lambda catalog: catalog.put(catalog.described(table) + offset, value, size)


def in_meta(offset: int, value: int, size: int = 8) -> Callable[[Catalog], None]:
    return lambda catalog: catalog.put(catalog.meta + offset, value, size)


def large_page(catalog: Catalog) -> int:
    node = catalog.node(catalog.leaf(Table.RECORDS), 0)
    return catalog.get(node + NODE_HEADER + len(b"large"), 8)


def large_value_of_another_length(catalog: Catalog) -> None:
    catalog.put(large_page(catalog) * PAGE + 12, 2, 4)


def large_values_on_one_page(catalog: Catalog) -> None:
    node = catalog.node(catalog.leaf(Table.RECORDS), 1)
    catalog.put(node + NODE_HEADER + len(b"other"), large_page(catalog), 8)


def a_table_in_a_table(catalog: Catalog) -> None:
    """A small value that says it is a tree."""
    catalog.put(catalog.node(catalog.leaf(Table.RECORDS), 2) + 4, 2)


def another_name(catalog: Catalog) -> None:
    catalog.data[catalog.described(Table.DATABASE) - 1] = ord("z")


def no_table(catalog: Catalog) -> None:
    catalog.put(catalog.described(Table.IDS) - 1 - NODE_HEADER + 4, 0)


# ---- the list of free pages -----------------------------------------------------------------------------------------
def free_list(catalog: Catalog) -> int:
    """Where the first list of free pages begins: its length, then the pages, falling."""
    node = catalog.node(catalog.pages.meta.free.root, 0)
    assert catalog.get(node + 4) == 0
    return node + NODE_HEADER + 8


def free_and_used(catalog: Catalog) -> None:
    at = free_list(catalog)
    count = catalog.get(at, 8)
    used = catalog.leaf(Table.IDS)
    places = [at + 8 * (number + 1) for number in range(count)]
    for place, page in zip(places, range(used + count - 1, used - 1, -1), strict=True):
        catalog.put(place, page, 8)


def free_out_of_order(catalog: Catalog) -> None:
    at = free_list(catalog)
    catalog.put(at + 8, 2, 8)


def free_of_another_length(catalog: Catalog) -> None:
    at = free_list(catalog)
    catalog.put(at, catalog.get(at, 8) + 1, 8)


def free_outside(catalog: Catalog) -> None:
    catalog.put(free_list(catalog) + 8, 2**40, 8)


OUTSIDE = "outside the file"
CASES: dict[str, tuple[Callable[[Catalog], None], str]] = {
    "metas-apart": (older_by_three, "do not follow each other"),
    "metas-of-two-sizes": (metas_of_two_sizes, "do not follow each other"),
    "meta-cut": (lambda catalog: catalog.data.__delitem__(slice(PAGE_HEADER + META_SIZE - 1, None)), "ends inside"),
    "meta-magic": (in_meta(0, 7, 4), "not a meta page"),
    "meta-version": (in_meta(4, 2, 4), "not a meta page"),
    "meta-page-size": (in_meta(META.size, 3000, 4), "cannot have pages of 3000"),
    "meta-parity": (wrong_parity, "in the wrong meta page"),
    "meta-last-page": (in_meta(TAIL, 2**40), "is said to have"),
    "tree-depth-0": (in_table(DEPTH, 0, 2), "is said to have 0 levels"),
    "tree-depth-33": (in_table(DEPTH, 33, 2), "is said to have 33 levels"),
    "tree-leaves": (in_table(LEAVES, 1, 8), "not as many pages"),
    "tree-empty": (in_table(ENTRIES, 1, 8, Table.DELETIONS), "empty tree is said"),
    "tree-root-outside": (in_table(ROOT, 10_000, 8), OUTSIDE),
    "tree-root-meta": (in_table(ROOT, 1, 8), OUTSIDE),
    "tree-root-huge": (in_table(ROOT, 2**63, 8), OUTSIDE),
    "tree-flags": (in_table(FLAGS, 4, 2), "unknown flags 0x4"),
    "tree-entries": (entry_missing, "and should have 401"),
    "tree-shared": (table_shares_a_page, "used twice"),
    "tables-flags": (no_table, "list of tables is damaged"),
    "tables-names": (another_name, "not that of a catalog"),
    "branch-twice": (same_child_twice, "used twice"),
    "branch-key-size": (in_branch(6, 5000), "key reaches beyond its page"),
    "branch-keys": (branch_keys_swapped, "keys of a branch page are out of order"),
    "branch-key-moved": (branch_key_moved, "not where lookups expect"),
    "leaf-number": (in_head(0, 5, 8), "says that it is another one"),
    "leaf-kind": (in_head(10, 1), "of the wrong kind"),
    "leaf-bounds": (in_head(12, 0), "impossible bounds"),
    "leaf-node": (in_head(PAGE_HEADER, 3), "lies outside its page"),
    "leaf-flags": (in_leaf(4, 8), "unknown flags"),
    "leaf-key-0": (in_leaf(6, 0), "impossible length"),
    "leaf-key-600": (in_leaf(6, 600), "impossible length"),
    "leaf-value": (in_leaf(0, 5000), "value reaches beyond"),
    "leaf-table": (a_table_in_a_table, "holds another table"),
    "leaf-keys": (leaf_keys_swapped, "keys of the catalog are out of order"),
    "leaf-checksum": (value_changed, "checksum of the value"),
    "large-length": (large_value_of_another_length, "not the page of a large value"),
    "large-twice": (large_values_on_one_page, "used twice"),
    "free-used": (free_and_used, "used, and listed as free"),
    "free-order": (free_out_of_order, "list of free pages is damaged"),
    "free-length": (free_of_another_length, "list of free pages is damaged"),
    "free-outside": (free_outside, "list of free pages is damaged"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said(catalog: Catalog, name: str) -> None:
    change, words = CASES[name]
    change(catalog)
    with pytest.raises(Corrupted, match=words):
        catalog.check()


def test_a_missing_and_an_empty_catalog_are_told_apart(catalog: Catalog) -> None:
    with pytest.raises(Corrupted, match="missing"):
        check_catalog(LocalDisk(), catalog.place, MAP)
    (catalog.place / DATA).touch()
    with pytest.raises(Corrupted, match="empty"):
        check_catalog(LocalDisk(), catalog.place, MAP)


def test_who_may_die_of_it_looks_at_nothing(tmp_path: Path) -> None:
    check_catalog(LocalDisk(), tmp_path, MAP, "nothing")


def test_large_catalogs_are_looked_at_down_to_the_branches(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_check, "LEAVES_CHECKED", 0)
    monkeypatch.setattr(catalog_check, "VALUES_CHECKED", 0)
    in_head(12, 0)(catalog)
    catalog.check()
    same_child_twice(catalog)
    with pytest.raises(Corrupted, match="used twice"):
        catalog.check()


def test_pages_that_are_cut_off_at_the_end_may_be_free(catalog: Catalog) -> None:
    in_meta(TAIL, len(catalog.data) // PAGE + 5)(catalog)
    catalog.check()


# ---- beside a process that commits ----------------------------------------------------------------------------------
class Shifting(PassingDisk):
    """The file is another one whenever it was mapped: `turns` are what stands there, one look after the other."""

    def __init__(self, place: Path, turns: list[bytes], fails: int = 0) -> None:
        super().__init__(LocalDisk())
        self.place, self.turns, self.fails, self.maps = place / DATA, turns, fails, 0

    def map(self, path: Path, size: int) -> memoryview:
        self.maps += 1
        before = self.place.read_bytes()
        if self.turns:
            self.place.write_bytes(self.turns.pop(0))
        if self.maps <= self.fails:
            raise StorageFailed(5, "the file cannot be mapped")
        return memoryview(before)


def test_a_file_that_grows_while_it_is_mapped_is_mapped_again(catalog: Catalog) -> None:
    grown = bytes(catalog.data) + bytes(PAGE)
    disk = Shifting(catalog.place, [grown], fails=1)
    catalog.check(disk)
    assert disk.maps == 2


def test_a_file_that_cannot_be_mapped_is_an_error(catalog: Catalog) -> None:
    with pytest.raises(StorageFailed, match="cannot be mapped"):
        catalog.check(Shifting(catalog.place, [], fails=1))


def test_pages_that_changed_meanwhile_are_looked_at_again(catalog: Catalog) -> None:
    good = bytes(catalog.data)
    value_changed(catalog)
    disk = Shifting(catalog.place, [good + bytes(PAGE)])
    catalog.check(disk)
    assert disk.maps == 2


def test_a_catalog_that_never_rests_is_called_damaged(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_check, "ATTEMPTS", 3)
    value_changed(catalog)
    damaged = bytes(catalog.data)
    disk = Shifting(catalog.place, [damaged + bytes(PAGE * number) for number in (1, 2, 3)])
    with pytest.raises(Corrupted, match="checksum"):
        catalog.check(disk)
    assert disk.maps == 3


def test_a_node_has_the_layout_that_these_tests_change(catalog: Catalog) -> None:
    size, flags, key_size = struct.unpack_from("<IHH", catalog.data, catalog.node(catalog.leaf(Table.IDS), 0))
    assert (size, flags, key_size) == (104, 0, 8)
    assert META_TAIL.size == 16
