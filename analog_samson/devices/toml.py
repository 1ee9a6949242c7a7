"""Parsing of TOML files, with the name of the file in every error message."""

import tomllib
from typing import Any


def parse_toml(content: bytes, where: str) -> dict[str, Any]:
    """Read the content of a TOML file; a byte order mark is allowed.

    Args:
        content: The bytes of the file.
        where: Name of the file, for the error.

    Returns:
        Sections and keys.

    Raises:
        ValueError: If it is not UTF-8, no valid TOML, or nested too deeply to be read.
    """
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: not UTF-8 text (byte {error.start + 1} is wrong); save the file as UTF-8."
        ) from None
    except RecursionError:
        raise ValueError(
            f"{where}: lists or tables are nested too deeply; no key needs more than three levels."
        ) from None
    except ValueError as error:  # also raised for numbers with thousands of digits
        raise ValueError(f"{where}: not valid TOML: {error}.") from None
