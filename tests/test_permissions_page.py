"""docs/real-clusters.md shows the permissions that preflight checks, and no others."""

from pathlib import Path

from imgpull.cluster import permissions

PAGE = Path(__file__).parents[1] / "docs" / "real-clusters.md"


def test_the_page_shows_the_table_that_is_checked() -> None:
    assert permissions.table().strip() in PAGE.read_text("utf-8")
