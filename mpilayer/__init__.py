"""mpilayer: deep autoencoders, all layers trained at once, over MPI.

Importing this package loads neither NumPy nor MPI, so that
:mod:`mpilayer.environment` can set up the BLAS library first.
"""

__version__ = "0.1.0.dev0"
