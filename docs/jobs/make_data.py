"""The tables that the six jobs read, written into the current folder: births.csv, visits.csv, stays.csv."""

import numpy as np
import pandas as pd

import jaxmle as jm


def births() -> pd.DataFrame:
    """189 births, with gaps, a factor and the clinic of each."""
    table = pd.DataFrame(jm.datasets.load("birthwt").data)
    race = np.where(table.black == 1, "black", np.where(table.other == 1, "other", "white"))
    table = table.assign(race=race, clinic=np.arange(len(table)) % 17)
    table["age"] = table.age.where(table.index % 23 != 5)
    table["race"] = table.race.where(table.index % 41 != 7)
    return table


def visits(groups: int = 2000, rows: int = 20) -> pd.DataFrame:
    """Counts of visits in so many villages."""
    rng = np.random.default_rng(3)
    village = np.repeat(np.arange(groups), rows)
    distance = rng.normal(size=len(village))
    level, slope = rng.normal([1.0, 0.3], 0.2, (groups, 2)).T
    count = rng.poisson(np.exp(level[village] + slope[village] * distance))
    return pd.DataFrame({"village": village, "distance": distance, "count": count})


def stays() -> pd.DataFrame:
    """227 patients with advanced lung cancer, some of whom enter late."""
    lung = pd.DataFrame(jm.datasets.load("lung").data)
    entered = np.where(lung.index % 3 == 0, np.minimum(30.0, 0.5 * lung.time), 0.0)
    return lung.assign(entered=entered)


if __name__ == "__main__":
    births().to_csv("births.csv", index=False)
    visits().to_csv("visits.csv", index=False)
    stays().to_csv("stays.csv", index=False)
