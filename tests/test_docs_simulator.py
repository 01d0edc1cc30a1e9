"""docs/simulator.md shows what the simulator computes: published pull times and its own."""

import re
from pathlib import Path
from types import ModuleType

import pytest
from benchmarked import benchmark

PROJECT = Path(__file__).resolve().parent.parent
PAGE = (PROJECT / "docs" / "simulator.md").read_text("utf-8")


@pytest.fixture(scope="module")
def published() -> ModuleType:
    return benchmark("published")


def test_the_page_shows_the_table_that_the_simulator_gives(published: ModuleType) -> None:
    assert "\n".join(published.table()) in PAGE


def test_every_row_names_its_source_and_what_is_assumed(published: ModuleType) -> None:
    for case in published.CASES:
        assert re.search(r"\w/\w|\w#\d|measured", case.source), case.name
        assert case.assumed


def test_a_case_answers_to_its_node(published: ModuleType) -> None:
    from dataclasses import replace

    rates = published.quiet_rates()
    case = published.CASES[-1]
    node = replace(case.node, disk_burst_bytes_s=None)
    assert replace(case, node=node).simulated_s(rates) > 1.5 * case.simulated_s(rates)
