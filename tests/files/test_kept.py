"""Facts in the cache directory: kept whole, and not believed when anything about them is wrong."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from vecdb.files.kept import BYTES_MAX, place_of, processor, read_facts, write_facts

FACTS = {"when": "now", "lines": {"exact": [10.0, 70.25]}}


def test_what_is_kept_is_read_and_replaced(tmp_path: Path) -> None:
    assert read_facts(tmp_path, "a") is None
    write_facts(tmp_path, "a", FACTS)
    write_facts(tmp_path, "b", 3)
    assert (read_facts(tmp_path, "a"), read_facts(tmp_path, "b")) == (FACTS, 3)
    write_facts(tmp_path, "a", {})
    assert read_facts(tmp_path, "a") == {}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json"]
    assert place_of(tmp_path, "a").stat().st_mode & 0o777 == 0o600


def whole() -> dict[str, object]:
    return {"format": 1, "about": "a", "digest": "", "facts": FACTS}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b"\xff\xfe", b"3", json.dumps(whole()).encode(), b"[" * 50_000,
        b"x" * (BYTES_MAX + 1),
    ],
    ids=["empty", "open", "null", "list", "no text", "number", "no digest", "deep", "large"],
)  # fmt: skip
def test_anything_else_is_not_believed(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    place_of(tmp_path, "a").write_bytes(content)
    with caplog.at_level(logging.WARNING, "vecdb"):
        assert read_facts(tmp_path, "a") is None
    assert "measured again" in caplog.text
    write_facts(tmp_path, "a", FACTS)
    assert read_facts(tmp_path, "a") == FACTS


def test_every_changed_value_is_noticed(tmp_path: Path) -> None:
    write_facts(tmp_path, "a", FACTS)
    path = place_of(tmp_path, "a")
    told = json.loads(path.read_bytes())
    for name, value in (("format", 2), ("about", "b"), ("facts", {**FACTS, "when": "then"}), ("digest", "0" * 32)):
        path.write_text(json.dumps({**told, name: value}))
        assert read_facts(tmp_path, "a") is None
    path.write_text(json.dumps(told))
    assert read_facts(tmp_path, "a") == FACTS


def test_what_was_kept_about_something_else_is_not_taken(tmp_path: Path) -> None:
    write_facts(tmp_path, "a", FACTS)
    place_of(tmp_path, "a").rename(place_of(tmp_path, "b"))
    assert read_facts(tmp_path, "b") is None


def test_links_are_not_followed_and_directories_not_read(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_facts(elsewhere, "a", FACTS)
    place_of(tmp_path, "a").symlink_to(place_of(elsewhere, "a"))
    assert read_facts(tmp_path, "a") is None
    place_of(tmp_path, "b").mkdir()
    assert read_facts(tmp_path, "b") is None
    os.mkfifo(place_of(tmp_path, "c"))
    assert read_facts(tmp_path, "c") is None


def test_a_directory_that_is_gone_is_told_and_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "vecdb"):
        write_facts(tmp_path / "gone", "a", FACTS)
    assert "cannot be written" in caplog.text


def test_the_processor_has_a_name() -> None:
    assert processor().strip()
