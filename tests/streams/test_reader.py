"""Files as they come: what is wrong with one is said once, with its name and the column."""

import threading
import time

import numpy as np
import pytest

import jaxmle as jm
from jaxmle.streams.reader import CHUNKS_AHEAD, read_ahead

from .conftest import pa, pq, write


def mean(params, data):
    return -((data - params["m"]) ** 2)


def fitted(folder, **options):
    return jm.fit(mean, {"m": 0.0}, source=jm.parquet(folder, "a"), **options)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, {"a": np.arange(900.0), "word": np.array(["x"] * 900)}, (0, 300, 600, 900))
    return tmp_path


def rewritten(folder, part, column, **options):
    pq.write_table(pa.table({"a": column}), folder / f"part-{part}.parquet", **options)


def test_a_null_is_named_by_file_column_and_row(folder):
    rewritten(folder, 1, pa.array([*range(40), None, 3.0], pa.float64()))
    with pytest.raises(ValueError, match=r"column 'a' is null in row 40 of .*part-1\.parquet"):
        fitted(folder)


def test_a_nan_is_named_by_file_column_and_row(folder):
    rewritten(folder, 2, pa.array([1.0, float("nan")]))
    with pytest.raises(ValueError, match=r"column 'a' is NaN in row 1 of .*part-2\.parquet"):
        fitted(folder)


def test_a_file_that_breaks_off_in_the_middle_is_named_with_its_column(folder):
    """Bytes of the pages are overwritten; the footer is whole."""
    place = folder / "part-1.parquet"
    rewritten(folder, 1, np.random.default_rng(0).normal(size=3000), compression="zstd")
    content = bytearray(place.read_bytes())
    content[60:4000] = b"\xff" * 3940
    place.write_bytes(bytes(content))
    with pytest.raises(OSError, match=r"part-1\.parquet cannot be read: column 'a', "):
        fitted(folder)


def test_a_file_without_a_footer_is_named(folder):
    (folder / "part-1.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(OSError, match=r"part-1\.parquet cannot be read as a Parquet file"):
        fitted(folder)


def test_a_column_of_another_kind_is_named_with_both_files(folder):
    rewritten(folder, 1, np.arange(5))
    with pytest.raises(
        ValueError, match=r"part-1\.parquet: column 'a' is integer, and float in .*part-0"
    ):
        fitted(folder)


def test_a_missing_column_is_named_with_its_file(folder):
    pq.write_table(pa.table({"b": [1.0]}), folder / "part-2.parquet")
    with pytest.raises(ValueError, match=r"part-2\.parquet has no column 'a'; it has 'b'"):
        fitted(folder)


def test_words_are_no_data_and_columns_are_names(folder):
    with pytest.raises(ValueError, match="column 'word' is string, but data must be numbers"):
        jm.parquet(folder, {"y": "word"})
    with pytest.raises(TypeError, match=r"columns\['y'\] must be the name of a column"):
        jm.parquet(folder, {"y": None or object()})
    with pytest.raises(ValueError, match="does not name a column"):
        jm.parquet(folder, {"y": 1.0})
    with pytest.raises(FileNotFoundError, match="no file or folder 'nowhere'"):
        jm.parquet("nowhere", "a")


def test_a_file_that_changes_between_passes_is_noticed(folder):
    source = jm.parquet(folder, "a")
    rewritten(folder, 1, np.arange(7.0))
    with pytest.raises(OSError, match=r"part-1\.parquet has changed since it was first read"):
        jm.fit(mean, {"m": 0.0}, source=source)
    (folder / "part-1.parquet").unlink()
    with pytest.raises(OSError, match=r"part-1\.parquet is gone since"):
        jm.fit(mean, {"m": 0.0}, source=source)


def test_values_in_another_coding_are_named_by_file_row_and_column(folder):
    source = jm.parquet(folder, {"x": [1.0, "a"], "y": "a"})
    with pytest.raises(
        ValueError, match=r"is 2 in row 2 of .*part-0\.parquet.*y is the column 'a'"
    ):
        jm.fit(jm.models.logistic(), source=source)


def test_files_without_rows_and_hidden_files_are_passed_over(folder):
    pq.write_table(pa.table({"a": np.zeros(0)}), folder / "part-9.parquet")
    (folder / "_metadata.parquet").write_bytes(b"")
    (folder / "more").mkdir()
    pq.write_table(pa.table({"a": [9.0]}), folder / "more" / "last.parquet")
    source = jm.parquet(folder, "a")
    assert source.rows == 901 and len(source.paths) == 4
    listed = jm.parquet([folder / "part-2.parquet", folder / "part-0.parquet"], "a")
    assert [path[-14:] for path in listed.paths] == ["part-0.parquet", "part-2.parquet"]


def test_integers_booleans_and_decimals_are_numbers(tmp_path):
    table = pa.table(
        {
            "i": pa.array([1, 2], pa.int8()),
            "b": [True, False],
            "d": pa.array([1, 2], pa.int64()).cast(pa.decimal128(21, 2)),
            "f": pa.array([1, 2], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    reading = jm.parquet(tmp_path, {"x": ["i", "b"], "d": "d", "f": "f"}).reading
    (chunk,) = reading.chunks([0])
    assert [array.dtype for array in chunk.arrays] == ["float64", "float64", "int64", "bool"]
    assert reading.columns.data(chunk.arrays)["x"].tolist() == [[1, 1], [2, 0]]


# ---------------------------------------------------------------- the thread


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "jaxmle reader"]


def test_an_error_of_the_reader_is_raised_in_the_caller_and_ends_the_thread():
    def chunks():
        yield 1
        raise OSError("the disk is gone")

    found = read_ahead(chunks())
    assert next(found) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)
    assert not readers()


def test_a_caller_that_stops_stops_the_reader_and_closes_its_file():
    made, closed = [], []

    def chunks():
        try:
            for i in range(1000):
                made.append(i)
                yield i
        finally:
            closed.append(True)

    found = read_ahead(chunks())
    assert next(found) == 0
    time.sleep(0.2)  # time enough for the reader to fill its queue
    found.close()
    assert not readers() and closed == [True]
    assert len(made) <= 1 + CHUNKS_AHEAD + 2  # handed over, in the queue, waiting for room


def test_a_sample_holds_its_rows_and_not_the_chunks_they_were_in(tmp_path):
    """The symptom: a sample of 20 000 rows held 0.8 GB, sixteen row groups whole."""
    groups, rows = 16, 50_000
    table = pa.table({"a": np.arange(float(groups * rows))})
    pq.write_table(table, tmp_path / "part-0.parquet", row_group_size=rows)
    held = []
    reading = jm.parquet(tmp_path, "a").reading
    (sample,) = reading.sample(1_000, lambda chunk: held.append(pa.total_allocated_bytes()))
    assert len(held) == groups and len(sample) >= 1_000
    assert max(held) < 8 * 8 * rows  # bytes of eight chunks; seen 4, and 19 before
