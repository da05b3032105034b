"""Filters through the whole collection: operators, filtered writes, order, and payload paths without a column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.filter import oracle

A = [1.0, 0.0, 0.0]
PAYLOADS: list[dict[str, Any]] = [
    {"n": 3, "tags": ["x", "y"], "text": "a long text about art", "author": {"name": "Ada"}},
    {"n": 1, "tags": [], "text": "another one", "author": {"name": "Bea"}},
    {"n": 2, "tags": ["y", None, "z"], "text": "party"},
    {"n": None, "text": "PARTY"},
    {},
]
WHERES: list[dict[str, Any]] = [
    {"tags": {"$any": ["x", "z"]}},
    {"tags": {"$all": ["y", "z"]}},
    {"tags": {"$contains": "y"}},
    {"text": {"$contains": "art"}},
    {"text": {"$not_contains": "art"}},
    {"tags": {"$size": 3}},
    {"tags": {"$size": {"$gte": 0}}},
    {"tags": {"$is_empty": True}},
    {"text": {"$regex": "(?i)^p.*y$"}},
    {"n": {"$gte": 2}, "tags": {"$contains": "y"}},
]


@pytest.fixture(params=["growing", "sealed", "merged", "reopened"])
def filled(request: pytest.FixtureRequest, path: Path) -> Any:
    """Records 0 to 4 with the payloads above, and one that was deleted."""
    db = vecdb.open(path, maintenance="manual")
    docs = db.create_collection("docs", dim=3, metric="l2")
    docs.upsert([0, 1], [A] * 2, PAYLOADS[:2])
    if request.param in ("merged", "reopened"):
        db.optimize()
    docs.upsert([2, 3, 4, 5], [A] * 4, [*PAYLOADS[2:], PAYLOADS[0]])
    docs.delete([5])
    if request.param != "growing":
        db.optimize()
    if request.param == "reopened":
        db.close()
        db = vecdb.open(path, maintenance="manual")
        docs = db.get_collection("docs")
    yield docs
    db.close()


@pytest.mark.parametrize("where", WHERES, ids=str)
def test_operators_through_every_call(filled: vecdb.Collection, where: dict[str, Any]) -> None:
    expected = [i for i, payload in enumerate(PAYLOADS) if oracle.matches(payload, where)]
    assert expected
    assert filled.get(where=where).ids.tolist() == expected
    assert filled.count(where) == len(expected)
    assert sorted(filled.search(A, 10, where).ids.tolist()) == expected
    assert [record.id for record in filled.scroll(where, batch_size=2)] == expected
    assert filled.delete(where=where) == len(expected)
    assert filled.count(where) == 0
    assert filled.count() == len(PAYLOADS) - len(expected)


def test_scroll_in_order_of_a_field(filled: vecdb.Collection) -> None:
    assert [r.id for r in filled.scroll(order_by="n", batch_size=2)] == [1, 2, 0, 3, 4]
    assert [r.id for r in filled.scroll(order_by="-n")] == [0, 2, 1, 3, 4]
    assert [r.id for r in filled.scroll({"n": {"$gt": 1}}, order_by="author.name")] == [0, 2]
    assert filled.get([2, 0, 2, 4, 1], order_by="n").ids.tolist() == [1, 2, 2, 0, 4]
    assert filled.get([2, 0, 2, 4, 1], order_by="-author.name", limit=3).ids.tolist() == [1, 0, 2]
    assert [filled.get(order_by="n", limit=k, offset=1).ids.tolist() for k in (1, 3, 9)] == [
        [2],
        [2, 0, 3],
        [2, 0, 3, 4],
    ]
    for wrong in ("", "-", 5):
        with pytest.raises(vecdb.InvalidInput, match="order_by must be a payload path"):
            filled.scroll(order_by=wrong)  # type: ignore[arg-type]


def test_update_where(filled: vecdb.Collection) -> None:
    assert filled.update(where={"tags": "y"}, payloads={"seen": True, "text": vecdb.REMOVE}) == 2
    assert filled.get(where={"seen": True}).ids.tolist() == [0, 2]
    assert filled.get([0])[0].payload == {**{k: v for k, v in PAYLOADS[0].items() if k != "text"}, "seen": True}
    assert filled.search(A, 9, {"seen": True}).ids.tolist() == [0, 2]
    assert filled.update(where={"n": 99}, payloads={"seen": 1}) == 0
    assert filled.update(where={}, payloads={"all": 1}) == 5 == filled.count({"all": 1})


def test_what_update_where_refuses(filled: vecdb.Collection) -> None:
    for arguments in ({}, {"ids": [1], "where": {"n": 1}}):
        with pytest.raises(vecdb.InvalidInput, match="update needs the ids of the records to change, or where"):
            filled.update(**arguments, payloads={"a": 1})  # type: ignore[call-overload]
    for payloads, vectors in (([{"a": 1}], None), (None, None), ({"a": 1}, [A])):
        with pytest.raises(vecdb.InvalidInput, match="one dict as payloads, the patch of every match, and no vectors"):
            filled.update(where={"n": 1}, payloads=payloads, vectors=vectors)  # type: ignore[call-overload]
    with pytest.raises(vecdb.InvalidInput, match=r"payloads\[0\]: payload\['a'\] has the type"):
        filled.update(where={"n": 1}, payloads={"a": object()})
    assert filled.get([1])[0].payload == PAYLOADS[1]


def test_update_where_of_more_records_than_the_growing_segment_has_room_for(
    db: vecdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.storage.growing.ROWS_MAX", 64)
    docs = db.create_collection("docs", dim=3)
    docs.upsert(range(200), payloads=[{"n": i} for i in range(200)])
    docs.upsert(range(200, 250), payloads=[{"n": i} for i in range(50)])
    assert docs.update(where={"n": {"$lt": 150}}, payloads={"done": True}) == 200
    assert docs.count({"done": True}) == 200


# ---- columns= -------------------------------------------------------------------------------------------------------
CHOICES: list[tuple[Any, set[str]]] = [
    ("all", {"n", "tags", "text", "author", "author.name"}),
    (["n", "author.name"], {"n", "author.name"}),
    (("author",), {"author", "author.name"}),
    (vecdb.Columns(only=["n"]), {"n"}),
    (vecdb.Columns(only=[]), set()),
    (vecdb.Columns(exclude=["text", "author"]), {"n", "tags"}),
]


@pytest.mark.parametrize(
    ("columns", "known"), CHOICES, ids=lambda value: str(sorted(value) if type(value) is set else value)
)
def test_columns_lists_or_excludes_paths(path: Path, columns: Any, known: set[str]) -> None:
    with vecdb.open(path, maintenance="manual") as db:
        docs = db.create_collection("docs", dim=3, columns=columns)
        docs.upsert(range(2), [A] * 2, PAYLOADS[:2])
        assert set(docs.fields()) == known
        db.optimize()
        docs.upsert(range(2, 5), [A] * 3, PAYLOADS[2:])
    for _ in range(2):  # from the log, and merged
        with vecdb.open(path, maintenance="manual") as db:
            docs = db.get_or_create_collection("docs", columns=columns)
            assert set(docs.fields()) == known
            assert docs.get().payloads == PAYLOADS
            db.optimize()


def test_a_path_without_a_column_is_refused_everywhere(db: vecdb.Database) -> None:
    docs = db.create_collection("docs", dim=3, columns=vecdb.Columns(exclude=["text"]))
    docs.upsert(range(5), [A] * 5, PAYLOADS)
    assert docs.info()["columns"] == {"only": None, "exclude": ("text",)}
    where = {"$or": [{"n": 1}, {"text": {"$regex": "art"}}]}
    message = (
        r"where: 'text' is stored without a column, because 'docs' was created with Columns\(.*look at the payloads"
    )
    for call in (
        lambda: docs.search(A, 5, where),
        lambda: docs.explain(A, 5, where),
        lambda: docs.get(where=where),
        lambda: docs.scroll(where),
        lambda: docs.count(where),
        lambda: docs.delete(where=where),
        lambda: docs.update(where=where, payloads={"a": 1}),
        lambda: docs.distinct("n", where=where),
        lambda: docs.count(vecdb.F("text.below") == 1),
    ):
        with pytest.raises(vecdb.FilterError, match=message.replace("'text'", "'text(.below)?'")):
            call()
    for name, other in (
        ("order_by", lambda: docs.get(order_by="-text")),
        ("order_by", lambda: docs.scroll(order_by="text")),
        ("distinct", lambda: docs.distinct("text")),
        ("min_max", lambda: docs.min_max("text")),
    ):
        with pytest.raises(vecdb.InvalidInput, match=f"{name}: 'text' is stored without a column"):
            other()
    assert docs.get([0])[0].payload == PAYLOADS[0]
    assert docs.count({"texts": 1}) == 0


def test_bad_columns(db: vecdb.Database) -> None:
    for columns, message in (
        ("n", 'must be "all", a list of payload paths'),
        (5, 'must be "all", a list of payload paths'),
        ({"n": 1}, 'must be "all", a list of payload paths'),
        ([1], "holds 1; a payload path is a string"),
        ([""], "holds ''; a payload path is a string"),
    ):
        with pytest.raises(vecdb.InvalidInput, match=message):
            db.create_collection("docs", dim=3, columns=columns)
    with pytest.raises(vecdb.InvalidInput, match="either only= or exclude="):
        vecdb.Columns(only=["a"], exclude=["b"])
    with pytest.raises(vecdb.InvalidInput, match="must be a list of payload paths"):
        vecdb.Columns(exclude="text")  # type: ignore[arg-type]
    db.create_collection("docs", dim=3, columns=["b", "a", "b"])
    assert db.get_or_create_collection("docs", columns=["a", "b"]).info()["columns"]["only"] == ("a", "b")
    with pytest.raises(vecdb.InvalidInput, match="exists with other columns"):
        db.get_or_create_collection("docs", columns="all")
