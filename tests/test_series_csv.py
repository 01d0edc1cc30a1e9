"""Laws of series.csv read back: what was written, by node, and unknown where it is not known."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgpull import tables
from imgpull.analysis.series import read_series
from imgpull.errors import ReportError

RATE = st.none() | st.integers(0, 10**10).map(float)
ROWS = st.lists(
    st.builds(
        tables.SeriesRow,
        st.integers(0, 10**6).map(lambda thousandths: thousandths / 1000),
        st.sampled_from(["node-a", "node-b", "näher, am Rand"]),
        RATE,
        RATE,
        st.none() | st.integers(0, 640_000).map(lambda parts: parts / 10_000),
    ),
    max_size=40,
    unique_by=lambda row: (row.node, row.at_s),
)


@given(ROWS)
def test_what_was_written_comes_back_by_node_and_in_order(rows: list[tables.SeriesRow]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "series.csv"
        tables.write_series(path, rows)
        found = read_series(path)
    assert list(found) == sorted({row.node for row in rows})
    for node, series in found.items():
        columns = zip(*sorted(row for row in rows if row.node == node), strict=True)
        at_s, _, *rates = columns
        assert series.at_s.tolist() == list(at_s)
        for told, rate in zip(
            (series.receive_bytes_s, series.write_bytes_s, series.cpu_cores), rates, strict=True
        ):
            np.testing.assert_array_equal(told, [math.nan if r is None else r for r in rate])


HEAD = ",".join(tables.SERIES_COLUMNS)


def test_a_broken_cell_or_line_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_text(f"{HEAD}\n1,a,10,x,inf\n2,a,20,5,0.5\nsoon,a,1,1,1\n3,,1,1,1\n3,a,30", "utf-8")
    (series,) = read_series(path).values()
    np.testing.assert_array_equal(series.at_s, [1, 2, 3])
    np.testing.assert_array_equal(series.receive_bytes_s, [10, 20, 30])
    np.testing.assert_array_equal(series.write_bytes_s, [math.nan, 5, math.nan])
    np.testing.assert_array_equal(series.cpu_cores, [math.nan, 0.5, math.nan])


def test_nobody_recorded_any(tmp_path: Path) -> None:
    assert read_series(tmp_path / "series.csv") == {}
    (tmp_path / "series.csv").write_text(f"{HEAD}\n", "utf-8")
    assert read_series(tmp_path / "series.csv") == {}


@pytest.mark.parametrize("text", ["", "pods\nare,not,rates\n", "at_s,node\n1,a\n"])
def test_another_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "series.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(ReportError, match=r"series\.csv is not what an engine leaves"):
        read_series(path)
