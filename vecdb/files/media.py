"""Which file system a path is on. Locks, maps and syncs of network file systems do not keep what a database needs."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from vecdb.errors import StorageFailed

MOUNTS = Path("/proc/self/mountinfo")  # where there is none, nothing is known and nothing refused
NETWORK = re.compile("9p|afs|beegfs|ceph|cifs|davfs|glusterfs|gpfs|lustre|ncpfs|nfs4?|prl_fs|smb3|smbfs|vboxsf")
NETWORK_FUSE = re.compile(
    r"fuse\..*(blobfuse|ceph|curlftpfs|davfs|gcsfuse|gluster|goofys|juicefs|mount-s3|rclone|s3fs|smb|sshfs).*"
)


def file_system_of(path: Path) -> str | None:
    """The type of the file system that holds `path`, or its nearest parent that exists; None where it is not known."""
    try:
        number = os.stat(path).st_dev
        lines = MOUNTS.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return file_system_of(path.parent) if path != path.parent and MOUNTS.exists() else None
    except OSError:
        return None
    device = f"{os.major(number)}:{os.minor(number)}"
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if fields.split()[2:3] == [device] and rest.split():
            return rest.split()[0]
    return None


def is_network(kind: str) -> bool:
    return bool(NETWORK.fullmatch(kind) or NETWORK_FUSE.fullmatch(kind))


def refuse_network(path: Path) -> None:
    """StorageFailed when `path` is on a network file system."""
    kind = file_system_of(path)
    if kind is not None and is_network(kind):
        raise StorageFailed(
            errno.EOPNOTSUPP,
            f"{path} is on a network file system ({kind}), where locks and syncs do not hold; put the database on "
            "a local disk, or, if you know that here they do and one machine alone uses it, pass allow_network_fs=True",
        )
