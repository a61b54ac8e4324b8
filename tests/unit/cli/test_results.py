"""What is shown at the end of a sweep."""

from types import SimpleNamespace

import pytest

from mpilayer.cli import results

MEANS = ["3 of 3", "25.999 ± 0.085", "26.112 ± 0.082", "26.42 ± 0.10"]


@pytest.mark.parametrize(
    ("name", "whole"), [("learning_rate=0.003", True), (f"a={'b' * 90}", False)]
)
def test_a_setting_has_one_line_if_it_is_short(
    tmp_path, monkeypatch, capsys, name, whole
):
    row = SimpleNamespace(state="complete")
    table = SimpleNamespace(by="validation", measure="error", few=False, causes=())
    table.rows, table.settings, table.pairs, table.to_json = [row] * 2, [0], (), dict
    head = ["setting", "done", "train", "validation", "test"]
    for function, found in (
        ("table_of", lambda plan: table),
        ("runs_in_words", lambda table: (["run"], [["a"], ["b"]])),
        ("settings_in_words", lambda table: (head, [[name, *MEANS]])),
    ):
        monkeypatch.setattr(results.sweeps, function, found)
    monkeypatch.setenv("COLUMNS", "80")
    results.show_sweep(SimpleNamespace(path=tmp_path / "none"))
    lines = capsys.readouterr().out.splitlines()
    assert any(name in line for line in lines) == whole
    # Of what is folded nothing is lost, and no line is longer than the terminal.
    assert "".join(lines).count("b") >= name.count("b")
    assert all(len(line) <= 80 for line in lines[:-1])
