"""Trainings in a few words; ``data`` and ``run`` are paths, all is in this process."""

from mpilayer.runs.compare import Comparison
from mpilayer.runs.finetune import Finetuning
from mpilayer.runs.pretrain import Pretraining
from mpilayer.runs.sparse import SparseTraining


def pretrain(data, run, config, session, replace=False):
    """Pre-train a stack; return the summary."""
    return Pretraining(run, session, config, data, replace).drive()


def run_finetune(run, config, session, data=None, replace=False):
    """Fine-tune a run; return the summary."""
    return Finetuning(run, session, config, data, replace).drive()


def run_sparse(data, run, config, session, replace=False):
    """Train a sparse autoencoder; return the summary."""
    return SparseTraining(run, session, config, data, replace).drive()


def run_compare(data, run, config, session, replace=False):
    """Compare both sparsity terms; return what was found."""
    return Comparison(run, session, config, data, replace).drive()
