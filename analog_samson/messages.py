"""Invalid values in error messages."""

SHOWN_LENGTH = 80
"""Number of characters of an invalid value in a message: our choice."""


def shortened(value: object) -> str:
    """Return the text of an invalid value for a message, shortened if it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python does not format integers of more than 4300 digits
        return "a number with too many digits"
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."
