"""Named streams of random numbers: every purpose has its own seed, derived by hashing.

Two draws that mean different things (programming, drift exponents, read noise, forward noise,
data order, ...) never share numbers, and adding a time, a method or a worker to a study changes
no other number, because a seed depends on nothing but the words it is derived from.
"""

import hashlib

SEED_BITS = 63


def derive_seed(*words: str | int | float) -> int:
    """Derive the seed of one purpose from what identifies it.

    Equal words give equal seeds on every machine; the order of the words matters. Integers and
    floats of the same value are the same word (``1`` and ``1.0``), so either may name a time.

    Args:
        *words: What identifies the stream, for example
            ``derive_seed(programming_seed, "read", "conv1", 0, 1, 3600.0, 0)``.

    Returns:
        An integer in [0, 2**63), the first 63 bits of the BLAKE2b hash of the words.
    """
    text = "\x1f".join(_spell(word) for word in words)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)


def _spell(word: str | int | float) -> str:
    if isinstance(word, float) and word.is_integer():
        word = int(word)
    return f"{type(word).__name__}:{word!r}"
