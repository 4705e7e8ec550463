"""A regression in each of 2 000 groups, joined back to the table."""

import polars as pl

import jaxmle as jm

table = pl.read_csv("visits.csv")
fits = jm.fit_groups(jm.models.poisson(), data=table, formula="count ~ distance", by="village")
found = fits.to_frame().pivot("term", index="village", values=["estimate", "std_error"])
joined = table.join(found, on="village")
print(joined.head())
answers = {"estimate": found[:, 1:3], "std_error": found[:, 3:5], "rows": len(joined)}
