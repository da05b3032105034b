"""Columns of growing and sealed segments beside plain Python."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filter import oracle
from tests.filter.sources import all_forms, frozen, growing, sealed
from vecdb.kernels import bitset
from vecdb.storage import sealed_columns, string_table
from vecdb.storage.columns import MISSING, GrowingColumns, SealedColumns, joined, merge_sealed
from vecdb.storage.ranks import Spans
from vecdb.storage.string_table import StringTable
from vecdb.types import ColumnInfo, Equal, Null, Prefix, Present, Search, Sized, Within

INF = float("inf")
NUMBERS = [0, 1, -1, 1.0, 1.5, -1.5, -0.0, 5e-324, -5e-324, 1e300, -1e300, INF, -INF, float("nan")]
NUMBERS += [sign * value for sign in (1, -1) for value in (2**53, 2**53 + 1, float(2**53), 2.0**63, 2**63 - 1)]
NUMBERS += [-(2**63), -(2**63) + 1, float(2**53 + 2), 2**62 + 1, float(2**62)]


def rows(source: Any, probe: Any) -> list[int]:
    """The rows that are selected; counts, and tests of single rows, have to agree."""
    found = source.select(probe)
    listed: list[int] = bitset.rows_of(found, source.rows).tolist()
    assert len(listed) == found.count
    counted = source.count(probe)
    assert counted.low <= found.count <= counted.high
    assert counted.exact or "list" in source.paths()[probe.path].types
    for step in (1, 3):
        some = np.arange(0, source.rows, step, dtype=np.int32)
        assert some[source.among(probe, some)].tolist() == [row for row in listed if row % step == 0]
    for gone in (np.arange(0, source.rows, 3), np.arange(source.rows - source.rows % 50, source.rows)):
        left = source.count_without(probe, bitset.from_rows(gone.astype(np.int32), source.rows))
        assert left.low <= len(set(listed) - set(gone.tolist())) <= left.high
        assert left.exact >= counted.exact
    return listed


def test_numbers_compare_exactly() -> None:
    payloads = [{"a": number} for number in NUMBERS] + [{"a": [number, "x"]} for number in NUMBERS]
    operators = ("$eq", "$gt", "$gte", "$lt", "$lte")
    operands = [number for number in NUMBERS if number == number]
    for _, source in all_forms(payloads):
        for operator, operand in itertools.product(operators, operands):
            probe: Any = {
                "$eq": Equal("a", (operand,)),
                "$gt": Within("a", operand, None, low_open=True),
                "$gte": Within("a", operand, None),
                "$lt": Within("a", None, operand, high_open=True),
                "$lte": Within("a", None, operand),
            }[operator]
            wanted = [row for row, p in enumerate(payloads) if oracle.compare(p["a"], operator, operand)]
            assert rows(source, probe) == wanted, (operator, operand)


def test_bounds_on_both_sides() -> None:
    payloads = [{"a": value} for value in (1, 1.5, 2, 2.5, 3, "b", "c", True)]
    for _, source in all_forms(payloads):
        assert rows(source, Within("a", 1, 2.5)) == [0, 1, 2, 3]
        assert rows(source, Within("a", 1, 2.5, True, True)) == [1, 2]
        assert rows(source, Within("a", "b", "c", high_open=True)) == [5]
        assert rows(source, Within("a", "b", "c", low_open=True)) == [6]
        assert rows(source, Within("a", 3, 1)) == []
        assert rows(source, Within("a", "c", "b")) == []


def test_presence_null_and_types() -> None:
    payloads = [{"a": None}, {}, {"a": [1, "x"]}, {"a": 2.5}, {"a": {"b": True}}, {"a": float("nan")}]
    for _, source in all_forms(payloads):
        assert rows(source, Present("a")) == [0, 2, 3, 4, 5]
        assert rows(source, Null("a")) == [0]
        assert rows(source, Equal("a.b", (True, "y"))) == [4]
        assert rows(source, Prefix("a", "x")) == [2]
        assert rows(source, Present("nothing")) == rows(source, Equal("nothing", (1,))) == []
        assert source.paths()["a"] == ColumnInfo(5, ("int", "float", "string", "null", "list"))
        assert source.paths()["a.b"] == ColumnInfo(1, ("bool",))
        assert set(source.paths()) == {"a", "a.b"}


def test_many_operands() -> None:
    payloads = [{"a": row, "s": f"word {row}", "b": bytes([row % 256])} for row in range(1000)]
    for _, source in all_forms(payloads):
        for wanted in (range(0, 1000, 3), range(500, 510), [7]):
            listed = [*wanted]
            assert rows(source, Equal("a", tuple(listed))) == listed
            assert rows(source, Equal("s", (*(f"word {row}" for row in listed), "none"))) == listed
        assert rows(source, Equal("b", (b"\x01", b"\xff"))) == [r for r in range(1000) if r % 256 in (1, 255)]
        assert rows(source, Prefix("s", "word 99")) == [99, *range(990, 1000)]


def test_strings_that_arrive_between_questions() -> None:
    columns = GrowingColumns()
    words: list[str] = []
    for count in (1500, 10, 2000, 400, 1):
        added = [f"{(len(words) + position) * 7919 % 10_007}" for position in range(count)]
        columns.append(len(words), [{"s": word} for word in added])
        words += added
        source = columns.at(len(words))
        for low, high in (("2", "5"), ("31", "31"), (words[-1], None), (None, words[0])):
            for low_open, high_open in itertools.product((False, True), repeat=2):
                wanted = [
                    row
                    for row, word in enumerate(words)
                    if (low is None or (word > low if low_open else word >= low))
                    and (high is None or (word < high if high_open else word <= high))
                ]
                assert rows(source, Within("s", low, high, low_open, high_open)) == wanted
        assert rows(source, Prefix("s", "77")) == [row for row, word in enumerate(words) if word.startswith("77")]


def test_value_counts_and_extremes() -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    moment = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
    payloads: list[dict[str, Any]] = [
        {"a": 1, "t": moment},
        {"a": 1.0, "t": moment.astimezone(zone)},
        {"a": True, "t": dt.date(2024, 5, 1)},
        {"a": [1, 1.0, 2, "x", "x"]},
        {"a": b"z"},
        {"a": "y"},
        {"a": None},
    ]
    some = bitset.set_of_rows(np.array([0, 2, 5], np.int32))
    for _, source in all_forms(payloads):
        assert source.value_counts("a") == {
            ("bool", True): 1,
            ("number", 1): 3,
            ("number", 2): 1,
            ("string", "x"): 1,
            ("string", "y"): 1,
            ("bytes", b"z"): 1,
        }
        assert source.value_counts("t") == {("timestamp", moment): 2, ("timestamp", moment.replace(hour=0)): 1}
        assert source.value_counts("a", some) == {("bool", True): 1, ("number", 1): 1, ("string", "y"): 1}
        assert source.value_counts("nothing") == {}
        assert source.min_max("a") == {"number": (1, 2), "string": ("x", "y")}
        assert source.min_max("a", some) == {"number": (1, 1), "string": ("y", "y")}
        assert source.min_max("t") == {"timestamp": (moment.replace(hour=0), moment)}
        assert source.min_max("nothing") == {}


def test_orders_are_total_and_use_the_smallest_element() -> None:
    payloads: list[dict[str, Any]] = [
        {"a": "b"},
        {"a": 2.5},
        {"a": [9, 2, "a"]},
        {},
        {"a": True},
        {"a": b"x"},
        {"a": dt.date(2020, 1, 1)},
        {"a": None},
        {"a": False},
        {"a": float("nan")},
        {"a": "a"},
    ]
    order = [8, 4, 2, 1, 6, 10, 0, 5]
    for name, source in all_forms(payloads):
        codes = source.order("a", np.arange(len(payloads), dtype=np.int32)).codes.tolist()
        assert sorted(range(len(payloads)), key=lambda row: (codes[row], row)) == [*order, 3, 7, 9], name
        assert [codes[row] == MISSING for row in (3, 7, 9, 2)] == [True, True, True, False]
        chosen = source.order("a", np.array([10, 3, 2], np.int32)).codes
        assert chosen[2] < chosen[0] < chosen[1] == MISSING


ORDERED: list[list[Any]] = [
    [3, 1, 2, None, 1],
    [3.5, 1, -0.0, 0, 2**53 + 1, float(2**53), float("inf")],
    ["b", "a", "", "ab", "b"],
    [True, 1, "1", b"1", 1.0, dt.date(2020, 1, 1), None, False],
    [[3, 1], 2, [], ["a"], [2.0, True]],
    [dt.date(2020, 1, 1), dt.datetime(1960, 5, 1), dt.datetime(2020, 1, 1)],
    [None, None],
]


@pytest.mark.parametrize("values", ORDERED, ids=str)
def test_rows_of_several_segments_are_ordered_together(values: list[Any]) -> None:
    """The values in one segment, split over two in every way, and in segments of other forms."""
    ranks = {"bool": 0, "number": 1, "time": 2, "string": 3, "bytes": 4}

    def key(value: Any) -> tuple[int, Any]:
        known = [found for item in (value if isinstance(value, list) else [value]) if (found := oracle.key(item))]
        return min(((ranks[kind], content) for kind, content in known), default=(9, 0))

    wanted = [key(value) for value in values]
    payloads = [{} if value is None else {"a": value} for value in values]
    for cut in range(len(values) + 1):
        parts = [part for part in (payloads[:cut], payloads[cut:]) if part]
        for forms in itertools.product(*(all_forms(part) for part in parts)):
            orders = [source.order("a", np.arange(source.rows, dtype=np.int32)) for _, source in forms]
            codes = np.concatenate(joined(orders)).tolist()
            for (first, one), (second, other) in itertools.combinations(zip(codes, wanted, strict=True), 2):
                assert (first < second, first == second) == (one < other, one == other), ([n for n, _ in forms], cut)


def test_sealing_a_choice_of_rows_renumbers_them() -> None:
    payloads = [{"a": row % 7, "s": f"{row % 5}", "odd": True} if row % 2 else {"n": None} for row in range(100)]
    keep = np.arange(1, 100, 4, dtype=np.int32)
    source = sealed(payloads, keep)
    chosen = [payloads[row] for row in keep]
    assert source.rows == len(keep)
    assert "n" not in source.paths()
    for value in range(7):
        assert rows(source, Equal("a", (value,))) == [row for row, p in enumerate(chosen) if p["a"] == value]
        assert rows(source, Equal("s", (str(value),))) == [row for row, p in enumerate(chosen) if p["s"] == str(value)]
    assert rows(source, Present("odd")) == list(range(len(keep)))


def test_dense_columns_do_not_list_their_rows() -> None:
    arrays = growing([{"a": 1, "o": {}}, {"a": 2, "o": {}}]).sealed(None)
    assert set(arrays["a"]) == {"int_values", "int_rows"}
    assert arrays["o"]["present_rows"].tolist() == [0, 1]
    merged = merge_sealed([(SealedColumns(2, frozen(arrays)), np.array([1, 0], np.int32))], 2)
    assert set(merged["a"]) == {"int_values", "int_rows"}
    assert merged["a"]["int_rows"].tolist() == [1, 0]


def test_merging_drops_strings_that_nobody_has() -> None:
    part = sealed([{"s": "kept"}, {"s": "dropped"}, {"s": "also kept"}])
    merged = merge_sealed([(part, np.array([1, -1, 0], np.int32))], 2)
    assert merged["s"]["string_bytes"].tobytes() == b"also keptkept"
    assert merge_sealed([(part, np.array([-1, -1, -1], np.int32))], 0) == {}


def test_merged_postings_are_sorted_by_value_and_row() -> None:
    parts = [sealed([{"a": 1, "s": "x"}, {"a": 0, "s": "y"}] * 20) for _ in range(2)]
    order = np.random.default_rng(3).permutation(80).astype(np.int32)
    merged = merge_sealed([(parts[0], order[:40]), (parts[1], order[40:])], 80)
    pairs = list(zip(merged["a"]["int_values"].tolist(), merged["a"]["int_rows"].tolist(), strict=True))
    assert pairs == sorted(pairs)
    starts, posted = merged["s"]["string_starts"].tolist(), merged["s"]["string_rows"].tolist()
    assert starts == [0, 40, 80]
    assert posted == sorted(posted[:40]) + sorted(posted[40:])


def test_a_row_is_found_once_however_many_elements_match() -> None:
    sparse: list[dict[str, Any]] = [{"a": [1, 2, 3, 1.0, "x", "y"]} if row % 200 == 0 else {} for row in range(1000)]
    for _, source in all_forms(sparse):
        assert rows(source, Within("a", 1, 3)) == [0, 200, 400, 600, 800]
        assert rows(source, Within("a", "x", None)) == [0, 200, 400, 600, 800]
        assert rows(source, Equal("a", (1, 2, "y"))) == [0, 200, 400, 600, 800]


def test_as_many_elements_as_rows_are_not_one_for_every_row() -> None:
    for _, source in all_forms([{"a": [1, 2]}, {"a": []}, {"a": 3}]):
        assert rows(source, Equal("a", (2,))) == [0]
        assert rows(source, Within("a", 2, None)) == [0, 2]


def test_searched_strings_and_sizes_of_lists() -> None:
    payloads = [{"a": "word 7"}, {"a": ["x", "7", None]}, {"a": 7}, {"a": []}, {"a": [[7], {}]}, {"b": "7"}]
    for _, source in all_forms(payloads):
        assert rows(source, Search("a", "7", regex=False)) == [0, 1]
        assert rows(source, Search("a", "d.7$", regex=True)) == [0]
        assert rows(source, Search("a", "d.7", regex=False)) == rows(source, Search("none", "7", regex=True)) == []
        assert rows(source, Sized("a")) == [1, 3, 4]
        assert rows(source, Sized("a", 2, 3)) == [1, 4]
        assert rows(source, Sized("a", 0, 0)) == [3]
        assert rows(source, Sized("a", 3, 1)) == rows(source, Sized("a", 2**31 - 1)) == rows(source, Sized("b")) == []
        assert source.value_counts("a") == {("string", w): 1 for w in ("word 7", "x", "7")} | {("number", 7): 1}


def test_a_search_knows_strings_that_came_after_it() -> None:
    columns = GrowingColumns()
    for first in range(0, 300, 100):
        columns.append(first, [{"s": f"{row % 150}"} for row in range(first, first + 100)])
        found = rows(columns.at(first + 100), Search("s", "^[0-9]$", regex=True))
        assert found == [row for row in range(first + 100) if row % 150 < 10]
    for number in range(40):
        assert rows(columns.at(300), Search("s", str(number), regex=False))[0] == number


def test_a_column_of_empty_strings() -> None:
    for _, source in all_forms([{"s": "", "b": b""}, {"s": ""}]):
        assert rows(source, Equal("s", ("",))) == rows(source, Prefix("s", "")) == [0, 1]
        assert rows(source, Equal("b", (b"",))) == [0]


def test_array_names_are_safe_as_file_names() -> None:
    arrays = growing([{"a": value} for value in (1, 1.5, True, "x", b"x", None, [2], dt.date(2020, 1, 1))]).sealed(None)
    assert all(name.isidentifier() and len(name) < 24 for name in arrays["a"])
    assert len(arrays["a"]) == 5 * 2 + 2 * 4 + 1


def test_a_reader_keeps_its_rows_while_others_are_appended() -> None:
    columns = growing([{"a": row, "s": str(row)} for row in range(300)])
    before = columns.at(200)
    assert rows(before, Present("a")) == list(range(200))
    columns.append(300, [{"a": 1, "s": "0", "late": 1} for _ in range(3000)])
    assert rows(before, Equal("a", (1, 250))) == [1]
    assert rows(before, Within("s", "0", "1", high_open=True)) == [0]
    assert "late" not in before.paths()
    assert rows(columns.at(3300), Equal("s", ("0",))) == [0, *range(300, 3300)]
    assert columns.at(3300) is columns.at(3300)


def test_rows_are_appended_in_order() -> None:
    columns = GrowingColumns()
    columns.append(0, [{}])
    with pytest.raises(ValueError, match="row 1 is next, not 5"):
        columns.append(5, [{}])
    assert columns.rows == 1


def test_operands_of_different_kinds_are_not_confused_by_kept_answers() -> None:
    source = growing([{"a": 1}, {"a": True}]).at(2)
    assert rows(source, Equal("a", (1,))) == [0]
    assert rows(source, Equal("a", (True,))) == [1]
    for value in range(100):
        rows(source, Equal("a", (value,)))
    assert rows(source, Equal("a", (True,))) == [1]


def test_readers_beside_a_writer() -> None:
    columns = GrowingColumns()
    failures: list[str] = []
    done = threading.Event()

    def found(source: Any, probe: Any) -> list[int]:
        listed: list[int] = bitset.rows_of(source.select(probe), source.rows).tolist()
        return listed

    def read() -> None:
        while not done.is_set():
            known = columns.rows
            source = columns.at(known)
            if found(source, Equal("a", (3,))) != list(range(3, known, 7)):
                failures.append(f"number at {known}")
            if found(source, Within("s", "5", None)) != [row for row in range(known) if row % 11 in (5, 6, 7, 8, 9)]:
                failures.append(f"string at {known}")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for first in range(0, 6000, 60):
        columns.append(first, [{"a": row % 7, "s": str(row % 11)} for row in range(first, first + 60)])
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []


DAMAGE: list[tuple[str, Any]] = [
    ("int_rows", np.array([0, 99], np.int32)),
    ("int_rows", np.array([0, -1], np.int32)),
    ("int_rows", np.array([0], np.int32)),
    ("int_rows", np.array([0, 1], np.int64)),
    ("int_values", np.array([1.0, 2.0])),
    ("string_offsets", np.array([0, 5, 2], np.int64)),
    ("string_offsets", np.array([0, 1, 99], np.int64)),
    ("string_offsets", np.array([], np.int64)),
    ("string_starts", np.array([0, 2, 1], np.int64)),
    ("string_starts", np.array([0, 1], np.int64)),
    ("string_starts", np.array([0, 1, 9], np.int64)),
    ("string_rows", np.array([0, 7], np.int32)),
    ("null_rows", np.array([-5], np.int32)),
    ("size_rows", np.array([-5], np.int32)),
    ("size_values", np.array([1, 1], np.int32)),
]


@pytest.mark.parametrize(("name", "damaged"), DAMAGE)
def test_damaged_arrays_are_refused_at_first_use(name: str, damaged: Any) -> None:
    arrays = growing([{"a": 1}, {"a": "x"}, {"a": 2}, {"a": "y"}, {"a": None}, {"a": []}]).sealed(None)
    SealedColumns(6, arrays).count(Equal("a", (1,)))
    arrays["a"][name] = damaged
    source = SealedColumns(6, arrays)
    with pytest.raises(ValueError, match="column 'a': "):
        source.count(Equal("a", (1,)))


def test_a_missing_array_is_refused() -> None:
    arrays = growing([{"a": 1}]).sealed(None)
    del arrays["a"]["int_values"]
    with pytest.raises(ValueError, match="int_values is missing"):
        SealedColumns(1, arrays).select(Present("a"))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"\0" * n for n in range(20)] + [b"a" * 40, b"a" * 41])))
def test_string_tables_sort_as_bytes_do(strings: list[bytes]) -> None:
    data, offsets = string_table.join(strings)
    order, rank, distinct = string_table.sort(data, offsets)
    unique = sorted(set(strings))
    assert distinct == len(unique)
    assert [strings[position] for position in order] == sorted(strings)
    assert rank.tolist() == [unique.index(text) for text in strings]
    table = StringTable(*string_table.join(unique))
    assert table.fits()
    for text in [*strings, b"", b"a", b"\xff"]:
        assert table.lower(text) == sum(other < text for other in unique)
        assert table.upper(text) == sum(other <= text for other in unique)
        first, last = table.prefixed(text)
        assert unique[first:last] == [other for other in unique if other.startswith(text)]
    asked = [*unique[::2], *(text + b"\0" for text in unique), b"", *(bytes([i]) for i in range(40))]
    assert sorted(table.find_all(list(dict.fromkeys(asked)))) == [i for i, text in enumerate(unique) if text in asked]


def test_large_tables_are_searched_through_their_sample() -> None:
    strings = sorted(f"{number * 37 % 5003}".encode() for number in range(5003))
    table = StringTable(*string_table.join(strings))
    assert [table.find(text) for text in strings] == list(range(5003))
    assert sorted(table.find_all([*strings[::3], b"none", b"", b"zz"])) == list(range(0, 5003, 3))
    prefixed = sorted(b"the same " + text for text in strings)
    shared = StringTable(*string_table.join(prefixed))
    assert sorted(shared.find_all([b"the same", b"other", *prefixed[::5]])) == list(range(0, 5003, 5))
    assert table.find(b"5003") == table.find(b"") == table.find(b"z") == -1


@pytest.mark.parametrize("spans", [1, 2, 16, 17, 40])
def test_spans_give_their_rows_however_many_they_are(spans: int) -> None:
    posted = np.arange(1000, dtype=np.int32)[::-1].copy()
    lows = np.arange(spans, dtype=np.int64) * 20
    found = Spans(posted, lows, lows + np.arange(spans) % 3)
    expected = [posted[low + i] for low, size in zip(lows, np.arange(spans) % 3, strict=True) for i in range(size)]
    gathered = found.gather()
    assert np.concatenate([*gathered, np.zeros(0, np.int32)]).tolist() == expected
    assert found.count() == len(expected)


def test_answers_are_forgotten_and_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(string_table, "_SEARCHES", 2)
    monkeypatch.setattr(sealed_columns, "RECENT", 2)
    source = sealed([{"a": f"word {number}"} for number in range(300)])
    probes = [Search("a", f"d {digit}", regex=False) for digit in range(4)]
    for _ in range(2):
        for digit, probe in enumerate(probes):
            assert rows(source, probe) == [n for n in range(300) if str(n).startswith(str(digit))]


def test_a_probe_of_very_many_values_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_columns, "RECENT_SPANS", 3)
    source = sealed([{"a": number} for number in range(300)])
    for values in ((1, 5), (1, 5, 9, 17, 250)):
        assert rows(source, Equal("a", values)) == list(values)


def test_texts_are_compared_from_below_and_from_above() -> None:
    words = sorted(f"w{number:02}" for number in range(30))
    for _, source in all_forms([{"a": word} for word in words]):
        assert rows(source, Within("a", None, "w07", high_open=True)) == list(range(7))
        assert rows(source, Within("a", None, "w07")) == list(range(8))
        assert rows(source, Within("a", "w07", None, low_open=True)) == list(range(8, 30))
        assert rows(source, Within("a", "w07", "w09")) == [7, 8, 9]
