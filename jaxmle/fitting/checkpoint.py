"""Checkpoints of a batch: a folder with one JSON manifest and one npz for each finished piece of work, every file written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np

FORMAT = 2
MANIFEST = "manifest.json"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def digest(*pieces: bytes | str) -> str:
    """A fingerprint of texts and bytes, in which addresses of objects do not count."""
    told = hashlib.sha256()
    for piece in pieces:
        told.update(
            re.sub(r"0x[0-9a-f]+", "0x", piece).encode() if isinstance(piece, str) else piece
        )
        told.update(b"\0")
    return told.hexdigest()


def model_digest(function: Any, *args: Any) -> str:
    """A fingerprint of what a function computes: its jaxpr and the constants it closes over."""
    traced = jax.make_jaxpr(function)(*args)
    return digest(
        str(traced.jaxpr), *(np.asarray(constant).tobytes() for constant in traced.consts)
    )


class Checkpoint:
    """Finished pieces of one run, by number. Without a folder it keeps nothing."""

    def __init__(self, folder: Any, identity: dict[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        self.identity = identity
        self.schedule: dict[str, Any] = {}
        if self.folder is None:
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(
                f"checkpoint={str(folder)!r} is a file; a checkpoint is a folder of its own"
            )
        manifest = self.folder / MANIFEST
        if manifest.exists():
            self._reopen(json.loads(manifest.read_text(encoding="utf-8")))
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(
                f"checkpoint={str(folder)!r} holds other files and no {MANIFEST}; give a new or an empty folder"
            )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write()

    def _reopen(self, told: dict[str, Any]) -> None:
        if told.get("format") != FORMAT:
            raise ValueError(
                f"the checkpoint {self.folder} was written in format {told.get('format')}; this version reads format {FORMAT}. Give another folder."
            )
        for what, mine in self.identity.items():
            if told["identity"].get(what) != mine:
                raise ValueError(
                    f"the checkpoint {self.folder} belongs to another run: its {what} is not the same. Give another folder, or delete this one."
                )
        self.schedule = told["schedule"]

    def _write(self) -> None:
        if self.folder is not None:
            text = json.dumps(
                {"format": FORMAT, "identity": self.identity, "schedule": self.schedule}, indent=1
            )
            write_atomically(self.folder / MANIFEST, text.encode())

    def remember(self, **facts: Any) -> None:
        """Facts of the schedule that a resumed run must repeat."""
        self.schedule |= facts
        self._write()

    def holds(self, piece: str) -> bool:
        """Whether a piece is finished."""
        return self.folder is not None and (self.folder / f"{piece}.npz").exists()

    def load(self, piece: str) -> list[np.ndarray] | None:
        """The arrays of a finished piece, or None."""
        if self.folder is None or not self.holds(piece):
            return None
        with np.load(self.folder / f"{piece}.npz", allow_pickle=False) as stored:
            return [stored[f"a{i}"] for i in range(len(stored.files))]

    def save(self, piece: str, arrays: list[np.ndarray]) -> None:
        """Keep the arrays of a finished piece."""
        if self.folder is not None:
            buffer = io.BytesIO()
            named: dict[str, Any] = {f"a{i}": array for i, array in enumerate(arrays)}
            np.savez(buffer, **named)
            write_atomically(self.folder / f"{piece}.npz", buffer.getvalue())
