"""Arithmetic on arrays: activations, losses, parameter vectors."""
