"""Generations of snapshots in one home, a directory or a URI: naming, listing, and which of them may go.

A generation is called <time of UTC>-<lsn>. A rule keeps the newest of each of the last hours and days that have any;
what a kept one builds on stays. The name, or the manifest, goes before the files: a half-removed snapshot is none.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecdb.engine import registry
from vecdb.engine.snapshot import SnapshotInfo, check_place, info_of, snapshot
from vecdb.engine.state import Engine
from vecdb.errors import Corrupted, InvalidInput, NotFound, UnsupportedFormat
from vecdb.files import names
from vecdb.files.disk import Disk, is_directory, remove_tree
from vecdb.files.workplace import abandoned
from vecdb.options import check_int
from vecdb.storage.snapshot_source import Source, open_source
from vecdb.storage.snapshot_store import Store, is_uri, open_store

HOURLY, DAILY = 24, 30
_NAME = re.compile(r"(\d{8}T\d{6}Z)-\d{1,20}(?:\.vecdb)?")
_TIME = "%Y%m%dT%H%M%SZ"
GRACE = dt.timedelta(hours=24)  # after which objects without a manifest are those of an upload that ended early


def generation_name(time: dt.datetime, lsn: int, *, one_file: bool = False) -> str:
    """The name of a generation taken at this time (UTC): names sort by time."""
    return f"{time.astimezone(dt.UTC).strftime(_TIME)}-{lsn}{names.ONE_FILE if one_file else ''}"


def generation_time(name: str) -> dt.datetime | None:
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    try:
        return dt.datetime.strptime(found[1], _TIME).replace(tzinfo=dt.UTC)
    except ValueError:
        return None


def take_generation(engine: Engine, home: Any, one_file: Any) -> SnapshotInfo:
    """The next generation in a home, which builds on the newest one of this database there."""
    engine.check_open()
    if not isinstance(one_file, bool):
        raise InvalidInput(f"one_file must be True or False, not {one_file!r}")
    disk, text = engine.seams.disk, check_place("home", home)
    if one_file and is_uri(text):
        raise InvalidInput("one_file is for directories; a store holds an object for each file")
    path = Path(os.path.abspath(Path(text).expanduser()))
    if not is_uri(text) and disk.kind(path) is None and is_directory(disk, path.parent):
        disk.make_directory(path)
        disk.sync_directory(path.parent)
    place = _home(text)
    form = "store" if isinstance(place, Store) else "file" if one_file else "directory"
    alike = [s for s in _sources(place, strict=False) if s.manifest.form == form]
    base = next((s.place for s in reversed(alike) if s.manifest.uuid == engine.superblock.uuid), None)
    time = dt.datetime.fromtimestamp(engine.seams.clock.time_ns() // 1_000_000_000, dt.UTC)
    name = generation_name(time, engine.published_lsn, one_file=one_file)
    return snapshot(engine, f"{place.uri}/{name}" if isinstance(place, Store) else place / name, base)


def choose_kept(
    times: Sequence[dt.datetime], hourly: int = HOURLY, daily: int = DAILY, lsns: Sequence[int] = ()
) -> set[int]:
    """Which of these snapshots stay, by position: the newest of each of the last `hourly` hours and `daily` days (UTC)
    that have one. The newest of all stays always.

    lsns   the last batch in each; it tells which is newer where the clock was set back in between
    """
    newest_first = sorted(range(len(times)), key=lambda i: (lsns[i] if lsns else 0, times[i], i), reverse=True)
    kept = set(newest_first[:1])
    for count, form in ((hourly, "%Y%m%d%H"), (daily, "%Y%m%d")):
        seen: set[str] = set()
        for i in newest_first:
            period = times[i].astimezone(dt.UTC).strftime(form)
            if period not in seen and len(seen) < count:
                seen.add(period)
                kept.add(i)
    return kept


def list_snapshots(home: str | os.PathLike[str]) -> list[SnapshotInfo]:
    """The snapshots in a directory or below a URI, oldest first; by their manifests, without reading their files.

    What has no manifest that can be read is not listed; `vecdb.verify_snapshot` tells why. NotFound without a home.
    """
    return [info_of(source.place, source.manifest, source.digest) for source in _sources(_home(home), strict=False)]


@dataclass(frozen=True, slots=True)
class PruneReport:
    """Names of snapshots. `needed` ones would go by the rule, but kept ones build on them. `bytes` were given back,
    as far as nothing else links to them."""

    kept: tuple[str, ...]
    removed: tuple[str, ...]
    needed: tuple[str, ...]
    bytes: int


def prune_snapshots(home: str | os.PathLike[str], *, hourly: int = HOURLY, daily: int = DAILY) -> PruneReport:
    """Removes generations that the rule does not keep, and what attempts that were killed left behind.

    hourly, daily   the newest snapshot of each of so many hours and days (UTC) that have one is kept, of each database

    Only snapshots named as `vecdb snapshot create` names them are touched. Nothing that a kept snapshot builds on goes.
    Corrupted, and nothing is removed, while there is a snapshot whose manifest cannot be read: it may build on others.
    """
    hourly, daily = check_int("hourly", hourly, 0, 1_000_000), check_int("daily", daily, 0, 1_000_000)
    if hourly + daily == 0:
        raise InvalidInput("hourly and daily cannot both be 0: something must be kept")
    place = _home(home)
    everything = _sources(place, strict=True)
    outdated = _outdated(everything, hourly, daily)
    kept = [source for source in everything if source.name not in outdated]
    others = [source for source in everything if source.name in outdated]
    if isinstance(place, Store):
        return _report(kept, others, [], _prune_store(place, kept, others))
    named = _needed_by(kept, everything)
    needed = [source for source in others if source.name in named]
    removed = [source for source in others if source.name not in named]
    disk = registry.DEFAULT_SEAMS.disk
    _sweep(disk, place)
    by_lsn = sorted(removed, key=lambda source: source.manifest.lsn)
    size = sum(_remove(disk, Path(source.place)) for source in reversed(by_lsn))  # before what they build on
    return _report(kept, removed, needed, size)


def _outdated(everything: Iterable[Source], hourly: int, daily: int) -> set[str]:
    """Names of the generations that the rule does not keep, of each database by itself."""
    owned: dict[bytes, list[Source]] = {}
    for source in everything:
        if generation_time(source.name) is not None:
            owned.setdefault(source.manifest.uuid, []).append(source)
    outdated = set[str]()
    for own in owned.values():
        lsns = [source.manifest.lsn for source in own]
        chosen = choose_kept([source.manifest.time for source in own], hourly, daily, lsns)
        outdated |= {source.name for i, source in enumerate(own) if i not in chosen}
    return outdated


def _needed_by(kept: Iterable[Source], everything: Iterable[Source]) -> set[str]:
    """Names of what the kept ones build on, and of what those build on, which stay and must be whole too."""
    bases = {source.name: source.manifest.bases for source in everything}
    named, ahead = set[str](), [base for source in kept for base in source.manifest.bases]
    while ahead:
        name = ahead.pop()
        if name not in named:
            named.add(name)
            ahead += bases.get(name, ())
    return named


def _report(kept: list[Source], removed: list[Source], needed: list[Source], size: int) -> PruneReport:
    parts = [tuple(source.name for source in part) for part in (kept, removed, needed)]
    return PruneReport(parts[0], parts[1], parts[2], size)


# ---- homes ----------------------------------------------------------------------------------------------------------
def _home(home: Any) -> Path | Store:
    text = check_place("home", home)
    if is_uri(text):
        return open_store(text)
    path = Path(os.path.abspath(Path(text).expanduser()))
    if not is_directory(registry.DEFAULT_SEAMS.disk, path):
        raise NotFound(f"there is no directory {path}")
    return path


def _sources(home: Path | Store, *, strict: bool) -> list[Source]:
    """Every snapshot, oldest first. One whose manifest cannot be read is an error if `strict`, else left out."""
    found = []
    for place in _places(home):
        try:
            found.append(open_source(registry.DEFAULT_SEAMS, place))
        except NotFound:
            continue
        except (Corrupted, UnsupportedFormat):
            if strict:
                raise
    return sorted(found, key=lambda source: (source.manifest.time_ns, source.name))


def _places(home: Path | Store) -> list[str]:
    if isinstance(home, Store):
        return [f"{home.uri}/{name}" for name in home.children()]
    disk = registry.DEFAULT_SEAMS.disk
    entries = [home / name for name in disk.list(home) if not name.endswith(names.TEMPORARY)]
    kinds = [(path, disk.kind(path)) for path in entries]
    return [str(p) for p, kind in kinds if kind == "directory" or (kind == "file" and p.suffix == names.ONE_FILE)]


# ---- removing -------------------------------------------------------------------------------------------------------
def _remove(disk: Disk, path: Path) -> int:
    """Removes a snapshot, whose name goes first. Returns the bytes that had no other name."""
    files = [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
    size = sum(found.stat().st_size for found in files if found.stat().st_nlink == 1)
    if path.is_dir():
        path = _renamed(disk, path)
    disk.reach("prune:renamed")
    remove_tree(disk, path)
    disk.sync_directory(path.parent)
    return size


def _renamed(disk: Disk, path: Path) -> Path:
    """A directory under the name of a workplace, which is no snapshot, and is swept if this ends here."""
    gone = path.with_name(path.name + names.TEMPORARY)
    disk.rename(path, gone)
    disk.sync_directory(path.parent)
    return gone


def _sweep(disk: Disk, home: Path) -> None:
    """Workplaces of killed attempts, and what is left of removals that were."""
    for name in disk.list(home):
        if generation_time(name.removesuffix(names.TEMPORARY)) is not None and abandoned(disk, home / name):
            remove_tree(disk, home / name)


def _prune_store(home: Store, kept: Iterable[Source], removed: Iterable[Source]) -> int:
    """Manifests of the removed go; then every object that no manifest names any more."""
    for source in removed:
        home.remove(f"{source.name}/{names.MANIFEST}")
    named = {path for source in kept for path in _named_objects(source)}
    now = dt.datetime.fromtimestamp(registry.DEFAULT_SEAMS.clock.time_ns() // 1_000_000_000, dt.UTC)
    without = {source.name for source in removed}
    sizes, size = home.sizes(), 0
    for path, count in sizes.items():
        name, _, inside = path.partition("/")
        time = generation_time(name)
        if time is None or path in named or not names.is_snapshot_file(inside):
            continue
        if name in without or (time < now - GRACE and f"{name}/{names.MANIFEST}" not in sizes):
            home.remove(path)
            size += count
    return size


def _named_objects(source: Source) -> set[str]:
    """The objects that a snapshot needs, its own and those of its bases, by their paths in the home."""
    owners = [source.name, *source.manifest.bases]
    return {f"{owners[entry.at]}/{entry.path}" for entry in source.manifest.entries}
