"""A keyed permutation of 0 .. n-1 that is never written down: shuffled, complete, any element in constant time."""

from __future__ import annotations

import hashlib

_ROUNDS = 4
_MASK = (1 << 64) - 1


class Permutation:
    """A Feistel network on the smallest even number of bits that holds `size`, walked until it lands inside.

    Args:
        size: number of elements, at least 1.
        key: anything json-able that names this order, for example (seed, source, epoch).

    Source: Black and Rogaway 2002 (cycle walking); four rounds of a keyed 64-bit mix. It shuffles; it is no cipher.
    """

    def __init__(self, size: int, key: tuple[int | str, ...]) -> None:
        if size < 1:
            raise ValueError(f"a permutation of {size} elements")
        self.size = size
        self._half = max(1, ((size - 1).bit_length() + 1) // 2)
        seed = hashlib.sha256(repr(key).encode()).digest()
        self._keys = [int.from_bytes(seed[8 * i : 8 * i + 8], "little") for i in range(_ROUNDS)]

    def __getitem__(self, index: int) -> int:
        """Return where element `index` of the natural order goes."""
        if not 0 <= index < self.size:
            raise IndexError(f"{index} is not in a permutation of {self.size}")
        value = self._encrypt(index)
        while value >= self.size:
            value = self._encrypt(value)
        return value

    def _encrypt(self, value: int) -> int:
        low_bits = (1 << self._half) - 1
        left, right = value >> self._half, value & low_bits
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & low_bits)
        return left << self._half | right


def _mix(x: int) -> int:
    """Scramble 64 bits (the finaliser of SplitMix64)."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


class LocalOrder:
    """A keyed order of 0 .. n-1 that touches few neighbourhoods at a time: for records that lie in shards.

    Chunks of `chunk` neighbours are permuted; each `window` chunks in that order are shuffled record by record. A
    reader then has at most `window` places (twice that many shards) open at once, however large the pool; pools of one
    window or less are permuted as a whole. Where the chunks begin changes with the key.
    """

    def __init__(self, size: int, key: tuple[int | str, ...], chunk: int = 64, window: int = 64) -> None:
        self.size = size
        self._key, self._chunk, self._window = key, chunk, window
        self._chunks = size // chunk  # whole ones; what is left over comes last
        self._whole = Permutation(size, key) if size <= chunk * window else None
        self._order = Permutation(max(1, self._chunks), (*key, "chunks"))
        self._shift = Permutation(size, (*key, "shift"))[0]
        self._inside: tuple[int, Permutation] | None = None

    def __getitem__(self, index: int) -> int:
        """Return where element `index` of the natural order goes."""
        if self._whole is not None:
            return self._whole[index]
        if not 0 <= index < self.size:
            raise IndexError(f"{index} is not in an order of {self.size}")
        if index >= self._chunks * self._chunk:
            return (index + self._shift) % self.size
        window, at = divmod(index, self._window * self._chunk)
        if self._inside is None or self._inside[0] != window:
            chunks = min(self._window, self._chunks - window * self._window)
            self._inside = window, Permutation(chunks * self._chunk, (*self._key, "window", window))
        place, offset = divmod(self._inside[1][at], self._chunk)
        first = self._order[window * self._window + place] * self._chunk
        return (first + offset + self._shift) % self.size
