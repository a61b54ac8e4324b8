"""Data sets: sources, the HDF5 format, known downloads."""
