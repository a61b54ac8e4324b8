"""Sweeps: an experiment for each seed and each of several settings, and their table."""
