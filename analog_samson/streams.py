"""Independent random streams: every purpose has its own seed, derived by hashing.

Draws for different purposes (programming, drift exponents, read noise, forward noise, data order,
...) never share random numbers. A seed depends only on the words it is derived from, so that adding
a time, a method or a worker to a study changes no other random number.
"""

import hashlib

SEED_BITS = 63


def derive_seed(*words: str | int | float) -> int:
    """Derive the random seed of a purpose from words that identify it.

    Equal words give equal seeds on every machine; the order of the words matters. Integers and
    floats of the same value are the same word (``1`` and ``1.0``), so either may name a time.

    Args:
        *words: What identifies the stream, for example
            ``derive_seed(programming_seed, "read", "conv1", 0, 1, 3600.0, 0)``.

    Returns:
        An integer in [0, 2**63), the first 63 bits of the BLAKE2b hash of the words.
    """
    return _hashed(_spelled(words))


class Stream:
    """Seeds of words that begin alike: ``Stream(a, b)(c) == derive_seed(a, b, c)``.

    Args:
        *words: The first words.
    """

    def __init__(self, *words: str | int | float) -> None:
        self._text = _spelled(words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __call__(self, *words: str | int | float) -> int:
        """Derive the seed of the first words and these."""
        return _hashed(f"{self._text}\x1f{_spelled(words)}")


def _hashed(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)


def _spelled(words: tuple[str | int | float, ...]) -> str:
    return "\x1f".join(map(_spell, words))


def _spell(word: str | int | float) -> str:
    if isinstance(word, float) and word.is_integer():
        word = int(word)
    return f"{type(word).__name__}:{word!r}"
