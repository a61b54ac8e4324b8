"""Optimizers: minibatch descent with momentum, Adam."""
