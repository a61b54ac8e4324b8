"""Losses of what a stack puts out: the value, and the derivative for the last layer."""

import numpy as np

from mpilayer.arrays import AnyArray, Array32, Array64
from mpilayer.errors import ConfigError, unknown
from mpilayer.numerics.activations import Activation

LOSSES = ("squared", "cross-entropy")
SOFTMAX = "softmax"
"""The loss of a classifier: the cross entropy of the softmax of a linear output."""

# Probabilities are kept this far from 0 and 1 inside logarithms.
_EPSILON = np.float32(1e-7)


def check_loss(name: str, output: str) -> None:
    """Check that a loss exists and fits the activation of the output.

    Raises
    ------
    ConfigError
        Unknown loss; cross entropy of an output that is not a probability.
    """
    if name not in LOSSES:
        raise ConfigError(unknown("loss", name, LOSSES))
    if name == "cross-entropy" and output != "sigmoid":
        raise ConfigError(
            f"cross entropy needs a sigmoid output, a probability; found {output}. "
            "Use the squared loss, or a sigmoid output."
        )


def squared_error(target: Array32, output: Array32) -> float:
    """Return Σ (target − output)² over all rows and columns, summed in float64."""
    return float(_squares(target, output).sum(dtype=np.float64))


def _squares(target: Array32, output: Array32) -> Array32:
    difference = target - output
    # A row in float32, as fast as a dot product; over all rows that would lose digits.
    per_row: Array32 = np.einsum("...j,...j->...", difference, difference)
    return per_row


def _cross_entropy(target: Array32, output: Array32) -> Array64:
    """Return −Σ (t ln y + (1−t) ln(1−y)) in nats, of each row."""
    y = np.clip(output, _EPSILON, 1 - _EPSILON)
    terms = target * np.log(y) + (1 - target) * np.log1p(-y)
    # While it converts numbers, NumPy adds up across the ends of rows.
    per_row: Array64 = -terms.astype(np.float64).sum(axis=1)
    return per_row


def softmax(scores: Array32, out: Array32) -> None:
    """Write exp(z_j) / Σ_k exp(z_k) of each row z of ``scores`` into ``out``."""
    np.subtract(scores, scores.max(axis=1, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=1, keepdims=True)


def _softmax_cross_entropy(target: Array32, scores: Array32) -> Array32:
    """Return −Σ t ln softmax(z) in nats, of each row; each row of t sums up to 1."""
    above = scores - scores.max(axis=1, keepdims=True)
    per_row: Array32 = np.log(np.exp(above).sum(axis=1))
    per_row -= np.einsum("ij,ij->i", target, above)
    return per_row


def row_losses(name: str, target: Array32, output: Array32) -> AnyArray:
    """Return the loss of each row (n_samples,), whatever rows are beside it."""
    if name == SOFTMAX:
        return _softmax_cross_entropy(target, output)
    if name == "squared":
        return _squares(target, output)
    return _cross_entropy(target, output)


def output_delta(
    name: str, target: Array32, output: Array32, activation: Activation, out: Array32
) -> None:
    """Write ∂(summed loss)/∂z of the output layer into ``out``; y = activation(z)."""
    if name == SOFTMAX:
        softmax(output, out)
        out -= target  # softmax(z) − t
        return
    np.subtract(output, target, out=out)  # y − t: logarithms cancel the sigmoid's slope
    if name == "squared":
        out *= 2
        activation.times_slope(output, out)  # 2 (y − t) f′


def kl_divergence(target: float, p: Array64) -> Array64:
    """Return KL(ρ‖p) = ρ ln(ρ/p) + (1−ρ) ln((1−ρ)/(1−p)) in nats, elementwise.

    Infinite where p is 0 or 1. Lahiri et al. 2010 §2; ρ is ``target``, in (0, 1).
    """
    with np.errstate(divide="ignore"):
        gone = (1 - target) * (np.log1p(-target) - np.log1p(-p))
        result: Array64 = target * (np.log(target) - np.log(p)) + gone
    return result


def kl_slope(target: float, p: Array64) -> Array64:
    """Return ∂KL(ρ‖p)/∂p, elementwise; infinite where p is 0 or 1."""
    with np.errstate(divide="ignore"):
        result: Array64 = (1 - target) / (1 - p) - target / p
    return result


def kl_curvature(target: float, p: Array64) -> Array64:
    """Return ∂²KL(ρ‖p)/∂p², elementwise; infinite where p is 0 or 1."""
    with np.errstate(divide="ignore"):
        result: Array64 = (1 - target) / (1 - p) ** 2 + target / p**2
    return result
