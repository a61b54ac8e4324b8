"""Communicators: one process, or MPI."""
