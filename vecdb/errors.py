"""What can go wrong, as a tree.

    VecdbError
      InvalidInput (ValueError)      an argument cannot be used; nothing was written
        FilterError                  a filter cannot be read; names the path of the bad key
      NotFound (KeyError)            no such collection, field or record
      AlreadyExists                  the name or id is taken
      Locked                         another process writes this database
      ReadOnly                       the handle was opened with mode="r"
      Closed                         the handle was closed, or inherited through fork
      StorageFailed (OSError)        the disk refused; what was acknowledged is kept
      Corrupted                      bytes on disk are not what was written
      UnsupportedFormat              written by another generation of vecdb
      Poisoned                       a sync failed: reads go on, writes need a reopen

Every message names the cause and the remedy, and none suggests deleting data.
"""

from __future__ import annotations

from pathlib import Path


class VecdbError(Exception):
    """The root of all errors that vecdb raises on purpose."""


class InvalidInput(VecdbError, ValueError):
    """An argument cannot be used. Nothing was written."""


class FilterError(InvalidInput):
    """A filter cannot be read. The message names the path of the bad key."""


class NotFound(VecdbError, KeyError):
    """No collection, field or record has this name."""

    def __str__(self) -> str:
        # KeyError would show the repr of the message.
        return str(self.args[0]) if self.args else ""


class AlreadyExists(VecdbError):
    """The name or id is taken."""


class Locked(VecdbError):
    """Another process has the database open for writing."""


class ReadOnly(VecdbError):
    """The handle was opened with mode="r"."""


class Closed(VecdbError):
    """The handle was closed, or belongs to the process that forked this one."""


class StorageFailed(VecdbError, OSError):
    """The operating system refused to read or write. Acknowledged data is kept."""


REMEDY_OF_DAMAGE = (
    "Keep the directory as it is and restore a snapshot; `vecdb repair` saves what can still be read into a new one."
)


class Corrupted(VecdbError):
    """Bytes on disk are not the bytes that were written."""

    def __init__(self, path: Path | str, offset: int, reason: str) -> None:
        self.path, self.offset, self.reason = str(path), offset, reason
        super().__init__(f"{path}, byte {offset}: {reason}. {REMEDY_OF_DAMAGE}")

    def __reduce__(self) -> tuple[type[Corrupted], tuple[str, int, str]]:
        return Corrupted, (self.path, self.offset, self.reason)


class UnsupportedFormat(VecdbError):
    """The files were written by a generation of vecdb that this one cannot read."""

    def __init__(self, found: int | str, oldest: int, newest: int) -> None:
        self.found, self.oldest, self.newest = found, oldest, newest
        which = "an older" if isinstance(found, int) and found < oldest else "a newer"
        super().__init__(
            f"the database has format {found}; this vecdb reads formats {oldest} to {newest}. "
            f"Open it with {which} release: the history in FORMAT.md tells which releases read which format."
        )

    def __reduce__(self) -> tuple[type[UnsupportedFormat], tuple[int | str, int, int]]:
        return UnsupportedFormat, (self.found, self.oldest, self.newest)


class Poisoned(VecdbError):
    """A sync failed, so what is on disk is unknown: this handle still reads, and writes no more."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(
            f"writing stopped because {cause}. Close the database and open it again: "
            "recovery keeps every acknowledged write."
        )

    def __reduce__(self) -> tuple[type[Poisoned], tuple[str]]:
        return Poisoned, (self.cause,)
