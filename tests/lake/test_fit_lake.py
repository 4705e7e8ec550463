"""``fit_lake`` in one process: the same fits as of the whole table, one file of fits for each file
of the source, and one clear error for what is wrong.
"""

import errno
import json
import os

import jax
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import jaxmle as jm
from jaxmle.lake import worker
from tests.lake.lakes import RATE, exponential, same_bits, write_lake


def fit(source, out, **options):
    model = options.pop("model", exponential)
    return jm.fit_lake(model, source, by="store", out=out, **(RATE | options))


@pytest.fixture
def lake(tmp_path):
    return write_lake(tmp_path / "lake")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "fits"


def outputs(out):
    return sorted(out.glob("*.parquet"))


def test_the_fits_of_all_files_are_those_of_the_whole_table(lake, out):
    """Statuses are equal; estimates differ by where the climbs of other batches ended, below 1e-8 SE."""
    fits = fit(lake, out)
    got = fits.to_table().sort_by("store")
    whole = jm.fit_table(exponential, ds.dataset(lake).to_table(), by="store", **RATE)
    assert got.column("store").to_pylist() == whole.column("store").to_pylist()
    assert got.column("status").to_pylist() == whole.column("status").to_pylist()
    gap = got.column("est:rate").to_numpy() - whole.column("est:rate").to_numpy()
    assert np.all(np.abs(gap) < 1e-8 * whole.column("se:rate").to_numpy())
    assert fits.statuses == {"CONVERGED": 12} and fits.groups == 12
    assert fits.rows == sum(whole.column("n").to_pylist())
    assert fits.to_frame().collect().height == 12
    assert len(outputs(out)) == fits.fitted == 3


def test_what_is_there_is_skipped_and_what_changed_is_fitted_again(lake, out):
    first = fit(lake, out)
    before = {path.name: path.stat().st_mtime_ns for path in outputs(out)}
    assert (fit(lake, out).skipped, fit(lake, out).fitted) == (3, 0)
    changed = lake / "region=1" / "part-0.parquet"
    table = pq.read_table(changed, partitioning=None)
    pq.write_table(table.set_column(1, "y", pa.array(2.0 * table["y"].to_numpy())), changed)
    second = fit(lake, out)
    assert (second.skipped, second.fitted) == (2, 1)
    after = {path.name: path.stat().st_mtime_ns for path in outputs(out)}
    assert [name for name in before if before[name] != after[name]] == [first.files[1]]
    rates = [fits.to_table().slice(4, 1).to_pylist()[0]["est:rate"] for fits in (first, second)]
    assert rates[0] == rates[1]  # both read the file as it is now


def test_fits_of_another_model_or_formula_are_refused(lake, out):
    fit(lake, out)
    for given, what in (
        ({"model": lambda params, data: exponential(params, data) - 1.0}, "model"),
        ({"max_steps": 7}, "options"),
    ):
        with pytest.raises(ValueError, match=f"differs in its {what}"):
            fit(lake, out, **given)
    assert len(outputs(out)) == 3
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["identity"]) == {"model", "options", "schema"}


class Discounted:
    factor = 1.0

    def __call__(self, params, data):
        return exponential(params, {"y": self.factor * data["y"]})


def test_a_changed_class_attribute_gave_the_fits_of_before(lake, out, monkeypatch):
    fit(lake, out, model=Discounted())
    monkeypatch.setattr(Discounted, "factor", 2.0)
    with pytest.raises(ValueError, match="differs in its model"):
        fit(lake, out, model=Discounted())


def test_parts_make_the_whole(lake, out):
    """An array job: each task takes every second file, and none waits for another."""
    one, two = fit(lake, out, part=(0, 2)), fit(lake, out, part=(1, 2))
    assert (len(one.files), len(two.files)) == (2, 1)
    assert fit(lake, out).skipped == 3


def test_folders_are_columns(lake, out):
    fits = jm.fit_lake(exponential, str(lake), by=["region", "store"], out=out, **RATE)
    assert fits.to_table().column("region").to_pylist() == [0] * 4 + [1] * 4 + [2] * 4


def test_a_file_without_rows_has_no_fits(lake, out):
    place = lake / "region=9"
    place.mkdir()
    empty = pq.read_table(lake / "region=0" / "part-0.parquet", partitioning=None).slice(0, 0)
    pq.write_table(empty, place / "part-0.parquet")
    assert fit(lake, out).to_table().num_rows == 12
    assert fit(lake, out).skipped == 4


def test_a_group_in_two_files_is_refused_by_its_key(lake, out):
    """The symptom: each half is fitted alone, and both look like the fit of the group."""
    again = pq.read_table(lake / "region=2" / "part-0.parquet", partitioning=None)
    pq.write_table(again, lake / "region=0" / "part-1.parquet")
    message = r"4 groups are in two files, such as store=20\d.*PARTITION_BY bucket"
    with pytest.raises(ValueError, match=message):
        fit(lake, out)
    with pytest.raises(ValueError, match=message):  # and again, when all fits are there
        fit(lake, out)


def test_a_group_in_files_of_two_parts_is_seen_by_the_last_part(lake, out):
    again = pq.read_table(lake / "region=0" / "part-0.parquet", partitioning=None)
    pq.write_table(again, lake / "region=0" / "part-1.parquet")
    fit(lake, out, part=(0, 2))
    with pytest.raises(ValueError, match="are in two files"):
        fit(lake, out, part=(1, 2))


# ---------------------------------------------------------------- formulas

FORMULA = {"formula": "y ~ site", "params0": {"beta": np.zeros(2)}}


def squares(params, data):
    return -0.5 * (data["y"] - data["x"] @ params["beta"]) ** 2


def write_sites(folder, sites):
    folder.mkdir()
    for i, words in enumerate(sites):
        words = pa.array(list(words) * 3)
        table = pa.table(
            {"y": np.arange(float(len(words))), "site": words, "store": [i] * len(words)}
        )
        pq.write_table(table, folder / f"{i}.parquet")
    return folder


def test_categories_mean_the_same_in_all_files(tmp_path, out):
    """The symptom: where a file lacks the first level, site[T.c] is against b there and against a elsewhere."""
    lake = write_sites(tmp_path / "sites", ["abc", "bca"])
    start = {"params0": {"beta": np.zeros(3)}}
    got = jm.fit_lake(squares, lake, by="store", out=out, **(FORMULA | start))
    assert got.to_table().column_names[6:8] == ["est:site[b]", "est:site[c]"]
    other = write_sites(tmp_path / "others", ["ab", "ac"])
    with pytest.raises(
        ValueError, match=r"site is coded from a, b in .*0\.parquet and from a, c in"
    ):
        jm.fit_lake(squares, other, by="store", out=tmp_path / "second", **FORMULA)


def test_terms_that_learn_from_all_rows_are_refused(lake, out):
    with pytest.raises(ValueError, match=r"center\(\) depends on all rows"):
        jm.fit_lake(squares, lake, by="store", out=out, formula="y ~ center(y)")


def test_dropped_rows_are_counted_and_said_once(tmp_path, out):
    lake = write_sites(tmp_path / "sites", ["ab", "ba"])
    table = pa.table({"y": [1.0, None, 3.0, 4.0], "site": list("abab"), "store": [7] * 4})
    pq.write_table(table, lake / "7.parquet")
    with pytest.warns(jm.MissingRowsWarning, match="1 of 16 rows"):
        fits = jm.fit_lake(squares, lake, by="store", out=out, **FORMULA)
    assert fits.dropped == 1 and "1 rows dropped" in repr(fits)


# ---------------------------------------------------------------- the cache of programs


def test_a_cache_is_filled_and_configuration_is_as_before(lake, out, tmp_path):
    before = dict(jax.config.values)
    quadratic = lambda params, data: -((data["y"] - params["a"]) ** 2) - 0.125  # noqa: E731
    fit(lake, out, model=quadratic, params0={"a": 0.0}, constraints=None, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir())
    assert dict(jax.config.values) == before


def test_a_cache_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OSError, match="the cache of compiled programs .* cannot be made"),
        jm.compile_cache(tmp_path / "file" / "cache"),
    ):
        pass


# ---------------------------------------------------------------- bad input


def test_a_corrupt_file_is_named_and_finished_files_are_kept(lake, out):
    whole = (lake / "region=1" / "part-0.parquet").read_bytes()
    (lake / "region=1" / "part-0.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"region=1/part-0.parquet: .*1 of 3 files are finished"):
        fit(lake, out)
    (lake / "region=1" / "part-0.parquet").write_bytes(whole)
    assert fit(lake, out).skipped == 1


def test_a_full_disk_keeps_finished_files(lake, out, monkeypatch):
    write_fits = worker.write_fits

    def full(folder, name, table, footer):
        if "region=2" in name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_fits(folder, name, table, footer)

    monkeypatch.setattr(worker, "write_fits", full)
    with pytest.raises(OSError, match=r"No space left on device\. 2 of 3 files") as caught:
        fit(lake, out)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert fit(lake, out).skipped == 2


def test_a_file_that_vanished_is_named(lake, out, monkeypatch):
    source = ds.dataset(lake, partitioning="hive")
    os.unlink(lake / "region=2" / "part-0.parquet")
    with pytest.raises(OSError, match="region=2/part-0.parquet"):
        fit(source, out)
    assert len(outputs(out)) == 2


def test_a_likelihood_that_raises_is_told_with_the_file(lake, out):
    def broken(params, data):
        raise KeyError("price")

    with pytest.raises(ValueError, match=r"region=0/part-0.parquet: line \d+ of broken .*'price'"):
        fit(lake, out, model=broken)


def mixed(lake):
    table = pq.read_table(lake / "region=1" / "part-0.parquet", partitioning=None)
    pq.write_table(table.drop_columns("y"), lake / "region=1" / "part-0.parquet")
    return lake


@pytest.mark.parametrize(
    ("source", "given", "kind", "words"),
    [
        (str, {"by": "shop"}, ValueError, "the source has no column 'shop'"),
        (mixed, {}, ValueError, "region=1/part-0.parquet: the file has no column 'y'"),
        (lambda lake: lake / "nowhere", {}, OSError, "cannot be read as Parquet"),
        (lambda lake: [], {}, TypeError, "source must be a folder of Parquet files"),
        (lambda lake: ds.dataset(pa.table({"y": [1.0]})), {}, TypeError, "use fit_table"),
        (str, {"part": (3, 3)}, ValueError, "the parts of 3 are 0 to 2"),
        (str, {"part": 1}, TypeError, "part must be a pair"),
        (str, {"out": 3}, TypeError, "out must be a folder"),
        (str, {"progress": "no"}, TypeError, "progress must be True, False or None"),
    ],
)
def test_bad_input_has_one_clear_error(lake, out, source, given, kind, words):
    arguments = {"by": "store", "out": out} | RATE | given
    with pytest.raises(kind, match=words):
        jm.fit_lake(exponential, source(lake), **arguments)


def test_a_folder_that_is_not_of_fits_is_left_alone(lake, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "letter.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds other files, such as 'letter.txt'"):
        fit(lake, tmp_path / "notes")
    with pytest.raises(ValueError, match="holds source files"):
        fit(lake, lake)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"out=.*file/fits' cannot be written"):
        fit(lake, tmp_path / "file" / "fits")


def test_half_written_files_of_a_dead_process_go(lake, out):
    fit(lake, out)
    old, young = (out / f".a.parquet.{digit * 32}" for digit in "ab")
    for path in (old, young):
        path.write_bytes(b"PAR1")
    os.utime(old, (0, 0))
    assert same_bits(fit(lake, out).to_table(), fit(lake, out).to_table())
    assert (old.exists(), young.exists()) == (False, True)
