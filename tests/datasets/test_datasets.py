"""The data sets hold the numbers their sources print."""

import numpy as np
import pytest

from jaxmle import datasets

# Rows and column totals, from the sources named in provenance.toml.
TOTALS = {
    "aircondit": (12, {"hours": 1297}),  # Proschan (1963): 12 intervals, mean 108.1 hours
    "beetles": (8, {"exposed": 481, "killed": 291}),  # Bliss (1935)
    "birthwt": (
        189,
        {"low": 59, "smoke": 74, "ht": 12, "black": 26, "other": 67},
    ),  # Hosmer & Lemeshow (1989)
    "faithful": (272, {"eruptions": 948.677}),  # R 4.2.2: sum(faithful$eruptions)
    "horsekicks": (280, {"deaths": 196}),  # von Bortkiewicz (1898)
    "lung": (227, {"death": 164}),  # R survival 3.5.3: lung without the row that lacks ph.ecog
}


def test_every_data_set_has_its_published_totals():
    assert set(datasets.names()) == set(TOTALS)
    for name, (n, totals) in TOTALS.items():
        data = datasets.load(name).data
        assert {column.shape for column in data.values()} == {(n,)}
        for column, total in totals.items():
            np.testing.assert_allclose(data[column].sum(), total, rtol=1e-12)


@pytest.mark.parametrize("name", datasets.names())
def test_every_column_is_float64_finite_and_described(name):
    record = datasets.load(name)
    assert record.names == tuple(record.data) == tuple(record.columns)
    for column in record.data.values():
        assert column.dtype == np.float64 and np.isfinite(column).all()


@pytest.mark.parametrize("name", datasets.names())
def test_a_data_set_names_its_source_and_licence(name):
    record = datasets.load(name)
    assert record.description and record.source and record.licence
    assert record.source in str(record) and record.licence in str(record)


def test_horse_kicks_have_the_margins_of_bortkiewicz():
    data = datasets.load("horsekicks").data
    by_corps = [data["deaths"][data["corps"] == corps].sum() for corps in np.unique(data["corps"])]
    by_year = [data["deaths"][data["year"] == year].sum() for year in range(1875, 1895)]
    # Das Gesetz der kleinen Zahlen, the table of the 280 corps-years: Guard, I-XI, XIV, XV; 1875-1894.
    assert by_corps == [16, 16, 12, 12, 8, 11, 17, 12, 7, 13, 15, 25, 24, 8]
    assert by_year == [3, 5, 7, 9, 10, 18, 6, 14, 11, 9, 5, 11, 15, 6, 11, 17, 12, 15, 8, 4]


def test_race_indicators_exclude_each_other():
    data = datasets.load("birthwt").data
    assert not np.any(data["black"] * data["other"])


def test_changing_a_loaded_array_leaves_the_next_load_alone():
    datasets.load("lung").data["time"][:] = 0.0
    assert datasets.load("lung").data["time"].min() > 0


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="no data set 'lungs'.*birthwt"):
        datasets.load("lungs")
