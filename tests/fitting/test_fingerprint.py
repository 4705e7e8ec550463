"""A fingerprint reads every byte of the data, and is that of the member's own rows however they are stored."""

import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import jaxmle as jm
from jaxmle.batch.members.sources import Ragged, Stacked, concatenated
from jaxmle.runtime.fingerprint import digest_of_arrays, fingerprint, fingerprints

RNG = np.random.default_rng(31)


def words(data):
    return tuple(fingerprint(data).tolist())


def test_every_odd_row_of_four_million_changed_had_the_same_fingerprint():
    y = np.zeros(2**22)
    other = y.copy()
    other[1::2] = 1.0
    assert words(y) != words(other)
    assert words({"x": np.zeros(3), "y": y}) != words({"x": np.zeros(3), "y": other})


@pytest.mark.parametrize("size", [1, 7, 2**15 + 3, 2**22 + 5])
def test_no_byte_goes_unread(size):
    y = RNG.integers(0, 256, size, dtype=np.uint8)
    whole = words(y)
    for place in {0, size // 3, size // 2, size - 1, *RNG.integers(0, size, 20).tolist()}:
        y[place] ^= 1
        assert words(y) != whole
        y[place] ^= 1
    assert words(y) == whole


@pytest.mark.parametrize("kind", [float, np.float32, int, np.int8, bool])
def test_sixty_shuffles_of_a_response_of_zeros_and_ones_never_collide(kind):
    """The words of 0.0 and 1.0 differ in eleven high bits only, which a sum of multiples does not scatter."""
    y = (RNG.random(80) < 0.5).astype(kind)
    seen = {words(y)}
    orders = {y.tobytes()}
    for _ in range(60):
        RNG.shuffle(y)
        seen.add(words(y))
        orders.add(y.tobytes())
    assert len(seen) == len(orders)


def test_every_swap_of_two_rows_is_seen():
    y = np.arange(40.0) % 2
    ids = set()
    for i, j in itertools.combinations(range(40), 2):
        other = y.copy()
        other[[i, j]] = y[[j, i]]
        if y[i] != y[j]:
            ids.add(words(other))
    assert len(ids) == 20 * 20


def test_shape_type_place_and_number_of_rows_count_where_bytes_are_equal():
    z = np.zeros(24)
    different = [
        z,
        z[:23],
        z.reshape(12, 2),
        z.reshape(2, 12),
        z.reshape(4, 2, 3),
        z.reshape(4, 3, 2),
        z.astype(np.float32),
        z.astype(np.int64),
        z.astype(np.uint64),
        np.zeros(48, np.float32),
        (z, z[:0]),
        (z[:12], z[12:]),
        (z[:0], z),
        np.zeros((0, 3)),
        np.zeros((5, 0)),
        np.zeros((6, 0)),
        z[0],
    ]
    assert len({words(data) for data in different}) == len(different)
    assert words((z, z + 1)) != words((z + 1, z))


def test_storage_does_not_count():
    x = RNG.normal(size=(30, 4))
    wide = np.zeros((60, 8))
    wide[::2, ::2] = x
    backwards = np.ascontiguousarray(x[::-1])[::-1]
    for stored in (np.asfortranarray(x), wide[::2, ::2], backwards, x.astype(">f8"), x.copy()):
        assert words(stored) == words(x)
    with jax.enable_x64(True):
        assert words(jnp.asarray(x)) == words(x)
    counts = np.arange(30)
    assert words(counts.astype(">i8")) == words(counts)
    readonly = x.copy()
    readonly.flags.writeable = False
    assert words(readonly) == words(x)
    assert_array_equal(fingerprint({}), [0, 0])


def test_a_member_has_its_fingerprint_alone_stacked_shared_ragged_and_padded():
    sets = [
        {"x": RNG.normal(size=(rows, 3)), "y": RNG.integers(0, 9, rows)}
        for rows in (5, 1, 9, 4, 9, 12)
    ]
    alone = np.stack([fingerprint(data) for data in sets])
    assert len(np.unique(alone, axis=0)) == len(sets)
    rows, part, starts, sizes = concatenated(sets, 1, [])
    ragged = Ragged((rows[0], (), ()), part, starts, sizes, (None,), 2)
    for length in (12, 16, 40):
        for index in (np.arange(6), np.array([4, 0, 2])):
            assert_array_equal(ragged.take(index, (length,)).data_id, alone[index])
    shared = {"x": sets[2]["x"], "y": np.stack([sets[2]["y"], sets[4]["y"]])}
    stacked = Stacked((shared, (), ()), (True, False), 2, 2)
    expected = [fingerprint({"x": sets[2]["x"], "y": y}) for y in shared["y"]]
    assert_array_equal(stacked.take(np.arange(2), (9,)).data_id, expected)
    assert_array_equal(
        fingerprints([np.broadcast_to(sets[2]["x"], (4, 9, 3))], None),
        np.tile(fingerprint(sets[2]["x"]), (4, 1)),
    )
    assert fingerprints([np.zeros((0, 4, 2)), np.zeros((0, 4))], None).shape == (0, 2)


def test_a_fit_and_a_batch_of_the_same_data_agree_and_other_data_are_refused():
    def mean(params, y):
        return -0.5 * (y - params["m"]) ** 2

    sets = [RNG.integers(0, 2, rows).astype(float) for rows in (6, 9)]
    fits = jm.fit_batch(mean, {"m": 0.0}, sets, progress=False)
    for member, y in enumerate(sets):
        alone = jm.fit(mean, {"m": 0.0}, y)
        assert_array_equal(fits.data_id[member], alone.data_id)
        moved = np.where(np.arange(len(y)) == np.argmax(y), 0.0, y)
        with pytest.raises(ValueError, match="not those of the fit"):
            jm.tic(mean, alone, moved)


def test_fingerprints_are_the_same_in_another_process():
    """A number of our own, so that a change of the scheme is noticed: records on disk carry it."""
    source = (
        "import numpy as np; from jaxmle.runtime.fingerprint import fingerprint, digest_of_arrays\n"
        "print(fingerprint({'x': np.arange(12.0).reshape(4, 3), 'y': np.arange(4)}).tolist(), digest_of_arrays([np.arange(3.0)]))"
    )
    told = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    ).stdout.strip()
    here = fingerprint({"x": np.arange(12.0).reshape(4, 3), "y": np.arange(4)}).tolist()
    assert told == f"{here} {digest_of_arrays([np.arange(3.0)])}"
    assert here == HERE


HERE = [868939840, 3670373162]


def test_a_digest_of_arrays_knows_where_one_ends_and_the_next_begins():
    a = np.arange(6.0)
    different = [
        [a],
        [a[:3], a[3:]],
        [a[:2], a[2:]],
        [a.reshape(2, 3)],
        [a.reshape(3, 2)],
        [a.astype(np.float32)],
        [a.astype(int)],
        [a, a[:0]],
        [a[:0], a],
        [],
        [np.zeros((0, 2))],
        [np.zeros((2, 0))],
        [np.float64(3.0)],
        [np.array([3.0])],
    ]
    assert len({digest_of_arrays(arrays) for arrays in different}) == len(different)
    assert digest_of_arrays([a.reshape(2, 3).T]) == digest_of_arrays([a.reshape(2, 3).T.copy()])
