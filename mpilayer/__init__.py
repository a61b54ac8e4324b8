"""mpilayer: deep autoencoders, all layers trained at once, over MPI.

Importing this package loads neither NumPy nor MPI, so that
:mod:`mpilayer.environment` can set up the BLAS library first. ``RBM``, ``Autoencoder``,
``StackedAutoencoder`` and ``SparseAutoencoder`` load :mod:`mpilayer.estimators`, and
with it scikit-learn, when they are asked for.
"""

from importlib import import_module

__version__ = "0.1.0.dev0"

_ESTIMATORS = ("RBM", "Autoencoder", "SparseAutoencoder", "StackedAutoencoder")


def __getattr__(name: str) -> type:
    """Return an estimator; without scikit-learn the error says what to install."""
    if name not in _ESTIMATORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: type = getattr(import_module("mpilayer.estimators"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_ESTIMATORS})
