import pytest

from ctr.report.units import change, count, decimal, duration, pick, share, short, signed, size


@pytest.mark.parametrize("write", [count, decimal, duration, share, signed, size])
@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_does_not_apply_is_a_dash(write, value):
    assert write(value) == "-"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (count(1_234_567), "1,234,567"),
        (decimal(0.75), "0.7500"),
        (signed(0.0012), "+0.0012"),
        (signed(-0.0012), "-0.0012"),
        (signed(-0.00001), "0.0000"),
        (share(0.3115), "31.1 %"),
        (share(0.00042), "0.042 %"),
        (share(0.0), "0 %"),
        (share(1.0), "100 %"),
        (share(0.9999), "> 99.9 %"),
        (change(200, 62), "-69.0 %"),
        (change(0, 5), "-"),
        (change(5, 5), "0 %"),
        (size(999), "999 B"),
        (size(2_500_000), "2.50 MB"),
        (size(111_316), "111 kB"),
        (duration(0.418), "0.42 s"),
        (duration(12.34), "12.3 s"),
        (duration(185), "3 min 05 s"),
        (duration(59.96), "1 min 00 s"),
        (duration(3_725), "1 h 02 min"),
        (short(999_999), "1M"),
        (short(1_234), "1.23k"),
        (short(20), "20"),
    ],
)
def test_values_are_written_with_their_units(written, expected):
    assert written == expected


def test_a_path_through_a_missing_or_null_step_ends_in_none():
    assert pick({"a": {"b": 0}}, "a", "b") == 0
    assert pick({"a": None}, "a", "b") is None
    assert pick({}, "a", "b") is None
    assert pick(None, "a") is None
