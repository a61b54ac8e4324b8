"""Estimators with the conventions of scikit-learn, on one process or on ranks of MPI.

``mpilayer.RBM`` and the others come from here; ``docs/estimators.md`` shows their use.
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"mpilayer's estimators need scikit-learn; it cannot be imported ({error}). "
        "Install it: pip install 'mpilayer[sklearn]'."
    ) from error

from mpilayer.estimators.arguments import SettingError
from mpilayer.estimators.base import InputError
from mpilayer.estimators.layer import RBM, Autoencoder, SparseAutoencoder
from mpilayer.estimators.stack import StackedAutoencoder

__all__ = [
    "RBM",
    "Autoencoder",
    "InputError",
    "SettingError",
    "SparseAutoencoder",
    "StackedAutoencoder",
]
