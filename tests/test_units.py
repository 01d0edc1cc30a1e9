"""Laws of durations and sizes: what people, Go and Kubernetes write is read, and read back."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgpull import units

MILLISECONDS = st.integers(0, 10**10)  # up to 115 days
BYTES = st.integers(0, 2**53)  # beyond, a float could not hold them


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h2m3s", 3723.0),
        ("1m55.516263773s", 115.516263773),
        ("830ms", 0.83),
        ("15.2µs", 15.2e-6),  # U+00B5, which Go writes
        ("15.2μs", 15.2e-6),  # U+03BC, which Go reads
        ("15.2us", 15.2e-6),
        ("7ns", 7e-9),
        ("0s", 0.0),
        ("0", 0.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("-1h30m", -5400.0),
        ("4m4.956s", 244.956),
        ("0.25h", 900.0),
    ],
)
def test_every_form_of_a_go_duration_is_read(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == pytest.approx(seconds, rel=1e-12)


NO_DURATIONS = ["", " ", "-", "90", "1d", "s", "1e3s", "١s", "m3", "3m!", "1h-2m", "inf", "3M"]


@pytest.mark.parametrize("text", [*NO_DURATIONS, "3 minutes", "1m 30s", "9999999999h"])
def test_what_is_no_duration_is_refused_with_a_way_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"'{text}' is not a duration; write it like")):
        units.parse_duration(text)


@given(MILLISECONDS)
@example(1001)  # 1.001 * 1000 is less than 1001 in floats
def test_a_duration_of_whole_milliseconds_survives_both_spellings(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    for written in (units.format_duration(seconds), units.go_duration(seconds)):
        assert round(units.parse_duration(written) * 1000) == milliseconds, written


@given(MILLISECONDS)
def test_a_spelled_duration_is_spelled_the_same_again(milliseconds: int) -> None:
    for spell in (units.format_duration, units.go_duration):
        written = spell(milliseconds / 1000)
        assert spell(units.parse_duration(written)) == written


@given(st.floats(0, 1e6))
def test_go_durations_are_cut_to_milliseconds_and_never_rounded_up(seconds: float) -> None:
    written_s = units.parse_duration(units.go_duration(seconds))
    assert seconds - 0.001 - 1e-9 < written_s <= seconds + 2e-9


@pytest.mark.parametrize(
    ("seconds", "short", "go"),
    [
        (0, "0s", "0s"),
        (0.0004, "0s", "0s"),
        (0.83, "830ms", "830ms"),
        (60, "1m", "1m0s"),
        (180, "3m", "3m0s"),
        (3600, "1h", "1h0m0s"),
        (5400, "1h30m", "1h30m0s"),
        (3600.5, "1h0.5s", "1h0m0.5s"),
        (244.9565, "4m4.956s", "4m4.956s"),
        (82.0, "1m22s", "1m22s"),
        (0.9999, "1s", "999ms"),
    ],
)
def test_durations_are_written_short_for_people_and_in_full_as_go_does(
    seconds: float, short: str, go: str
) -> None:
    assert (units.format_duration(seconds), units.go_duration(seconds)) == (short, go)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("15GB", 15 * 10**9),
        ("15GiB", 15 * 2**30),
        ("15Gi", 15 * 2**30),
        ("15 gb", 15 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5kB", 1500),
        ("2TB", 2 * 10**12),
        ("1Ti", 2**40),
        ("4096", 4096),
        (4096, 4096),
        ("0", 0),
        ("7B", 7),
    ],
)
def test_every_form_of_a_size_is_read(text: str | int, count: int) -> None:
    assert units.parse_size(text) == count


@pytest.mark.parametrize(
    "text", ["", "GB", "-1GB", "15GX", "1e9", "15 G B", "1,5GB", "١GB", "0x10"]
)
def test_what_is_no_size_is_refused_with_a_way_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"'{text}' is not a size; write it like")):
        units.parse_size(text)


@given(BYTES)
def test_a_count_of_bytes_is_its_own_size(count: int) -> None:
    assert units.parse_size(count) == units.parse_size(str(count)) == count


@given(st.integers(0, 10**15))
def test_a_written_size_is_within_half_a_percent_and_never_in_powers_of_ten(count: int) -> None:
    written = units.format_size(count)
    assert "e" not in written
    assert units.parse_size(written) == pytest.approx(count, rel=5e-3)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999_600, "1 MB"),
        (9_371_344_010, "9.37 GB"),
        (999_999_999, "1 GB"),
        (15 * 10**9, "15 GB"),
        (2500 * 10**12, "2500 TB"),
    ],
)
def test_sizes_are_written_with_three_figures(count: int, text: str) -> None:
    assert units.format_size(count) == text
