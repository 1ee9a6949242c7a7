"""Names of data sets: shipped, imported, or your own (a path, with options).

What `dataset=` takes for your own data is a path, absolute or relative, and options after commas:

    data/flowers,image_size=64,test_fraction=0.2

A specification stores the last name of the path, the options and a digest of the contents instead:

    flowers,image_size=64,test_fraction=0.2@3f1c29d0a7b45e68
"""

import difflib
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from analog_samson.data.catalogue import DATASETS
from analog_samson.importing import is_import_name

FOLDER_VARIABLE = "ANALOG_SAMSON_DATA"
"""Environment variable: a folder that holds one folder a data set (`mnist/`, `cifar10/`, ...)."""

_DIGEST = re.compile(r"@([0-9a-f]{16})$")


@dataclass(frozen=True)
class _Option:
    """An option of a data set of your own: how it is read, and what is allowed."""

    read: Callable[[str], Any]
    is_allowed: Callable[[Any], bool]
    allowed: str


OPTIONS: Mapping[str, _Option] = MappingProxyType(
    {
        "image_size": _Option(int, lambda v: 1 <= v <= 10_000, "whole pixels, 1 to 10000"),
        "resize": _Option(int, lambda v: 1 <= v <= 20_000, "whole pixels, 1 to 20000"),
        "test_fraction": _Option(
            float, lambda v: math.isfinite(v) and 0 < v < 1, "a number between 0 and 1"
        ),
        "normalise": _Option(str, lambda v: v in ("channel", "none"), "channel, none"),
        "units": _Option(str, lambda v: v in ("characters", "words"), "characters, words"),
        "length": _Option(int, lambda v: 1 <= v <= 100_000, "whole tokens, 1 to 100000"),
        "overlap": _Option(str, lambda v: v in ("refuse", "drop"), "refuse, drop"),
        "targets": _Option(str, lambda v: v in ("all", "last"), "all, last"),
    }
)
"""Options of data sets of your own; `docs/DATA.md` says what each means."""

_OPTION = re.compile(rf",({'|'.join(OPTIONS)})=([^,@/]*)$")
_UNKNOWN = re.compile(r",([A-Za-z_]+)=([^,@/]*)$")


@dataclass(frozen=True)
class OwnName:
    """The name of a data set of your own, taken apart.

    Attributes:
        path: Path as it was given; the last name of it in a stored name.
        options: Options by name.
        digest: First 16 hexadecimal digits of the digest of its contents; "" if it is a path.
    """

    path: str
    options: dict[str, Any]
    digest: str = ""

    @property
    def _options(self) -> str:
        return "".join(f",{name}={value}" for name, value in self.options.items())

    @property
    def last(self) -> str:
        """Last name of the path.

        Raises:
            ValueError: If it holds a character that a stored name cannot hold.
        """
        last = self.path if self.digest else Path(self.path).absolute().name
        if last in ("", "..") or re.search(r"[:@,\s]", last):
            raise ValueError(
                f"The data set {self.path!r} is called {last!r}; rename it, so that its name holds "
                "no colon, comma, at sign or white space, which separate the parts of a name."
            )
        return last

    @property
    def short(self) -> str:
        """Last name of the path, with the options."""
        return self.last + self._options

    def at(self, place: Path) -> str:
        """The name of the same data set as a path."""
        return f"{place.absolute()}{self._options}"

    def stored(self, digest: str) -> str:
        """What a specification stores."""
        return f"{self.short}@{digest[:16]}"


def own_name(name: str) -> OwnName | None:
    """Take the name of a data set of your own apart; None for any other name.

    A name is a path if it holds a slash or there is such a file or folder in the working directory
    or in the folder of data sets.

    Raises:
        ValueError: If an option is unknown, is given twice, or has a value that is not allowed.

    Example:
        >>> own_name("flowers,image_size=64@3f1c29d0a7b45e68")
        OwnName(path='flowers', options={'image_size': 64}, digest='3f1c29d0a7b45e68')
        >>> own_name("digits") is None
        True
    """
    if name in DATASETS:
        return None
    digest = _DIGEST.search(name)
    rest = name[: digest.start()] if digest else name
    if digest and is_import_name(rest):
        return None
    options: dict[str, Any] = {}
    while found := _OPTION.search(rest):
        key, text = found.groups()
        if key in options:
            raise ValueError(f"The data set {name!r} has the option {key} twice; give it once.")
        options[key] = _value(name, key, text)
        rest = rest[: found.start()]
    options = dict(sorted(options.items()))
    if rest.startswith("~"):
        rest = str(Path(rest).expanduser())
    is_path = os.sep in rest or (
        not is_import_name(rest) and any(place.exists() for place in _places(rest))
    )
    if not digest and not options and not is_path:
        return None
    if (unknown := _UNKNOWN.search(rest)) and not Path(rest).exists():
        close = difflib.get_close_matches(unknown[1], OPTIONS, n=1)
        hint = f" did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"The data set {name!r} has an unknown option {unknown[1]!r};{hint} allowed: "
            f"{', '.join(OPTIONS)}."
        )
    if not digest and rest in DATASETS:
        raise ValueError(
            f"Options ({', '.join(options)}) are for data of your own, and {rest!r} is a data set "
            f"of this package; write ./{rest} for a folder of that name."
        )
    if not digest and not is_path and is_import_name(rest):
        raise ValueError(
            f"Options ({', '.join(options)}) are for files and folders; {rest!r} names a function, "
            "which must apply them itself."
        )
    if "resize" in options and not options.get("image_size", math.inf) <= options["resize"]:
        raise ValueError(
            f"The data set {name!r} resizes images to {options['resize']} pixels before it crops "
            "them to image_size, so it needs an image_size of at most that."
        )
    return OwnName(rest, options, digest[1] if digest else "")


def function_name(name: str) -> tuple[str, str]:
    """The function that a data set is named by, and the digest of its contents ("": any).

    Example:
        >>> function_name("mine:data@3f1c29d0a7b45e68")
        ('mine:data', '3f1c29d0a7b45e68')
    """
    digest = _DIGEST.search(name)
    return (name[: digest.start()], digest[1]) if digest else (name, "")


def short_name(name: str) -> str:
    """A name for files and labels: for your own data the last name of the path and the options.

    Example:
        >>> short_name("flowers,image_size=64@3f1c29d0a7b45e68")
        'flowers,image_size=64'
    """
    own = own_name(name)
    return function_name(name)[0] if own is None else own.short


def label_of(name: str) -> str:
    """What a data set is called in tables: "flowers (image_size 64, test_fraction 0.2)".

    Example:
        >>> label_of("flowers,image_size=64@3f1c29d0a7b45e68")
        'flowers (image_size 64)'
    """
    own = own_name(name)
    if own is None:
        return function_name(name)[0].rpartition(":")[2]
    options = ", ".join(f"{key} {value}" for key, value in own.options.items())
    return f"{own.last} ({options})" if options else own.last


def find(own: OwnName, folder: str | Path | None) -> Path:
    """Find the file or folder of a data set of your own.

    Args:
        own: Its name.
        folder: The file or folder itself, or a folder that contains it; None: the folder in the
            environment variable `ANALOG_SAMSON_DATA`, or `data`, or the working directory.

    Raises:
        FileNotFoundError: If there is none; the message lists the places that were looked at.

    Example:
        >>> Path("pets").mkdir()
        >>> find(own_name("pets,image_size=64"), None).name
        'pets'
    """
    looked_at = _places(own.path)
    if folder is not None and (own.digest or os.sep not in own.path):
        is_it = own.digest or Path(folder).name == own.path
        looked_at = [Path(folder) / own.path, *([Path(folder)] if is_it else [])]
    elif os.sep in own.path:
        looked_at = [Path(own.path)]
    for place in looked_at:
        if place.exists():
            return place
    raise FileNotFoundError(
        f"There is no data set {own.path!r}: looked for {', '.join(map(str, looked_at))}; pass "
        f"its path (dataset=) or the folder that contains it (data_folder=, --data-folder), or set "
        f"{FOLDER_VARIABLE} to that folder."
    )


def path_in(name: str, folder: str | Path | None) -> str:
    """The path of a data set of your own that lies in a folder; any other name as it is.

    Example:
        >>> Path("sets/flowers").mkdir(parents=True)
        >>> path_in("flowers", "sets"), path_in("digits", "sets")
        ('sets/flowers', 'digits')
    """
    if folder is None or name in DATASETS or is_import_name(name) or os.sep in name:
        return name
    path = Path(folder) / name
    return str(path) if (path.parent / path.name.partition(",")[0]).exists() else name


def place_of(name: str, folder: str | Path | None) -> str | Path | None:
    """The file or folder of a data set of your own; for any other name the folder as given.

    Raises:
        FileNotFoundError: If it is not found.

    Example:
        >>> Path("flowers").mkdir()
        >>> place_of("./flowers", None).name, place_of("digits", "sets")
        ('flowers', 'sets')
    """
    own = own_name(name)
    return folder if own is None else find(own, folder)


def data_folder() -> Path:
    """The folder of data sets where none is given."""
    return Path(os.environ.get(FOLDER_VARIABLE) or "data")


def _places(name: str) -> list[Path]:
    return [Path(name), data_folder() / name] if name else []


def _value(name: str, key: str, text: str) -> Any:
    option = OPTIONS[key]
    try:
        value = option.read(text)
    except ValueError:
        value = None
    if value is None or not option.is_allowed(value):
        raise ValueError(
            f"The data set {name!r} has {key}={text}, which is not allowed; allowed: "
            f"{option.allowed}."
        )
    return value
