"""Sizes, durations, times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloison.model import units

NOW = 1_800_000_000 * units.SECOND_NS


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("512", 512), ("1b", 1), ("64k", 64 << 10), ("64m", 64 << 20), ("64M", 64 << 20), ("64MB", 64 << 20),
        ("64MiB", 64 << 20), ("1.5g", 3 << 29), ("2t", 2 << 40), ("64 m", 64 << 20), ("-1", -1), ("0", 0),
    ],
)  # fmt: skip
def test_sizes_are_binary(text: str, count: int) -> None:
    assert units.parse_size(text) == count


@pytest.mark.parametrize("text", ["", "m", "64x", "-5", "1e3", "6 4m", "0x10", "1.2.3", "64mm", "٣m", "ib", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "nano"), [("0.5", 500_000_000), ("2", 2_000_000_000), (".25", 250_000_000), ("1.5", 1_500_000_000)]
)
def test_cpus_are_exact_decimals(text: str, nano: int) -> None:
    assert units.parse_decimal_nano(text) == nano


@pytest.mark.parametrize("text", ["", "-1", "half", "1/2", "0.0000000001", "."])
def test_what_is_no_number_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_decimal_nano(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1m30s", 90),
        ("1.5h", 5400),
        ("300ms", 0.3),
        ("-10s", -10),
        ("0", 0),
        ("1h2m3s", 3723),
        ("+5s", 5),
        ("2us", 2e-6),
    ],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert units.parse_duration_ns(text) == round(seconds * units.SECOND_NS)


@pytest.mark.parametrize("text", ["", "10", "s", "1x", "1m30", "--1s", "1 s", "."])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        units.parse_duration_ns(text)


@pytest.mark.parametrize(
    ("text", "moment_s"),
    [
        ("10m", 1_800_000_000 - 600), ("1700000000", 1_700_000_000), ("1700000000.5", 1_700_000_000.5),
        ("2026-11-23T15:04:05Z", 1_795_446_245), ("2026-11-23T16:04:05+01:00", 1_795_446_245),
        ("2026-11-23T15:04:05.5Z", 1_795_446_245.5), ("1970-01-01T00:00:00Z", 0), ("2000-02-29T00:00:00Z", 951_782_400),
    ],
)  # fmt: skip
def test_moments_are_relative_or_unix_or_rfc3339(text: str, moment_s: float) -> None:
    assert units.parse_when_ns(text, now_ns=NOW) == round(moment_s * units.SECOND_NS)


def test_a_moment_without_zone_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC-2")  # POSIX: two hours east
    time.tzset()
    try:
        local = units.parse_when_ns("2026-11-23T17:04", now_ns=NOW)
        assert local == units.parse_when_ns("2026-11-23T15:04:00Z", now_ns=NOW)
        assert units.parse_when_ns("2026-11-23", now_ns=NOW) == units.parse_when_ns("2026-11-22T22:00:00Z", now_ns=NOW)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-13-01", "2026-11", "2026-11-23T25:61:00Z", "2026-11-23T10:00:00+1:00", "99999-01-01"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="failed to parse"):
        units.parse_when_ns(text, now_ns=NOW)


@given(st.integers(min_value=1, max_value=4_000_000_000 * units.SECOND_NS))
def test_a_rendered_moment_parses_back(moment_ns: int) -> None:
    assert units.parse_rfc3339_ns(units.render_rfc3339(moment_ns)) == moment_ns


def test_never_is_dockers_zero_time() -> None:
    assert units.render_rfc3339(0) == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (61, "About a minute"), (180, "3 minutes"),
        (3600, "About an hour"), (7200, "2 hours"), (47 * 3600, "47 hours"), (3 * 86400, "3 days"),
        (21 * 86400, "3 weeks"),         (90 * 86400, "3 months"), (800 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_ages_read_as_dockers(seconds: float, text: str) -> None:
    assert units.render_age(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0B"), (999, "999B"), (117_000_000, "117MB"), (1_500, "1.5kB"), (999_900, "1000kB")]
)
def test_sizes_of_images_are_decimal(count: int, text: str) -> None:
    assert units.render_size(count) == text
