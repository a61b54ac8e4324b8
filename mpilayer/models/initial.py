"""A stack as it is before the first epoch of fine-tuning."""

from collections.abc import Sequence

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.config import FinetuneConfig
from mpilayer.models.base import LayerShape
from mpilayer.models.stack import DeepAutoencoder, Predictor, Stack
from mpilayer.rng import stream

_GAINS = {"sigmoid": 4.0, "relu": 2.0**0.5}


def first_stack(
    config: FinetuneConfig,
    shapes: Sequence[LayerShape],
    pretrained: DeepAutoencoder | None = None,
    labels: AnyArray | None = None,
    classes: AnyArray | None = None,
) -> Stack:
    """Return what is going to be trained, as it is before the first epoch.

    It begins with what is ``pretrained``, if anything. With ``labels``, those of all
    training rows, it predicts them, or which of the ``classes`` they are.
    """
    if labels is None or classes is None:
        if pretrained is not None:
            return pretrained
        stack = DeepAutoencoder(shapes)
        random_weights(stack, config.seed)
        return stack
    model = Predictor(shapes, classes)
    random_weights(model, config.seed, 0 if pretrained is None else len(shapes))
    if pretrained is not None:
        model.take_encoder(pretrained)
    if not len(classes):
        # Numbers may lie far from zero; the weights are for what differs.
        model.parameters[f"bias_{len(shapes)}"][:] = labels.mean(dtype=np.float64)
    return model


def random_weights(stack: Stack, seed: int, first: int = 0) -> None:
    """Give the steps from ``first`` on random weights, and biases of zero.

    Notes
    -----
    Normal, variance g² · 2 / (inputs + outputs): Glorot and Bengio 2010. The gain g is
    that of the step's activation: 4 for sigmoid, whose slope is ¼ at zero; √2 for relu.
    """
    for k, (n_in, n_out, kind) in list(enumerate(stack.steps))[first:]:
        deviation = _GAINS.get(kind, 1.0) * np.sqrt(2 / (n_in + n_out))
        drawn = stream(seed, "finetune weights", k).standard_normal((n_in, n_out), "f")
        np.multiply(drawn, np.float32(deviation), out=stack.parameters[f"weights_{k}"])
        stack.parameters[f"bias_{k}"][:] = 0
