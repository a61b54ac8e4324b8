"""Patches of images: whitening, drawing, and squeezing into a range; pure arrays.

Sources: B. A. Olshausen and D. J. Field, Nature 381 (1996) 607-609 and Vision Research
37 (1997) 3311-3325, for the whitening; the exercise "Sparse Autoencoder" of Stanford's
UFLDL tutorial, for the range.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mpilayer.arrays import Array32, row_blocks
from mpilayer.errors import ConfigError, DataError
from mpilayer.rng import stream

CUT_OFF = 0.4  # Olshausen's f0 in cycles per pixel: 0.4 × width in cycles per picture
VARIANCE = 0.1  # mean of those of whitened images
DEVIATIONS = 3  # where patches are truncated, in standard deviations


def whiten(images: Array32) -> Array32:
    """Flatten the spectrum of images (n_images, height, width), as Olshausen and Field.

    Each image's Fourier transform is multiplied by f exp(-(f/f0)⁴): the rise makes up
    for the fall of natural amplitudes with 1/f, and the cut-off removes noise and the
    corners of the square lattice. One factor for all images follows: each has mean 0,
    and the mean of their variances is 0.1. DataError: all images are constant.

    Frequencies are in cycles per pixel along either axis, and f0 = 0.4, so images need
    not be square. In square ones this is Olshausen's filter in cycles per picture with
    f0 = 0.4 × width: f differs by a constant, which the common factor takes out again.
    The transform is periodic: what lies beyond an edge is the opposite edge.
    """
    if all(image.min() == image.max() for image in images):
        raise DataError("images must have contrast to be whitened; all are constant.")
    height, width = images.shape[1:]
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    gains = f * np.exp(-((f / CUT_OFF) ** 4))
    whitened = np.empty_like(images)
    variances = np.empty(len(images))
    for i, image in enumerate(images):
        spectrum = np.fft.rfft2(image - image.mean(dtype=np.float64))
        filtered = np.fft.irfft2(spectrum * gains, image.shape)
        variances[i] = filtered.var()
        whitened[i] = filtered
    whitened *= np.float32(np.sqrt(VARIANCE / variances.mean()))
    return whitened


def n_positions(shape: tuple[int, ...], size: int) -> int:
    """Return how many patches images (n_images, height, width) can give, if any."""
    n_images, height, width = shape
    if not 1 <= size <= min(height, width):
        raise ConfigError(
            f"patches must be 1 to {min(height, width)} pixels wide, as the images are "
            f"{height} x {width}; asked for {size}. Choose another --size."
        )
    return n_images * (height - size + 1) * (width - size + 1)


def draw(
    images: Array32, size: int, n_train: int, n_validation: int, seed: int
) -> tuple[Array32, Array32]:
    """Draw square patches of images (n_images, height, width); local.

    Returns those for training (n_train, size * size), all orders of which are equally
    probable, and those for validation, from positions that no training patch has; they
    may overlap. Equal seeds draw equal patches.

    ConfigError: a size out of range, or more patches than positions.
    """
    n = n_positions(images.shape, size)
    if n_train + n_validation > n:
        raise ConfigError(
            f"{len(images)} images of {images.shape[1]} x {images.shape[2]} can give "
            f"{n} patches of {size} x {size}; asked for {n_train} and {n_validation} "
            "for validation. Ask for fewer, or take more images."
        )
    drawn = stream(seed, "patches").choice(n, n_train + n_validation, replace=False)
    return _cut(images, size, drawn[:n_train]), _cut(images, size, drawn[n_train:])


def into_range(train: Array32, validation: Array32, low: float, high: float) -> None:
    """Squeeze patches into a range, in place: the recipe of the UFLDL tutorial.

    Each patch loses its mean; what lies beyond three standard deviations is truncated;
    that interval becomes ``low`` to ``high``, and 0 its middle. The standard deviation
    is that of all pixels of ``train`` (n, size * size), for both; DataError if it is 0.
    """
    for block in (*_blocks(train), *_blocks(validation)):
        # A constant patch becomes exactly 0, whatever its mean would be rounded to.
        block -= block[:, :1].copy()
        block -= block.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    squares = (np.square(block, dtype=np.float64).sum() for block in _blocks(train))
    limit = DEVIATIONS * float(np.sqrt(sum(squares) / train.size))
    if limit == 0:
        raise DataError(
            "patches must have contrast to be squeezed into a range; all are constant."
        )
    scale, middle = np.float32((high - low) / 2 / limit), np.float32((low + high) / 2)
    for block in (*_blocks(train), *_blocks(validation)):
        block *= scale
        block += middle
        np.clip(block, np.float32(low), np.float32(high), out=block)


def _cut(images: Array32, size: int, positions: np.ndarray) -> Array32:
    windows = sliding_window_view(images, (size, size), axis=(1, 2))
    patches = np.empty((len(positions), size * size), np.float32)
    for rows in row_blocks(len(positions)):
        image, row, column = np.unravel_index(positions[rows], windows.shape[:3])
        patches[rows] = windows[image, row, column].reshape(-1, size * size)
    return patches


def _blocks(patches: Array32) -> list[Array32]:
    return [patches[rows] for rows in row_blocks(len(patches))]
