"""Benchmarks: ratios from paired runs on one machine, never absolute times alone."""
