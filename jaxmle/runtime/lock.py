"""A lock on a folder, held by one run at a time and given back by the system when its process
dies.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
from pathlib import Path

LOCK = ".lock"
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
HELD_BY_ANOTHER = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
LOCKED_BYTE = 2**20  # the byte that Windows locks: beyond the text, which others may then read


class FolderLock:
    """The lock of one folder: a file in it that is locked, not one that is merely there, so
    that a killed run leaves the folder free.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self.handle: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            ValueError: another run holds it.
            OSError: the file cannot be made.
        """
        while self.handle is None:
            handle = self._opened()
            if handle is None:
                return
            try:
                if not _locked(handle):
                    raise ValueError(_holder(handle))
                if _is_file_at(handle, self.path):
                    self.handle = handle
            finally:  # its last holder may just have removed it, and another file has that name now
                if self.handle is None:
                    os.close(handle)
        _write(self.handle, f"{os.getpid()} {platform.node()}\n")

    def release(self) -> None:
        """Give the lock back, and remove its file."""
        if self.handle is None:
            return
        if sys.platform == "win32":  # which removes no open file
            os.close(self.handle)
        try:
            os.unlink(self.path)
        except OSError:
            pass  # of a folder that was removed or became read-only
        if sys.platform != "win32":
            os.close(self.handle)
        self.handle = None

    def _opened(self) -> int | None:
        """The file of the lock; None for a read-only folder, in which no run can change
        anything.
        """
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno in READ_ONLY:
                return None
            raise


def _locked(handle: int) -> bool:
    """Whether this handle has the lock now. A file system without locks gives it to everyone."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # a system without locks of files
        return True
    except OSError as error:
        if error.errno not in HELD_BY_ANOTHER + NO_LOCKS:
            raise
        return error.errno in NO_LOCKS
    return True


def _is_file_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:  # its last holder has removed it
        return False


def _write(handle: int | None, text: str) -> None:
    """Who holds the lock, for the message to others: a full disk is no reason to stop."""
    if handle is None:
        return
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        os.ftruncate(handle, 0)
        os.write(handle, text.encode())
    except OSError:  # a full disk: the lock holds, its holder is unnamed
        pass


def _holder(handle: int) -> str:
    """Who holds the lock, in words."""
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        pid, _, node = os.read(handle, 300).decode("utf-8", "replace").strip().partition(" ")
    except OSError:  # the system lets no other process read a locked file
        pid = ""
        node = ""
    if pid == str(os.getpid()) and node == platform.node():
        return "another call in this process"
    return f"process {pid} on {node}" if pid.isdigit() else "another process"
