import pytest

from analog_samson.messages import SHOWN_LENGTH, shortened


@pytest.mark.parametrize("value", [3, "text", None, [1.5, True]])
def test_a_short_value_is_shown_as_python_writes_it(value):
    assert shortened(value) == repr(value)


def test_a_long_value_is_shortened():
    assert shortened("a" * 500) == repr("a" * 500)[:SHOWN_LENGTH] + "..."


def test_an_integer_with_thousands_of_digits_is_described():
    assert shortened(10**5000) == "a number with too many digits"
