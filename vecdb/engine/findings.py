"""What verification and repair tell: values that compare, and texts that say what is wrong and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from vecdb.types import Id

RESTORE = "restore the newest snapshot, or write what can be read to a new directory with `vecdb repair`"
REBUILD = "nothing is lost: searches go around it, and the next process that opens the database for writing rebuilds it"
SHOWN_IDS = 10  # ids that a text names; the values hold all


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was written.

    path     the file, or the table of the catalog, relative to the database directory
    what     what is wrong with it
    remedy   what to do
    offset   bytes from the start of the file to the damage, None where that says nothing
    """

    path: str
    what: str
    remedy: str
    offset: int | None = None

    def __str__(self) -> str:
        place = self.path if self.offset is None else f"{self.path}, byte {self.offset:,}"
        return f"{place}: {self.what}\n    {self.remedy}"


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """An index that was looked at. `recall`: the share of the 10 nearest that a sample of searches found; None for
    a look that was not deep, or an index that is damaged."""

    path: str
    kind: str
    rows: int
    recall: float | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found.

    path       the database directory
    deep       whether digests, payloads and searches were looked at as well
    findings   what is wrong, in the order in which it was found; empty for a sound database
    indexes    every index that was looked at
    records    records in the catalog; what the log holds beyond is counted in `batches`
    bytes      of the files whose checksums were compared
    """

    path: str
    deep: bool
    findings: tuple[Finding, ...]
    indexes: tuple[IndexCheck, ...]
    collections: int
    records: int
    files: int
    bytes: int
    batches: int

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        count = len(self.findings)
        verdict = "sound" if self.ok else "1 finding" if count == 1 else f"{count} findings"
        lines = [
            f"{self.path}: {verdict}",
            f"  looked at {self.collections:,} collections, {self.records:,} records, {self.files:,} files "
            f"({self.bytes / 1e6:.1f} MB), {self.batches:,} batches in the log, {len(self.indexes)} indexes"
            f"{'' if self.deep else '; not deep'}",
        ]
        lines += [f"  {finding}" for finding in self.findings]
        lines += [
            f"  {check.path} ({check.kind}, {check.rows:,} rows): recall {check.recall:.3f}"
            for check in self.indexes
            if check.recall is not None
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class RepairedCollection:
    """What repair wrote of one collection.

    records          in the new database
    lost             ids of records of which nothing could be read
    lost_unnamed     how many more are lost whose ids are lost too
    without_payload  ids of records that are there with an empty payload, because theirs is lost
    without_vectors  ids of records that are there without one or more of their vectors
    outdated         ids that batches beyond the damage of the log wrote or deleted: here they are as they were before
    guessed          its description was lost: name, field names, metric (unless cosine) and index options are guesses
    """

    name: str
    records: int
    lost: tuple[Id, ...] = ()
    lost_unnamed: int = 0
    without_payload: tuple[Id, ...] = ()
    without_vectors: tuple[Id, ...] = ()
    outdated: tuple[Id, ...] = ()
    guessed: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing of it was lost."""
        missing = (*self.lost, *self.without_payload, *self.without_vectors, *self.outdated)
        return not (missing or self.lost_unnamed or self.guessed)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.records:,} records"]
        if self.guessed:
            lines.append("    its description was lost: names, metric and index options are guesses; set them right")
        for ids, what in (
            (self.lost, "lost"),
            (self.without_payload, "without their payload"),
            (self.without_vectors, "without one or more of their vectors"),
            (self.outdated, "as they were before writes that are lost with the log"),
        ):
            if ids:
                lines.append(f"    {len(ids):,} {what}: {named(ids)}")
        if self.lost_unnamed:
            lines.append(f"    {self.lost_unnamed:,} more lost, whose ids are lost too")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What repair found, wrote and could not save.

    path, new      the damaged directory, which is as it was, and the new one
    damage         what verification says of the damaged one
    collections    what was written
    unread         the list of collections could not be read to its end: there may have been more
    batches        of the log, taken up to its first damage
    lost_batches   (first, last) number of the batches that are lost with the rest of the log; last is at least that
    sound          whether the new database passes verification
    """

    path: str
    new: str
    damage: tuple[Finding, ...]
    collections: tuple[RepairedCollection, ...]
    unread: bool
    batches: int
    lost_batches: tuple[int, int] | None
    sound: bool

    @property
    def ok(self) -> bool:
        """Whether nothing was lost."""
        whole = self.sound and not self.unread and self.lost_batches is None
        return whole and all(collection.ok for collection in self.collections)

    def __str__(self) -> str:
        lines = [f"{self.path} -> {self.new}: {'nothing was lost' if self.ok else 'not everything could be saved'}"]
        lines += [f"  {collection}" for collection in self.collections]
        if self.unread:
            lines.append("  the list of collections could not be read to its end: there may have been more")
        lines.append(f"  log: {self.batches:,} batches taken")
        if self.lost_batches is not None:
            lines.append("    batches {} to {} are lost, or more".format(*self.lost_batches))
        if not self.sound:
            lines.append("  the new database does not pass verification; keep the damaged one and report this")
        lines += ["  found:", *(f"    {found.path}: {found.what}" for found in self.damage)] if self.damage else []
        return "\n".join(lines)


def named(ids: list[Id] | tuple[Id, ...], total: int | None = None) -> str:
    """The first few ids, for a message."""
    total = len(ids) if total is None else total
    shown = ", ".join(map(repr, ids[:SHOWN_IDS]))
    return f"{shown}, ... ({total:,} in all)" if total > min(len(ids), SHOWN_IDS) else shown
