"""Checkpoints: a folder with one JSON manifest and one npz for each finished piece of work, every
file written as a whole or not at all.

A kill at any moment leaves a folder from which the same call goes on. What is read back is checked
first: that it belongs to this run, that it is the piece of that name, and that no bit of it has
changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxmle._types import Facts, PathLike, Tree, ndarray
from jaxmle.parameters.arguments import check_path
from jaxmle.runtime.fingerprint import digest_of_arrays
from jaxmle.runtime.lock import LOCK, FolderLock
from jaxmle.runtime.npz import Member, is_temporary, members, packed, write_atomically

CHECKPOINT_FORMAT = 3  # 3: pieces carry their name, their run and a digest; 2 had arrays alone
MANIFEST = "manifest.json"
ABOUT = "about"  # the array of a piece that holds the JSON text about it, as bytes

Check = Callable[[list[ndarray]], None]


def digest(*pieces: bytes | str) -> str:
    """A fingerprint of texts and bytes."""
    state = hashlib.sha256()
    for piece in pieces:
        content = piece.encode() if isinstance(piece, str) else piece
        state.update(f"{len(content)} ".encode() + content)
    return state.hexdigest()


class Checkpoint:
    """Finished pieces of one run, by number. Without a folder it keeps nothing.

    It is a context: the folder is locked from ``open`` to the end of the context.
    """

    def __init__(self, folder: PathLike | None) -> None:
        self.folder = _folder(folder)
        self.identity: Facts = {}
        self.schedule: Facts = {}
        self.lock: FolderLock | None = None

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    @property
    def _place(self) -> Path:
        """The folder, of a checkpoint that has one."""
        if self.folder is None:
            raise ValueError("this checkpoint has no folder to read from or write to")
        return self.folder

    # ------------------------------------------------------------ the folder and its manifest

    def open(self, identity: Facts) -> None:
        """Lock the folder, and go on from its manifest or write the first one.

        Args:
            identity: what a run must have in common with the one that wrote the folder, in words
                and values of JSON.

        Raises:
            ValueError: the folder is that of another run, is in use, is damaged, or holds other
                files.
            OSError: it cannot be made or written.
        """
        if self.folder is None:
            return
        self.identity = identity
        self._refuse_other_files()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise self._cannot_write("be opened", error) from error
        self._refuse_other_files()
        self._sweep()
        if (self.folder / MANIFEST).exists():
            self._reopen(self._manifest())
        else:
            self._write_manifest()

    def _refuse_other_files(self) -> None:
        """A folder that is not a checkpoint is left as it is."""
        try:
            if not self._place.exists():
                return
            if not self._place.is_dir():
                raise ValueError(
                    f"checkpoint={str(self.folder)!r} is a file; a checkpoint needs its own folder"
                )
            names = os.listdir(self._place)
        except OSError as error:
            raise self._cannot_write("be opened", error) from error
        other = sorted(name for name in names if name != LOCK and not is_temporary(name))
        if other and MANIFEST not in names:
            raise ValueError(
                f"checkpoint={str(self.folder)!r} holds other files, such as "
                f"{other[0]!r}, and no {MANIFEST}; give a new or empty folder"
            )

    def _take_lock(self) -> None:
        lock = FolderLock(self._place)
        try:
            lock.acquire()
        except ValueError as holder:
            raise ValueError(
                f"the checkpoint {self.folder} is in use by {holder}: wait for that run "
                "to end, or give another folder"
            ) from None
        self.lock = lock

    def _sweep(self) -> None:
        """Remove what killed runs had not finished writing; whoever holds the lock is the only
        one who writes.
        """
        for name in filter(is_temporary, os.listdir(self._place)):
            try:
                (self._place / name).unlink()
            except OSError:
                pass  # of a read-only folder: it does no harm

    def _manifest(self) -> Facts:
        """The manifest of a folder, with the fields that this version wants."""
        try:
            read = json.loads((self._place / MANIFEST).read_bytes())
            version = read["format"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._damaged_manifest() from error
        if type(version) is int and version != CHECKPOINT_FORMAT:
            raise ValueError(
                f"the checkpoint {self.folder} was written in format {version}; this version "
                f"reads format {CHECKPOINT_FORMAT}. Give another folder."
            )
        sound = type(version) is int and set(read) == {"format", "identity", "schedule", "digest"}
        sound = sound and all(type(read[name]) is dict for name in ("identity", "schedule"))
        if not sound or read["digest"] != _manifest_digest(read["identity"], read["schedule"]):
            raise self._damaged_manifest()
        return read

    def _damaged_manifest(self) -> ValueError:
        return ValueError(
            f"the checkpoint {self.folder} cannot be used: its {MANIFEST} is damaged or "
            "unreadable. Delete this folder, or give another: everything will be "
            "refitted."
        )

    def _reopen(self, read: Facts) -> None:
        for what, mine in self.identity.items():
            if read["identity"].get(what) != mine:
                raise ValueError(
                    f"the checkpoint {self.folder} belongs to another run, which differs in its "
                    f"{what}. Give another folder, or delete this one."
                )
        if set(read["identity"]) != set(self.identity):
            raise ValueError(
                f"the checkpoint {self.folder} belongs to a run of another procedure. Give "
                "another folder, or delete this one."
            )
        self.schedule = read["schedule"]

    def _write_manifest(self) -> None:
        if self.folder is None:
            return
        content = {
            "format": CHECKPOINT_FORMAT,
            "identity": self.identity,
            "schedule": self.schedule,
            "digest": _manifest_digest(self.identity, self.schedule),
        }
        self._write(MANIFEST, json.dumps(content, indent=1).encode())

    def _write(self, name: str, content: bytes) -> None:
        try:
            write_atomically(self._place / name, content)
        except OSError as error:
            raise self._cannot_write(f"keep {name}", error) from error

    def _cannot_write(self, what: str, error: OSError) -> OSError:
        """The error of the system, of the same kind, with the folder and what is not lost."""
        reason = error.strerror or str(error)
        return OSError(
            error.errno,
            f"the checkpoint {self.folder} cannot {what}: {reason}. Finished pieces stay "
            "there; correct this, and the same call resumes from them",
        )

    def remember(self, **facts: Tree) -> None:
        """Facts of the schedule that a resumed run must repeat."""
        self.schedule |= facts
        self._write_manifest()

    def unusable_schedule(self) -> ValueError:
        """The error for a schedule that this run cannot have written."""
        return self._damaged_manifest()

    # ------------------------------------------------------------ pieces

    def holds(self, piece: str) -> bool:
        """Whether a piece is finished."""
        return self.folder is not None and os.path.lexists(self.folder / f"{piece}.npz")

    def load(self, piece: str, check: Check) -> list[ndarray] | None:
        """The arrays of a finished piece, or None.

        Args:
            check: raises ``ValueError``, with a clause that says why, where arrays are not those of
                this piece.

        Raises:
            ValueError: the piece is damaged, or is another one, or that of another run.
        """
        if self.folder is None or not self.holds(piece):
            return None
        try:
            arrays = self._read(piece)
            check(arrays)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(
                f"the checkpoint {self.folder} holds a file that cannot be used, "
                f"{piece}.npz: {reason}. Delete this file: its fits will be repeated."
            ) from error
        return arrays

    def _read(self, piece: str) -> list[ndarray]:
        held = members((self._place / f"{piece}.npz").read_bytes())
        about = _about(held.pop(ABOUT, None))
        if about["piece"] != piece:
            raise ValueError(f"it is the piece {about['piece']!r} under another name")
        if about["run"] != self._run():
            raise ValueError("it belongs to another run")
        names = [f"a{i}" for i in range(len(held))]
        if set(held) != set(names) or about["arrays"] != len(held):
            raise ValueError("arrays are missing, or too many")
        arrays = [held[name].array() for name in names]
        if digest_of_arrays(arrays) != about["digest"]:
            raise ValueError("its content has changed since it was written")
        return arrays

    def save(self, piece: str, arrays: list[ndarray]) -> None:
        """Keep the arrays of a finished piece."""
        if self.folder is None:
            return
        plain = [np.asarray(array) for array in arrays]
        about = {
            "piece": piece,
            "run": self._run(),
            "arrays": len(plain),
            "digest": digest_of_arrays(plain),
        }
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        named = {f"a{i}": array for i, array in enumerate(plain)}
        self._write(f"{piece}.npz", packed({ABOUT: text} | named))

    def _run(self) -> str:
        """What all pieces of a run have in common: its identity and how its members were cut up."""
        return digest(json.dumps([self.identity, self.schedule.get("buckets")], sort_keys=True))


def _folder(folder: PathLike | None) -> Path | None:
    what = "a folder of its own, such as 'run1'"
    return None if folder is None else check_path("checkpoint", folder, what)


def _manifest_digest(identity: Facts, schedule: Facts) -> str:
    return digest(json.dumps([identity, schedule], sort_keys=True))


def _about(member: Member | None) -> Facts:
    """What a piece says of itself."""
    if member is None or member.dtype != np.uint8:
        raise ValueError("it has no description")
    try:
        about = json.loads(member.array().tobytes())
    except (ValueError, RecursionError) as error:
        raise ValueError("its description is damaged") from error
    kinds = {"piece": str, "run": str, "arrays": int, "digest": str}
    if type(about) is not dict or {name: type(about[name]) for name in about} != kinds:
        raise ValueError("its description is damaged")
    return about
