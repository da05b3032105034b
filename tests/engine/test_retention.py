"""Which generations stay, and that removing the others harms none of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import vecdb
from tests.engine.stepping import Stepped, stepped
from tests.engine.test_rewind import Minutes
from tests.faults import PassingDisk
from vecdb.engine import registry
from vecdb.engine.retention import choose_kept, generation_name, generation_time

NOON = dt.datetime(2030, 6, 15, 12, tzinfo=dt.UTC)


def hours(*ago: float) -> list[dt.datetime]:
    return [NOON - dt.timedelta(hours=n) for n in ago]


TABLE = [
    # name, hours before noon, hourly, daily, kept (the same hours)
    ("none", [], 24, 30, []),
    ("one", [5000], 24, 30, [5000]),
    ("the newest stays, whatever the rule", [3, 2, 1], 0, 1, [1]),
    ("the newest of an hour", [0.5, 0.6, 0.9, 1.5, 1.6], 24, 0, [0.5, 1.5]),
    ("so many hours, not more", [*range(1, 30)], 24, 0, [*range(1, 25)]),
    ("hours without one do not count", [1, 50, 100, 200], 3, 0, [1, 50, 100]),
    ("the newest of a day", [1, 2, 11, 13, 14, 35, 37], 0, 30, [1, 13, 37]),
    ("so many days, not more", [*range(1, 24 * 40, 24)], 0, 30, [*range(1, 24 * 30, 24)]),
    ("hours and days add up", [1, 2, 3, 13, 14, 37, 61], 2, 3, [1, 2, 13, 37]),
    ("out of order", [3, 1, 2], 2, 0, [1, 2]),
    ("midnight in UTC parts the days", [11.99, 12.01], 0, 2, [11.99, 12.01]),
    ("of two at once one stays", [1, 1], 24, 30, [1]),
    ("the default keeps 24 hours", [*range(1, 12)], 24, 30, [*range(1, 12)]),
    ("a year of hours", [*range(1, 24 * 365)], 24, 30, [*range(1, 25), *range(37, 24 * 30 - 11, 24)]),
]


@pytest.mark.parametrize(("name", "ago", "hourly", "daily", "kept"), TABLE, ids=[row[0] for row in TABLE])
def test_rule(name: str, ago: list[float], hourly: int, daily: int, kept: list[float]) -> None:
    chosen = choose_kept(hours(*ago), hourly, daily)
    assert sorted(ago[i] for i in chosen) == sorted(kept)


def test_days_are_those_of_utc() -> None:
    east = dt.timezone(dt.timedelta(hours=9))
    times = [dt.datetime(2030, 1, 2, 8, 30, tzinfo=east), dt.datetime(2030, 1, 2, 9, 30, tzinfo=east)]
    assert choose_kept(times, 0, 5) == {0, 1}  # 23:30 and 00:30


def test_names_tell_their_time() -> None:
    name = generation_name(NOON, 17)
    assert name == "20300615T120000Z-17"
    assert generation_time(name) == generation_time(f"{name}.vecdb") == NOON
    for other in ("20300615T120000Z", "snap", "20301315T120000Z-1", f"{name}.tmp", f"../{name}"):
        assert generation_time(other) is None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Minutes:
    made = Minutes()
    monkeypatch.setattr(registry, "DEFAULT_SEAMS", replace(registry.DEFAULT_SEAMS, clock=made))
    return made


@pytest.fixture
def days(tmp_path: Path, clock: Minutes) -> Iterator[Stepped]:
    """A database to which a day adds a record, sealed every third day."""
    with stepped(tmp_path / "db") as made:
        yield made


def live(days: Stepped, clock: Minutes, home: str, count: int, **options: bool) -> list[str]:
    taken = []
    for n in range(count):
        clock.now = int((NOON + dt.timedelta(days=n)).timestamp()) * 1_000_000_000
        days.write(n * 10, n * 10 + 10)
        if n % 3 == 0:
            while days.step() is not None:
                pass
        taken.append(Path(days.db.snapshot_generation(home, **options).path).name)
    return taken


@pytest.mark.parametrize("form", ["directory", "file", "store"])
def test_kept_generations_are_whole_after_pruning(days: Stepped, clock: Minutes, tmp_path: Path, form: str) -> None:
    if form == "store":
        pytest.importorskip("fsspec")
    home = f"file://{tmp_path}/home" if form == "store" else str(tmp_path / "home")
    taken = live(days, clock, home, 7, **({"one_file": True} if form == "file" else {}))
    assert [Path(info.path).name for info in vecdb.list_snapshots(home)] == taken
    report = vecdb.prune_snapshots(home, hourly=0, daily=2)
    assert report.kept == tuple(taken[-2:])
    assert set(report.removed) | set(report.needed) == set(taken[:-2])
    assert report.bytes > 0
    left = vecdb.list_snapshots(home)
    assert [Path(info.path).name for info in left] == [*report.needed, *report.kept]
    for n, info in enumerate(left):
        assert vecdb.verify_snapshot(info.path) == info
        expected = 10 * (taken.index(Path(info.path).name) + 1)
        assert vecdb.restore(info.path, tmp_path / f"back-{n}").records == expected
    again = vecdb.prune_snapshots(home, hourly=0, daily=2)
    assert (again.removed, again.bytes) == ((), 0)
    following = live(days, clock, home, 1, **({"one_file": True} if form == "file" else {}))
    assert following[0] in [Path(info.path).name for info in vecdb.list_snapshots(home)]


def test_store_gives_back_what_no_kept_one_names(days: Stepped, clock: Minutes, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    home = f"file://{tmp_path}/home"
    live(days, clock, home, 4)
    before = sum(path.stat().st_size for path in (tmp_path / "home").rglob("*") if path.is_file())
    manifests = sum(path.stat().st_size for path in list((tmp_path / "home").rglob("SNAPSHOT"))[:])
    report = vecdb.prune_snapshots(home, hourly=0, daily=1)
    after = sum(path.stat().st_size for path in (tmp_path / "home").rglob("*") if path.is_file())
    assert before - after >= report.bytes > before / 3
    assert before - after <= report.bytes + manifests
    assert len(list((tmp_path / "home").rglob("SNAPSHOT"))) == 1
    info = vecdb.list_snapshots(home)[0]
    held = {path.relative_to(tmp_path / "home").as_posix() for path in (tmp_path / "home").rglob("*") if path.is_file()}
    assert len(held) == info.files + 1  # each needed object once, and the manifest


def test_what_is_no_generation_is_left_alone(days: Stepped, clock: Minutes, tmp_path: Path) -> None:
    home = tmp_path / "home"
    live(days, clock, str(home), 3)
    days.db.snapshot(home / "by-hand")
    (home / "notes.txt").write_text("mine")
    (home / "other").mkdir()
    vecdb.prune_snapshots(home, hourly=0, daily=1)
    assert {"by-hand", "notes.txt", "other"} < {path.name for path in home.iterdir()}
    assert len(vecdb.list_snapshots(home)) == 2


def test_damaged_manifest_stops_pruning(days: Stepped, clock: Minutes, tmp_path: Path) -> None:
    home = tmp_path / "home"
    taken = live(days, clock, str(home), 3)
    (home / taken[1] / "SNAPSHOT").write_bytes(b"rot")
    with pytest.raises(vecdb.Corrupted, match="SNAPSHOT"):
        vecdb.prune_snapshots(home, hourly=0, daily=1)
    assert [path.name for path in sorted(home.iterdir())] == taken
    assert len(vecdb.list_snapshots(home)) == 2


@pytest.mark.parametrize("form", ["directory", "file"])
def test_damaged_generation_does_not_stop_the_next(days: Stepped, clock: Minutes, tmp_path: Path, form: str) -> None:
    home, one_file = tmp_path / "home", form == "file"
    taken = live(days, clock, str(home), 2, one_file=one_file)
    (home / taken[1] if one_file else home / taken[1] / "SNAPSHOT").write_bytes(b"rot")
    clock.now += 60 * 1_000_000_000
    info = days.db.snapshot_generation(home, one_file=one_file)
    assert vecdb.verify_snapshot(info.path) == info
    assert taken[1] not in info.bases


class Killed(BaseException):
    pass


class Dying(PassingDisk):
    """Ends at the n-th removal."""

    left = 0

    def remove(self, path: Path) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1
        self.inner.remove(path)


def prune_and_die(home: Path, removals: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the newest of the last day only, and ends before a removal when so many are done."""
    usual = registry.DEFAULT_SEAMS
    disk = Dying(usual.disk)
    disk.left = removals
    with monkeypatch.context() as patched:
        patched.setattr(registry, "DEFAULT_SEAMS", replace(usual, disk=disk))
        with pytest.raises(Killed):
            vecdb.prune_snapshots(home, hourly=0, daily=1)


@pytest.mark.parametrize("removals", [0, 1, 2, 5, 9])
def test_pruning_cut_off_leaves_no_half_snapshot(
    days: Stepped, clock: Minutes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removals: int
) -> None:
    home = tmp_path / "home"
    taken = live(days, clock, str(home), 3)
    prune_and_die(home, removals, monkeypatch)
    for info in vecdb.list_snapshots(home):
        assert vecdb.verify_snapshot(info.path) == info
    vecdb.prune_snapshots(home, hourly=0, daily=1)
    assert [path.name for path in home.iterdir()] == taken[-1:]


def test_workplaces_of_killed_attempts_are_removed(days: Stepped, clock: Minutes, tmp_path: Path) -> None:
    home = tmp_path / "home"
    taken = live(days, clock, str(home), 2)
    left = home / f"{generation_name(NOON, 5)}.tmp"
    left.mkdir()
    (left / "segments").mkdir()
    (left / "LOCK").touch()
    vecdb.prune_snapshots(home)
    assert sorted(path.name for path in home.iterdir()) == taken


def test_bad_arguments_are_refused(days: Stepped, tmp_path: Path) -> None:
    with pytest.raises(vecdb.NotFound):
        vecdb.list_snapshots(tmp_path / "nowhere")
    (tmp_path / "home").mkdir()
    for rule in ({"hourly": 0, "daily": 0}, {"hourly": -1}, {"daily": 1.5}, {"daily": True}):
        with pytest.raises(vecdb.InvalidInput):
            vecdb.prune_snapshots(tmp_path / "home", **rule)  # type: ignore[arg-type]
    with pytest.raises(vecdb.InvalidInput, match="one_file"):
        days.db.snapshot_generation(tmp_path / "home", one_file="yes")  # type: ignore[arg-type]


DAY = 86_400 * 1_000_000_000


def test_what_a_needed_one_builds_on_stays_too(days: Stepped, clock: Minutes, tmp_path: Path) -> None:
    """The third needs the second, which needs the first: every one that is listed afterwards is whole."""
    home = tmp_path / "home"
    live(days, clock, str(home), 1, one_file=True)
    clock.now += DAY
    days.db.create_collection("more", dim=2).upsert([1], [[1, 2]])
    days.db.optimize()
    days.db.snapshot_generation(home, one_file=True)
    clock.now += DAY
    days.db.delete_collection("docs")
    days.db.optimize()
    days.db.snapshot_generation(home, one_file=True)
    taken = vecdb.list_snapshots(home)
    first, second, third = (Path(info.path).name for info in taken)
    assert [info.bases for info in taken] == [(), (first,), (second,)]
    report = vecdb.prune_snapshots(home, hourly=0, daily=1)
    assert (report.kept, report.needed, report.removed) == ((third,), (first, second), ())
    for info in vecdb.list_snapshots(home):
        assert vecdb.verify_snapshot(info.path) == info


def test_each_database_keeps_its_newest(days: Stepped, clock: Minutes, tmp_path: Path) -> None:
    """Two that share a home do not push out each other's snapshots."""
    home = tmp_path / "home"
    live(days, clock, str(home), 2)
    with vecdb.open(tmp_path / "other", maintenance="manual") as other:
        for _ in range(2):
            clock.now += DAY // 24
            other.snapshot_generation(home)
    taken = [Path(info.path).name for info in vecdb.list_snapshots(home)]
    assert vecdb.prune_snapshots(home, hourly=1, daily=0).removed == (taken[0], taken[2])
    assert [Path(info.path).name for info in vecdb.list_snapshots(home)] == [taken[1], taken[3]]


@pytest.mark.parametrize("removals", range(3))
def test_pruning_cut_off_leaves_no_file_without_its_base(
    days: Stepped, clock: Minutes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removals: int
) -> None:
    home = tmp_path / "home"
    live(days, clock, str(home), 3, one_file=True)
    clock.now += DAY
    days.db.snapshot(home / f"{generation_name(NOON + dt.timedelta(days=3), 3)}.vecdb")  # builds on none
    prune_and_die(home, removals, monkeypatch)
    assert len(vecdb.list_snapshots(home)) == 4 - removals
    for info in vecdb.list_snapshots(home):
        assert vecdb.verify_snapshot(info.path) == info


def test_the_last_batch_tells_which_is_newer_where_the_clock_was_set_back() -> None:
    times = [dt.datetime(2026, 5, 1, 12, minute, tzinfo=dt.UTC) for minute in (10, 40, 20)]
    assert choose_kept(times, 1, 0, [5, 6, 7]) == {2}
    assert choose_kept(times, 1, 0) == {1}
