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
        (1.5 * MONTH, "1.5 mo"),
        (359 * DAY, "359 d"),
        (360 * DAY, "12 mo"),
        (366 * DAY, "366 d"),
        (100.0, "100 s"),
        (1e6, "11.6 d"),
    ],
)
def test_a_time_is_named_in_the_largest_unit_that_fits(t, text):
    assert label(t) == text


def test_whole_days_of_two_years_have_different_labels():
    assert len({label(day * DAY) for day in range(1, 731)}) == 730


def test_a_year_has_365_days():
    assert YEAR == 365 * 24 * 3600


@pytest.mark.parametrize("t", [-1.0, float("nan"), float("inf")])
def test_an_impossible_time_is_refused(t):
    with pytest.raises(ValueError, match="finite and at least 0 s"):
        label(t)
