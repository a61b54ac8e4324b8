"""Pictures in places where matplotlib is set up for something else, or broken."""

import pytest

from tests.e2e.conftest import write_pixels
from tests.support import launch

OPTIONS = ("--hidden", 9, "--evaluations", 3)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Give a data set of square patches."""
    return write_pixels(tmp_path_factory.mktemp("data") / "patches.h5", n_columns=16)


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.x", "nonsense"])
def test_the_settings_of_others(patches, tmp_path, backend):
    settings = tmp_path / "matplotlibrc"
    settings.write_text("text.usetex: True\nbackend: qtagg\nfigure.dpi: 7\n")
    pictures, pages = [], []
    for variables in ({"MPLBACKEND": backend, "MATPLOTLIBRC": str(settings)}, None):
        run, page = (tmp_path / f"{len(pages)}{name}" for name in ("", ".html"))
        given = ("sparse", patches, "--run", run, *OPTIONS)
        made = launch.run(*given, variables=variables).ok()
        assert f"Filters: {run / 'filters.png'}" in made.stdout
        launch.run("report", tmp_path / "0", "-o", page, variables=variables).ok()
        pictures.append((run / "filters.png").read_bytes())
        pages.append(page.read_text().count("<path"))
    assert pictures[0] == pictures[1]
    assert pages[0] == pages[1] > 0


def test_a_picture_that_fails_does_not_fail_the_run(patches, tmp_path):
    broken = tmp_path / "matplotlibrc"
    broken.write_bytes(b"\xff\xfe")
    run, variables = tmp_path / "run", {"MATPLOTLIBRC": str(broken)}
    made = launch.run("sparse", patches, "--run", run, *OPTIONS, variables=variables)
    text = " ".join(made.ok().stderr.split())
    assert "matplotlib must be able to draw" in text
    assert "there is no picture of the filters" in text
    assert f"Filters: {run / 'filters.npy'}" in made.stdout
    assert (run / "complete").read_text().split() == ["sparse"]
    out = tmp_path / "page.html"
    failed = launch.run("report", run, "-o", out, variables=variables)
    launch.assert_user_error(failed, "matplotlib must be able to draw")
