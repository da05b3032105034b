"""What the commands print is plain where nobody looks, and says sizes and times as people do."""

from __future__ import annotations

from pathlib import Path

import pytest

from vecdb.cli import terminal
from vecdb.cli.sizes import PARTS, part_of, print_sizes, sizes


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (1.0, "1.0 s"), (0.25, "250 ms"), (0.00042, "0.42 ms")]
)
def test_duration(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (3e12, "3.0 TB")]
)
def test_size(count: float, text: str) -> None:
    assert terminal.size(count) == text


def test_clip() -> None:
    assert terminal.clip("abc", 5) == "abc  "
    assert terminal.clip("abcdef", 4) == "abc…"


def test_table_aligns(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table([("part", "size"), ("vectors", "12 MB"), ("log", "1 kB")])
    assert capsys.readouterr().out.splitlines() == ["  part       size", "  vectors   12 MB", "  log        1 kB"]


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.Bar("writing") as bar:
        for done in range(0, 101, 5):
            bar(done, 100)
    terminal.heading("Search")
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [f"  writing {share}%" for share in (25, 50, 75, 100)]
    assert printed.out == "\nSearch\n"
    assert "\x1b" not in printed.out + printed.err


def test_nothing_to_do_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.Bar("writing") as bar:
        bar(0, 0)
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("VECDB", "other"),
        ("catalog-1/data.mdb", "payloads and ids"),
        ("wal/00000000000000000001-00112233445566778899aabbccddeeff.wal", "log"),
        ("segments/1-2/sequences.npy", "order of the rows"),
        ("segments/1-2/field-1/vectors.npy", "vectors"),
        ("segments/1-2/field-1/index-3/links.npy", "indexes"),
        ("segments/1-2/columns/4/values.npy", "columns for filters"),
    ],
)
def test_files_belong_to_parts(file: str, part: str) -> None:
    assert part_of(Path(file)) == part
    assert part in PARTS


def test_sizes_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("VECDB", 64), ("wal/1.wal", 100_000), ("segments/1-1/field-1/vectors.npy", 300_000)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\1" * count)
    found = sizes(tmp_path)
    assert 300_000 <= found["vectors"] < 310_000
    assert 100_000 <= found["log"] < 110_000
    print_sizes(tmp_path)
    assert "together" in capsys.readouterr().out
