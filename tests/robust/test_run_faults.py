"""A sample of what ``run_faults`` tries: chosen calls of every kind, in every mode."""

import pytest

from tests.robust.run_faults import Fault, Place

FAULTS = [
    Fault("pretrain", 0, 0, "write", "ENOSPC", 6),
    Fault("pretrain", 0, 0, "write", "ENOSPC", 9, lasting=True),
    Fault("pretrain", 2, 0, "write", "EIO", 5, lasting=True),
    Fault("pretrain", 2, 1, "open", "EMFILE", 20),
    Fault("pretrain", 2, 1, "fsync", "EROFS", 3, lasting=True),
    Fault("pretrain", 0, 0, "unlink", "EIO", 12, lasting=True),
    Fault("teams", 3, 0, "write", "ENOSPC", 9, lasting=True),
    Fault("finetune", 0, 0, "rename", "EIO", 3),
    Fault("finetune", 2, 1, "read", "EMFILE", 9),
    Fault("finetune", 2, 0, "open", "EROFS", 30, lasting=True),
    Fault("finetune", 0, 0, "write", "ENOSPC", 9, lasting=True),
    Fault("sparse", 0, 0, "write", "ENOSPC", 4, lasting=True),
    Fault("sparse", 2, 1, "read", "EIO", 12),
    Fault("compare", 0, 0, "open", "EIO", 5),
    Fault("compare", 0, 0, "fsync", "EIO", 6),
    Fault("run", 0, 0, "open", "ENFILE", 60),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Give a folder with data and the shim."""
    return Place(tmp_path_factory.mktemp("faults").resolve() / "place")


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_call_that_is_refused(place, fault):
    counts = place.counts(fault.mode, fault.ranks)
    assert counts[fault.rank][fault.kind] >= fault.call, counts
    assert place.try_one(fault) in ("right", "resumed")


def test_two_ranks_on_a_full_disk_have_one_message(place):
    """Each of them finds it, in the same epoch."""
    settings = {"KIND": "fsync", "CALL": 3, "ERRNO": 28, "LASTING": 1, "RANK": "all"}
    for _ in range(2):
        place.prepare("pretrain")
        result = place.launch("pretrain", 2, **settings)
        assert result.code == 2, str(result)
        assert result.stderr.count("mpilayer: error:") == 1, str(result)
        assert "no space left on device" in result.stderr
    again = place.launch("pretrain", 2, "--resume", "auto").ok()
    assert not place.differences("pretrain", 2), str(again)
