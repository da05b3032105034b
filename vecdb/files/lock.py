"""One writer: an exclusive flock on a permanent file. Its text only serves the message of the loser."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
from pathlib import Path

from vecdb.errors import Locked
from vecdb.files.disk import FILE_MODE, NOT_REGULAR, failing


class QuietLock:
    """Keeps writers away while a database is read that must not change. Writes nothing; held until `release`."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        if not path.exists():
            return  # nobody ever wrote here, or the file was lost: there is nothing to wait for
        with failing("lock", path):
            self.descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                os.close(self.descriptor)
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                raise Locked(f"{path.parent} is open for writing; close it there first") from error

    def release(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def making(path: Path) -> str:
    """What is made in the directory of a lock file, as its last holder wrote; "" for a database, and where unclear."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        made = json.loads(os.read(descriptor, 4096)).get("making")
    except (OSError, ValueError, AttributeError):
        return ""
    finally:
        os.close(descriptor)
    return made if isinstance(made, str) else ""


class WriterLock:
    """Held from construction to `release`. The file is never removed; a dead process holds nothing.

    making   the name of what is made in this directory, for whoever finds it unfinished; "" for a database
    """

    def __init__(self, path: Path, making: str = "") -> None:
        self.path, self.making = path, making
        with failing("lock", path):
            flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            self.descriptor = os.open(path, flags, FILE_MODE)
            try:
                self._take()
            except BaseException:
                os.close(self.descriptor)
                raise

    def _take(self) -> None:
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            raise OSError(errno.EINVAL, NOT_REGULAR)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise Locked(self._message()) from error
        if not os.path.samestat(os.fstat(self.descriptor), os.stat(self.path, follow_symlinks=False)):
            raise Locked(f"{self.path} was replaced while it was being locked; open the database again")
        os.fchmod(self.descriptor, FILE_MODE)
        holder = {"pid": os.getpid(), "host": socket.gethostname()}
        text = json.dumps({**holder, "making": self.making} if self.making else holder).encode()
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text, 0)
        if self.making:
            os.fsync(self.descriptor)

    def _message(self) -> str:
        text = os.pread(self.descriptor, 4096, 0)
        try:
            holder = json.loads(text)
            who = f"process {holder['pid']} on {holder['host']}"
        except (ValueError, KeyError, TypeError):
            who = "another process"
        return (
            f'{self.path.parent} is open for writing in {who}. Close it there, or open it here with mode="r", '
            "which any number of processes may do."
        )

    def release(self) -> None:
        if self.descriptor >= 0:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            os.close(self.descriptor)
            self.descriptor = -1

    def abandon(self) -> None:
        """In a forked child: drop the inherited descriptor without unlocking the parent's lock."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
