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
