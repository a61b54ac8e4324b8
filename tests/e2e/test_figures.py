"""Pictures in places where matplotlib is set up for something else, or broken."""

import pytest

from tests.e2e.conftest import write_pixels
from tests.support.command import call, refuse, said

SPARSE = "--hidden 9 --evaluations 3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Give a folder with patches, and a run whose picture nothing disturbed."""
    folder = tmp_path_factory.mktemp("figures")
    write_pixels(folder / "patches.h5", n_columns=16)
    said(folder, f"sparse patches.h5 --run plain {SPARSE}", apart=True)
    said(folder, "report plain -o plain.html", apart=True)
    return folder


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.x", "nonsense"])
def test_the_settings_of_others(folder, tmp_path, backend):
    settings = tmp_path / "matplotlibrc"
    settings.write_text("text.usetex: True\nbackend: qtagg\nfigure.dpi: 7\n")
    variables = {"MPLBACKEND": backend, "MATPLOTLIBRC": str(settings)}
    run, page = tmp_path / "run", tmp_path / "page.html"
    line = f"sparse patches.h5 --run {run} {SPARSE}"
    text = said(folder, line, variables=variables)
    assert f"Filters: {run / 'filters.png'}" in text
    said(folder, f"report plain -o {page}", variables=variables)
    picture = (folder / "plain" / "filters.png").read_bytes()
    assert (run / "filters.png").read_bytes() == picture
    paths = (folder / "plain.html").read_text().count("<path")
    assert page.read_text().count("<path") == paths > 0


def test_a_picture_that_fails_does_not_fail_the_run(folder, tmp_path):
    broken, run = tmp_path / "matplotlibrc", tmp_path / "run"
    broken.write_bytes(b"\xff\xfe")
    variables = {"MATPLOTLIBRC": str(broken)}
    line = f"sparse patches.h5 --run {run} {SPARSE}"
    made = call(folder, line, variables=variables).ok()
    assert "matplotlib must be able to draw" in made.stderr
    assert "there is no picture of the filters" in made.stderr
    assert f"Filters: {run / 'filters.npy'}" in made.stdout
    assert (run / "complete").read_text().split() == ["sparse"]
    words = "matplotlib must be able to draw"
    refuse(tmp_path, "report run -o page.html", words, variables=variables)
