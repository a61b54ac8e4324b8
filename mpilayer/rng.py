"""Random streams have addresses; this is the only place that makes a generator.

A stream is addressed by what it is for, never by the rank that happens to use it or by
how many numbers were drawn before. So a run can be repeated on other ranks, replayed or
continued without a saved generator.
"""

import zlib

import numpy as np


def stream(seed: int, purpose: str, *address: int) -> np.random.Generator:
    """Return the generator at an address: equal ones give equal numbers.

    ``purpose`` is such as ``"weights"``; ``address`` is the layer, epoch and so on, not
    negative, and as many numbers for all streams of one purpose, since NumPy pads a
    short address with zeros.
    """
    # SFC64 is NumPy's fastest generator: the hidden units of contrastive divergence
    # take one number each.
    key = [seed, zlib.crc32(purpose.encode()), *address]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(key)))
