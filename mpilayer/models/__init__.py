"""Layers and stacks of layers: encode, decode, gradient."""
