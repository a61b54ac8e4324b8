"""The world of ranks that ``mpiexec -n N python -m pytest --with-mpi`` gives."""

import sys

import pytest

from tests.support.together import FailedTogether


@pytest.fixture(scope="session")
def world(request):
    """Give the communicator of all ranks, one BLAS thread each."""
    if not request.config.getoption("--with-mpi", default=False):
        pytest.skip("needs pytest-mpi and its --with-mpi")
    pytest.importorskip("mpi4py", reason="needs mpi4py")
    # Only here: what runs without --with-mpi never loads MPI.
    from mpilayer.parallel import mpi
    from mpilayer.parallel.start import place

    comm = mpi.world()
    place(comm, 1)
    return comm


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """End all ranks when one fails alone: the others would wait for it for ever."""
    report = yield
    failed_alone = report.failed and not isinstance(call.excinfo.value, FailedTogether)
    if failed_alone and "world" in item.funcargs:
        comm = item.funcargs["world"]
        where = f"rank {comm.rank}, {item.nodeid}"
        sys.__stderr__.write(f"{where}:\n{report.longreprtext}\n")
        sys.__stderr__.flush()
        from mpilayer.parallel import mpi

        mpi.abort(1)
    return report
