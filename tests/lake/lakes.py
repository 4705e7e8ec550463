"""Small lakes of exponential waiting times, whose fits have a closed form: rate 1/ȳ, SE rate/√n."""

import time

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import jaxmle as jm

RATE = {"params0": {"rate": 1.0}, "constraints": {"rate": jm.positive}}


def exponential(params, data):
    return jnp.log(params["rate"]) - params["rate"] * data["y"]


class Slow:
    """The exponential with a start that takes a while, so that there is a moment in which to kill."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, params, data):
        return exponential(params, data)

    def start(self, data):
        time.sleep(self.seconds)
        return {"rate": 1.0}


def fit(source, out, model=exponential, **options):
    given = RATE if model is exponential else {"constraints": RATE["constraints"]}
    return jm.fit_lake(model, source, by="store", out=out, progress=False, **(given | options))


def write_lake(folder, files=3, groups=4, seed=1):
    """``region=r/part-0.parquet`` with some 5 to 9 rows of each of ``groups`` stores, shuffled."""
    rng = np.random.default_rng(seed)
    for region in range(files):
        store = np.repeat(100 * region + np.arange(groups), rng.integers(5, 10, groups))
        store = rng.permutation(store)
        table = pa.table({"store": store, "y": rng.exponential(1 + store % 100, len(store))})
        place = folder / f"region={region}"
        place.mkdir(parents=True)
        pq.write_table(table, place / "part-0.parquet")
    return folder


def rows_by_key(table, key="store"):
    return table.sort_by(key)


def same_bits(one, other, key="store"):
    """Equal in every bit, NaN where NaN."""
    one, other = rows_by_key(one, key), rows_by_key(other, key)
    if one.schema.names != other.schema.names or len(one) != len(other):
        return False
    for name in one.schema.names:
        left, right = one.column(name).combine_chunks(), other.column(name).combine_chunks()
        if pa.types.is_list(left.type):
            left, right = left.flatten(), right.flatten()
        left, right = left.to_numpy(zero_copy_only=False), right.to_numpy(zero_copy_only=False)
        if not np.array_equal(left, right, equal_nan=left.dtype.kind == "f"):
            return False
    return True
