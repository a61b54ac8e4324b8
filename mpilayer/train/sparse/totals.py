"""Sums over blocks of rows that are the same to the bit, whoever works on which block.

Sums of floating-point numbers depend on their order, and so on the number of ranks;
sums of integers do not. Every number that a block gives is written as an integer, in
units that the largest of that number over all blocks decides; and which is the largest
does not depend on any order either.
"""

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from mpilayer.arrays import AnyArray, Array64
from mpilayer.train.sums import Sums

Exponents = npt.NDArray[np.int16]
Integers = npt.NDArray[np.int64]

# A sum of integers has that many bits at most: one is the sign's, one is spare.
_BITS = 62
# Units are powers of two in float64, whose inverse is one, too.
_FINEST = 1000
_ZERO, _INFINITY, _NAN = -1100, 2000, 2001
# Where a part is infinite, the blocks with +∞ are counted, and those with −∞ in the
# bits above: there are never so many.
_MINUS = 1 << 31


def exponents(parts: AnyArray, of: Sequence[int], n_sums: int) -> Exponents:
    """Return the least e with |part| < 2^e, of each number of each sum. Local.

    This rank's blocks add ``parts`` (n_blocks, size), each to the one of ``n_sums``
    sums that it is ``of``. In the result (n_sums, size) zeros have one below all
    others, infinities and NaN one above.
    """
    largest = np.zeros((n_sums, parts.shape[1]), parts.dtype)
    start = 0
    for sum_of, run in groupby(of):
        stop = start + len(list(run))
        some, own = parts[start:stop], largest[sum_of]
        np.maximum(own, some.max(axis=0), out=own)
        np.maximum(own, -some.min(axis=0), out=own)
        start = stop
    _, found = np.frexp(largest)
    found[largest == 0] = _ZERO
    if not np.isfinite(largest).all():
        found[np.isinf(largest)] = _INFINITY
        found[np.isnan(largest)] = _NAN
    return found.astype(np.int16)


def integers(
    parts: AnyArray, of: Sequence[int], found: Exponents, n_blocks: int
) -> Integers:
    """Return the sums over this rank's blocks, in units of ``found``. Local.

    ``found`` (n_sums, size) are the largest ``exponents`` of all ranks; there is room
    for the ``n_blocks`` of all, so no sum overflows. The unit is 2^−62 of the largest
    part, times that room: 2^−56 for 64 blocks, where the largest part itself has 24
    (float32) or 53 bits.
    """
    units = np.ldexp(1.0, _shifts(found, n_blocks))
    sums = np.zeros(found.shape, np.int64)
    scaled, whole = np.empty(found.shape[1]), np.empty(found.shape[1], np.int64)
    # What is not finite becomes any integer here.
    with np.errstate(invalid="ignore"):
        for part, sum_of in zip(parts, of, strict=True):
            np.multiply(part, units[sum_of], out=scaled)
            np.copyto(whole, scaled, casting="unsafe")  # cuts off what is below a unit
            sums[sum_of] += whole
    infinite = found == _INFINITY
    if infinite.any():
        sums[infinite] = 0
        for part, sum_of in zip(parts, of, strict=True):
            where = infinite[sum_of]
            own = part[where]
            sums[sum_of, where] += (own == np.inf) + _MINUS * (own == -np.inf)
    return sums


def values(sums: Integers, found: Exponents, n_blocks: int) -> Array64:
    """Return what sums over all ranks mean; infinite or NaN if a part was. Local.

    Infinities of both signs add up to NaN.
    """
    units: Array64 = np.ldexp(1.0, -_shifts(found, n_blocks))
    with np.errstate(over="ignore"):
        result = sums * units
    if found.max(initial=_ZERO) >= _INFINITY:
        infinite = found == _INFINITY
        minus, plus = np.divmod(sums[infinite], _MINUS)
        signs = np.where(minus, np.where(plus, np.nan, -1), 1)
        result[infinite] = signs * np.inf
        result[found == _NAN] = np.nan
    return result


def _shifts(found: Exponents, n_blocks: int) -> npt.NDArray[np.int32]:
    """Return the logarithms of units in a number 1."""
    room = (n_blocks - 1).bit_length()
    return np.clip(_BITS - room - found.astype(np.int32), -_FINEST, _FINEST)


def own_total(parts: AnyArray, of: Sequence[int], shape: tuple[int, int]) -> Array64:
    """Return the sums of which this rank has all blocks. Local.

    They are those of ``start_total`` to the bit; the others are of no use.
    """
    found = exponents(parts, of, shape[0])
    return values(integers(parts, of, found, shape[1]), found, shape[1])


def start_total(
    sums: Sums,
    parts: AnyArray,
    of: Sequence[int],
    shape: tuple[int, int],
    then: Callable[[Array64, int], object],
    votes: int = 0,
) -> None:
    """Start adding the parts of all ranks up. Collective; nothing else is under way.

    ``sums.finish()`` waits for it; ``parts`` and ``of`` as ``exponents`` takes them,
    ``shape`` says how many sums there are, and of how many blocks of all ranks.
    ``then`` gets the sums (n_sums, size), and those of the ``votes`` of all ranks.
    """
    n_sums, n_blocks = shape
    found = exponents(parts, of, n_sums)

    def add() -> None:
        message = np.empty(found.size + 1, np.int64)
        message[:-1] = integers(parts, of, found, n_blocks).reshape(-1)
        message[-1] = votes

        def done() -> None:
            total = message[:-1].reshape(found.shape)
            then(values(total, found, n_blocks), int(message[-1]))

        sums.start(message, done)

    sums.start(found, add, largest=True)
