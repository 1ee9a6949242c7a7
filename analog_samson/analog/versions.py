"""Versions of aihwkit and torch that work together."""

import sys
from importlib import metadata

WORKING_PAIRS = {
    "1.1.0": ((2, 10), (2, 13)),
    "1.2.0": ((2, 13), (2, 16)),
}
"""aihwkit version to the torch versions [from, below) whose binary interface it works with."""


def check_versions() -> None:
    """Raise unless the installed aihwkit and torch work together.

    aihwkit's wheels depend on torch's binary interface; an incompatible pair crashes at the first
    tile.

    Raises:
        ImportError: If aihwkit is missing or the pair is incompatible; the message states what to
            install.
    """
    wanted = "1.1.0" if sys.version_info < (3, 12) else "1.2.0"
    low, below = WORKING_PAIRS[wanted]
    advice = (
        f'install with: pip install "aihwkit=={wanted}" '
        f'"torch>={low[0]}.{low[1]},<{below[0]}.{below[1]}"'
    )
    try:
        installed = metadata.version("aihwkit")
    except metadata.PackageNotFoundError:
        raise ImportError(f"aihwkit is not installed; {advice}") from None
    torch_version = metadata.version("torch")
    major, minor = (int(part) for part in torch_version.split(".")[:2])
    pair = WORKING_PAIRS.get(installed)
    if pair is None or not pair[0] <= (major, minor) < pair[1]:
        raise ImportError(
            f"aihwkit {installed} and torch {torch_version} are installed and do not work "
            f"together; {advice}"
        )
