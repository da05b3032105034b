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


def named(ids: list[Id] | tuple[Id, ...], total: int | None = None) -> str:
    """The first few ids, for a message."""
    total = len(ids) if total is None else total
    shown = ", ".join(map(repr, ids[:SHOWN_IDS]))
    return f"{shown}, ... ({total:,} in all)" if total > min(len(ids), SHOWN_IDS) else shown
