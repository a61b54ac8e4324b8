"""Whitening, drawing and squeezing patches."""

import numpy as np
import pytest

from mpilayer.data.patches import draw, into_range, n_positions, whiten
from mpilayer.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def natural(n, height, width):
    """Return images with the spectrum of natural ones, offset and all."""
    sums = RNG.normal(size=(n, height, width)).cumsum(1).cumsum(2)
    return (sums + 3).astype(np.float32)


def plain_whitening(images):
    """Transcribe the recipe, with frequencies in cycles per pixel."""
    _, height, width = images.shape
    rho = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.fftfreq(width))
    gains = rho * np.exp(-((rho / 0.4) ** 4))
    transforms = [np.fft.fft2(image.astype(float)) * gains for image in images]
    whitened = np.array([np.fft.ifft2(transform).real for transform in transforms])
    return whitened * np.sqrt(0.1 / np.mean([image.var() for image in whitened]))


@pytest.mark.parametrize("shape", [(16, 16), (33, 33), (24, 40), (41, 24)])
def test_whitening(shape):
    images = natural(3, *shape)
    images[1] *= 5
    before = images.copy()
    whitened = whiten(images)
    np.testing.assert_array_equal(images, before)
    assert whitened.dtype == np.float32
    np.testing.assert_allclose(whitened, plain_whitening(images), atol=1e-5)


def numbered(n, height, width):
    """Return images whose pixels know their place."""
    count = n * height * width
    return np.arange(count, dtype=np.float32).reshape(n, height, width)


def test_patches_are_slices_of_the_images():
    images = numbered(3, 9, 7)
    train, validation = draw(images, 4, 30, 10, seed=5)
    assert (train.shape, validation.shape) == ((30, 16), (10, 16))
    assert train.dtype == validation.dtype == np.float32
    for patch in (*train, *validation):
        i, row, column = np.unravel_index(int(patch[0]), images.shape)
        expected = images[i, row : row + 4, column : column + 4]
        np.testing.assert_array_equal(patch.reshape(4, 4), expected)


@pytest.mark.parametrize(("height", "width", "size"), [(6, 5, 3), (4, 4, 4), (3, 2, 1)])
def test_every_position_is_drawn_once(height, width, size):
    images = numbered(4, height, width)
    possible = images[:, : height - size + 1, : width - size + 1].ravel()
    assert n_positions(images.shape, size) == possible.size
    patches = np.concatenate(draw(images, size, possible.size - 1, 1, seed=0))
    assert sorted(patches[:, 0]) == sorted(possible)


@pytest.mark.parametrize(
    ("size", "numbers", "message"),
    [
        *((2, n, "18 patches of 2 x 2") for n in ((19, 0), (18, 1), (10**12, 0))),
        *((size, (1, 0), f"are 4 x 4; asked for {size}") for size in (-1, 0, 5)),
    ],
)
def test_numbers_out_of_range(size, numbers, message):
    with pytest.raises(ConfigError, match=message):
        draw(numbered(2, 4, 4), size, *numbers, seed=0)


def plain_range(patches, train, low, high):
    """Transcribe UFLDL's normalizeData."""
    centred = patches - patches.mean(axis=1, keepdims=True)
    limit = 3 * (train - train.mean(axis=1, keepdims=True)).std()
    return (np.clip(centred, -limit, limit) / limit + 1) * (high - low) / 2 + low


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (-1, 1), (0, 1)])
def test_range(low, high):
    # More rows than a block, values beyond three deviations, other means.
    train = RNG.standard_t(3, (5000, 16)).astype(np.float32) + 7
    validation = 2 * RNG.standard_t(3, (100, 16)).astype(np.float32)
    expected = [
        plain_range(patches.astype(float), train.astype(float), low, high)
        for patches in (train, validation)
    ]
    into_range(train, validation, low, high)
    for patches, plain in zip((train, validation), expected, strict=True):
        np.testing.assert_allclose(patches, plain, atol=2e-6)
    assert train.dtype == np.float32
    assert (train.min(), train.max()) == (np.float32(low), np.float32(high))


def test_constant_images_and_patches():
    images = np.full((2, 8, 8), 0.1, np.float32)
    train = images[0] * np.arange(1, 9, dtype=np.float32)[:, np.newaxis]
    for work in (lambda: whiten(images), lambda: into_range(train, train[:0], 0, 1)):
        with pytest.raises(DataError, match="must have contrast"):
            work()
    images[1] = natural(1, 8, 8)
    assert abs(whiten(images)[0]).max() < 1e-6
