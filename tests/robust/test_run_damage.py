"""A sample of what ``run_damage`` tries."""

from tests.robust.run_damage import WAYS, campaign


def test_damaged_files_of_runs(tmp_path):
    counts, wrong = campaign(tmp_path, 44, seed=0)
    assert not wrong, "\n".join(wrong)
    assert all(counts[way] for way in WAYS)
