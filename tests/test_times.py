import pytest

from analog_samson.times import DAY, HOUR, MINUTE, MONTH, YEAR, label


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (0, "programmed"),
        (1, "1 s"),
        (20, "20 s"),
        (MINUTE, "1 min"),
        (HOUR, "1 h"),
        (DAY, "1 d"),
        (2 * DAY, "2 d"),
        (MONTH, "1 mo"),
        (YEAR, "1 y"),
        (10 * YEAR, "10 y"),
        (2.5e-7, "2.5e-07 s"),
    ],
)
def test_a_time_is_named_in_the_largest_unit_that_fits(t, text):
    assert label(t) == text


def test_a_year_has_365_days():
    assert YEAR == 365 * 24 * 3600


@pytest.mark.parametrize("t", [-1.0, float("nan"), float("inf")])
def test_an_impossible_time_is_refused(t):
    with pytest.raises(ValueError, match="finite and at least 0 s"):
        label(t)
