"""Whatever is wrong with a piece or a manifest is one error that names it and says what to do."""

import errno
import io
import json
import shutil
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxmle.runtime import checkpoint
from jaxmle.runtime.checkpoint import MANIFEST, Checkpoint

from . import killed
from .killed import PIECE, RUNS, assert_same

REMEDY = "Delete this file: its fits will be repeated."

# ---------------------------------------------------------------- damaged pieces


def piece_of(folder, kind):
    return folder / f"{PIECE[kind]}.npz"


def rewritten(change):
    """Write arrays that ``change`` made of those of a piece, with a digest that is right: what only the run itself can tell."""

    def damage(folder, kind):
        with np.load(piece_of(folder, kind)) as stored:
            arrays = [stored[f"a{i}"] for i in range(len(stored.files) - 1)]
        told = json.loads((folder / MANIFEST).read_text())
        writer = Checkpoint(folder)
        writer.identity, writer.schedule = told["identity"], told["schedule"]
        writer.save(PIECE[kind], change(arrays))

    return damage


def bare(change):
    """Write arrays as a program of the user's would, which knows of no digest."""

    def damage(folder, kind):
        with np.load(piece_of(folder, kind)) as stored:
            held = dict(stored)
        np.savez(piece_of(folder, kind), **change(held))

    return damage


def with_bytes(change):
    def damage(folder, kind):
        path = piece_of(folder, kind)
        path.write_bytes(change(path.read_bytes()))

    return damage


def flipped(content):
    """One bit of the last number of the longest array: a date in the archive is no damage."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.compress_size)
    names = content[entry.header_offset + 26 : entry.header_offset + 30]
    name, extra = int.from_bytes(names[:2], "little"), int.from_bytes(names[2:], "little")
    at = entry.header_offset + 30 + name + extra + entry.compress_size - 4
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def as_folder(folder, kind):
    piece_of(folder, kind).unlink()
    piece_of(folder, kind).mkdir()


def renamed(folder, kind):
    other = "first-000000.npz" if kind == "batch" else "latest.npz"
    shutil.copy(folder / other, folder / "spare.npz")
    if kind == "batch":
        shutil.copy(folder / "first-000000.npz", piece_of(folder, kind))
    else:
        change = with_bytes(lambda content: content.replace(b'"latest"', b'"lately"'))
        change(folder, kind)


def of_another_run(folder, kind):
    other = Checkpoint(folder)
    other.identity = {"procedure": "another"}
    other.save(PIECE[kind], [np.arange(3.0)])


def looped(folder, kind):
    piece_of(folder, kind).unlink()
    piece_of(folder, kind).symlink_to(piece_of(folder, kind))


def compressed(folder, kind):
    np.savez_compressed(piece_of(folder, kind), a0=np.zeros(10**6))


def vast(folder, kind):
    """A header that says 10¹² numbers."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(piece_of(folder, kind), "w") as archive:
        archive.writestr("a0.npy", buffer.getvalue() + bytes(8))


def twice(folder, kind):
    with np.load(piece_of(folder, kind)) as stored, io.BytesIO() as buffer:
        np.lib.format.write_array(buffer, stored["a0"])
        content = buffer.getvalue()
    with pytest.warns(UserWarning), zipfile.ZipFile(piece_of(folder, kind), "a") as archive:
        archive.writestr("a0.npy", content)


def replaced(place, change):
    return lambda arrays: [*arrays[:place], change(arrays[place]), *arrays[place + 1 :]]


PIECES = {
    "cut short": with_bytes(lambda content: content[: len(content) // 2]),
    "cut by one byte": with_bytes(lambda content: content[:-1]),
    "empty": with_bytes(lambda content: b""),
    "zeros": with_bytes(lambda content: bytes(len(content))),
    "text": with_bytes(lambda content: b"finished"),
    "one bit": with_bytes(flipped),
    "a pickle": with_bytes(lambda content: b"\x80\x04K\x01."),
    "twice": twice,
    "compressed": compressed,
    "vast": vast,
    "a folder": as_folder,
    "a link to itself": looped,
    "another name": renamed,
    "another run": of_another_run,
    "no digest": bare(lambda held: {k: v for k, v in held.items() if k != "about"}),
    "the first member only": bare(lambda held: held | {"a1": held["a1"][:1]}),
    "a scalar": bare(lambda held: held | {"a1": np.float64(1.0)}),
    "single precision": bare(lambda held: held | {"a1": held["a1"].astype(np.float32)}),
    "other numbers": bare(lambda held: held | {"a1": held["a1"] + 1}),
    "an array less": bare(lambda held: {k: v for k, v in held.items() if k != "a2"}),
    "an array more": bare(lambda held: held | {"b": np.zeros(3)}),
    "objects": bare(lambda held: held | {"a1": np.array([object()])}),
    "a digest of its own": bare(lambda held: held | {"about": np.frombuffer(b'{"piece": 1}', np.uint8)}),
    "signed, the first only": rewritten(replaced(1, lambda leaf: leaf[:1])),
    "signed, a scalar": rewritten(replaced(1, lambda leaf: np.zeros((), leaf.dtype))),
    "signed, single precision": rewritten(replaced(1, lambda leaf: leaf.astype(np.float32))),
    "signed, an array less": rewritten(lambda arrays: arrays[:-1]),
    "signed, an array more": rewritten(lambda arrays: [*arrays, np.zeros(2)]),
    "signed, nothing": rewritten(lambda arrays: []),
    "signed, other members": rewritten(replaced(0, lambda leaf: leaf[::-1].astype(np.float32))),
}  # fmt: skip


@pytest.mark.parametrize("damage", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("kind", RUNS)
def test_a_damaged_piece_is_one_error_that_names_folder_piece_and_remedy(kind, damage, copied):
    """Arrays of one member, scalars and float32 were broadcast into all members."""
    folder = copied[0] / kind
    damage(folder, kind)
    with pytest.raises(ValueError, match="holds a file that cannot be used") as error:
        RUNS[kind](folder)
    message = str(error.value)
    assert type(error.value) is ValueError
    assert str(folder) in message and f"{PIECE[kind]}.npz" in message and REMEDY in message
    path = piece_of(folder, kind)
    path.rmdir() if path.is_dir() else path.unlink()
    assert_same(RUNS[kind](folder), copied[1][kind])


def test_seats_outside_of_a_piece_are_refused(copied):
    """They say which members are still open, and would gather those of another chunk."""
    folder = copied[0] / "batch"
    with np.load(folder / "first-000000.npz") as stored:
        place = next(
            i for i in range(2, len(stored.files)) if stored[f"a{i}"].dtype == np.int64 and i > 20
        )
    for change in (
        lambda s: s + 100,
        lambda s: s[::-1],
        lambda s: s.astype(float),
        lambda s: s[:1],
    ):
        rewritten(replaced(place, change))(folder, "batch")
        with pytest.raises(ValueError, match=r"first-000001\.npz.*Delete this file"):
            killed.batch(folder)


def test_a_piece_that_may_not_be_read_is_said(copied, monkeypatch):
    read = Path.read_bytes

    def denied(self):
        if self.suffix == ".npz":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", denied)
    for kind, run in RUNS.items():
        with pytest.raises(ValueError, match=rf"\.npz: Permission denied. {REMEDY}"):
            run(copied[0] / kind)


# ---------------------------------------------------------------- damaged manifests


def _set(*keys_value):
    *keys, last, value = keys_value

    def change(content):
        told = json.loads(content)
        target = told
        for key in keys:
            target = target[key]
        target[last] = value
        return json.dumps(told).encode()

    return change


def _without(key):
    def change(content):
        told = json.loads(content)
        del told[key]
        return json.dumps(told).encode()

    return change


MANIFESTS = {
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "cut short": lambda content: content[:-20],
    "no text": lambda content: b"\xff\xfe\x00",
    "a list": lambda content: b"[1]",
    "a number": lambda content: b"3",
    "null": lambda content: b"null",
    "too deep": lambda content: b"[" * 100_000,
    "no format": _without("format"),
    "no identity": _without("identity"),
    "no schedule": _without("schedule"),
    "no digest": _without("digest"),
    "a field more": _set("more", 1),
    "a format in words": _set("format", "3"),
    "an identity in words": _set("identity", "mine"),
    "a schedule that is null": _set("schedule", None),
    "another schedule": _set("schedule", {"buckets": [], "rounds": 1}),
    "another dtype": _set("identity", "dtype", "float16"),
    "one character": lambda content: content.replace(b'"float64"', b'"float65"'),
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
@pytest.mark.parametrize("kind", RUNS)
def test_a_damaged_manifest_is_one_error_that_names_folder_and_remedy(kind, change, copied):
    folder = copied[0] / kind
    path = folder / MANIFEST
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"its {MANIFEST} is damaged") as error:
        RUNS[kind](folder)
    assert type(error.value) is ValueError
    assert str(folder) in str(error.value) and "Delete this folder" in str(error.value)


def test_a_manifest_that_is_a_folder_is_damaged(copied):
    for kind, run in RUNS.items():
        (copied[0] / kind / MANIFEST).unlink()
        (copied[0] / kind / MANIFEST).mkdir()
        with pytest.raises(ValueError, match=f"its {MANIFEST} is damaged"):
            run(copied[0] / kind)


def test_a_schedule_of_another_cut_is_damage(copied):
    """With a digest that is right, as only another program would write it."""
    folder = copied[0] / "batch"
    told = json.loads((folder / MANIFEST).read_text())
    for buckets in ([], [{}], 3, [{"block_size": 0}], told["schedule"]["buckets"] * 2):
        told["schedule"]["buckets"] = buckets
        told["digest"] = checkpoint._manifest_digest(told["identity"], told["schedule"])
        (folder / MANIFEST).write_text(json.dumps(told))
        with pytest.raises(ValueError, match=f"its {MANIFEST} is damaged"):
            killed.batch(folder)


@pytest.mark.parametrize("version", [1, 2, 4])
def test_a_folder_of_another_format_says_so(version, copied):
    for kind, run in RUNS.items():
        path = copied[0] / kind / MANIFEST
        path.write_bytes(_set("format", version)(path.read_bytes()))
        with pytest.raises(ValueError, match=f"format {version}; this version reads format 3"):
            run(copied[0] / kind)


def test_a_run_on_more_devices_than_its_blocks_says_so(copied):
    with pytest.raises(
        ValueError, match="started on a different number of devices, and 2 cannot"
    ) as error:
        killed.batch(copied[0] / "batch", devices=jax.devices()[:1] * 2)
    assert str(copied[0] / "batch") in str(error.value)


def test_a_run_of_the_other_procedure_is_refused(copied):
    for mine, theirs in (("batch", "stochastic"), ("stochastic", "batch")):
        with pytest.raises(
            ValueError, match="belongs to another run, which differs in its procedure"
        ):
            RUNS[mine](copied[0] / theirs)
