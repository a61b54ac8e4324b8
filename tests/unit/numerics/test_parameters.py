"""One vector with named views."""

import hashlib

import numpy as np
import pytest

from mpilayer.numerics.parameters import Parameters

SHAPES = {"weights": (2, 3), "bias": (3,), "more": (4, 1)}


@pytest.fixture
def parameters():
    """Give parameters that count from 0."""
    found = Parameters(SHAPES)
    found.vector[:] = np.arange(13)
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_new_ones_are_zero_and_of_one_type(dtype):
    found = Parameters(SHAPES, dtype)
    for parameters in (found, found.like(), found.copy()):
        assert not parameters.vector.any()
        assert parameters.vector.dtype == dtype
        assert {view.dtype for _, view in parameters.items()} == {np.dtype(dtype)}


def test_views_lie_in_the_vector_in_order(parameters):
    assert list(parameters) == [name for name, _ in parameters.items()] == list(SHAPES)
    assert parameters["weights"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert parameters["bias"].tolist() == [6, 7, 8]
    for name, view in parameters.items():
        assert view is parameters[name]
        assert view.shape == SHAPES[name]
        assert np.shares_memory(view, parameters.vector)
    parameters["more"][:] = -1
    assert parameters.vector[9:].tolist() == [-1] * 4
    parameters.vector[6] = 50
    assert parameters["bias"][0] == 50


def test_span(parameters):
    assert parameters.span("weights") == slice(0, 6)
    assert parameters.span("weights", "bias") == slice(0, 9)
    assert parameters.span("bias", "more") == slice(6, 13)


def test_copies_are_independent(parameters):
    twin, empty = parameters.copy(), parameters.like()
    assert twin.shapes == empty.shapes == SHAPES
    assert not empty.vector.any()
    assert twin.digest() == parameters.digest()
    twin["bias"][0] = 0
    assert parameters["bias"][0] == 6


def test_digest_tells_bits(parameters):
    digest = parameters.digest()
    assert digest == hashlib.sha256(parameters.vector.tobytes()).hexdigest()
    parameters["weights"][0, 0] = -0.0
    assert parameters.digest() != digest
    parameters["weights"][0, 0] = 0.0
    assert parameters.digest() == digest


def test_vectors_in_named_pieces(parameters):
    other = parameters.vector + 20
    pieces = parameters.split({"now": parameters.vector, "best": other})
    assert list(pieces) == [f"{group}/{k}" for group in ("now", "best") for k in SHAPES]
    np.testing.assert_array_equal(pieces["now/weights"], parameters["weights"])
    back = {"best": np.zeros(13), "now": np.zeros(13)}
    parameters.vector[:] = other[:] = -1
    parameters.join(pieces, back)
    assert (back["now"].tolist(), back["best"][0]) == ([*range(13)], 20)
