"""What rows, weights and codes look like: pictures of all kinds of runs."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.report import figures
from mpilayer.report.figures import Chart
from mpilayer.report.html import Figure, Part, note
from mpilayer.report.run import Run
from mpilayer.report.sample import Sample
from mpilayer.report.words import ERROR, count

_MOST_FILTERS = 100


def as_images(rows: AnyArray, run: Run) -> AnyArray | None:
    """Return rows (n, n_visible) as images, None if those of the run are none."""
    size = run.image_size
    return rows.reshape(-1, size, size) if size * size == rows.shape[1] else None


def reconstructions(runs: Sequence[Run], name: str) -> Iterator[Part]:
    """Yield Figure 5 of Santara et al. 2016 for each data set, by name and number.

    A line says which data have no images, here and in the sections on each run.
    """
    tables = [run for run in runs if run.weights is not None and not run.image_size]
    if tables:
        of = dict.fromkeys(str(run.section("data").get("name")) for run in tables)
        yield note(
            f"The rows of {', '.join(of)} are not square images, so there are no "
            "pictures of reconstructions and of what hidden units respond to."
        )
    groups: dict[str, list[tuple[Run, Sample]]] = {}
    for run in runs:
        if run.sample is not None:
            groups.setdefault(run.sample.digest, []).append((run, run.sample))
    for place, some in enumerate(groups.values(), start=1):
        yield from _compared(some, f"{name}-{place}")


def first_layer(run: Run) -> Iterator[Figure]:
    """Yield the first layer's weights as images: Figure 2.3.1 of Lahiri et al. 2010."""
    images = None if run.weights is None else as_images(run.weights.T, run)
    if images is None:
        return
    n, height, width = images.shape
    title, alt = "Filters", f"Filters of {n} hidden units of {run.name}, in grey"
    says = (
        f"The input of norm 1 that each of the {n} hidden units responds to most, "
        f"{height} × {width} pixels"
    )
    if run.kind == "deep":
        images = images[:_MOST_FILTERS]
        of = "first " if len(images) < n else ""
        title = "First-layer filters"
        says = (
            f"Weights from the {height} × {width} inputs to each of the {of}"
            f"{len(images)} of {n} hidden units"
        )
        alt = f"Weights of {len(images)} hidden units of {run.name}, as grey images"
    says = f"{says}; grey is 0, each tile has its own scale."
    picture = figures.tiles(images, alt, signed=True)
    yield Figure(f"filters-{run.place}", title, says, [picture])


def code_space(run: Run) -> Iterator[Figure]:
    """Yield where the rows lie in the space of codes."""
    if run.sample is None or run.sample.codes.shape[1] < 2:
        return
    codes = run.sample.codes.astype(np.float64)
    how, axes = "", ("first code unit", "second code unit")
    if codes.shape[1] > 2:
        how = f" on the first two principal components of {codes.shape[1]} code units"
        codes, shares = _principal(codes)
        axes = (
            f"first component ({shares[0]:.0%} of the variance)",
            f"second component ({shares[1]:.0%})",
        )
    labels, classes = run.sample.labels, run.sample.classes
    shown = "each drawn as its label"
    if labels is None:
        shown = "without labels"
    elif labels.dtype.kind == "f":
        shown = "each coloured by its label, which is a number"
    elif classes:
        shown += f" ({', '.join(f'{k}: {name}' for k, name in enumerate(classes))})"
    says = (
        f"Codes of {len(codes)} {run.sample.split} rows{how}, {shown}, by the encoder "
        f"of the {run.sample.model}, in the units of the code."
    )
    alt = f"Codes of {len(codes)} rows of {run.name}, {shown}"
    chart = Chart(f"codes-{run.place}", "Code space", says, (), *axes, alt)
    yield chart.scatter(codes[:, 0], codes[:, 1], labels)


def _compared(some: Sequence[tuple[Run, Sample]], name: str) -> Iterator[Figure]:
    run, first = some[0]
    known = [sample.pca is not None for _, sample in some]
    lacks = " (not where the code is as wide as the rows, or PCA takes long)"
    pca = (
        "; PCA: what as many principal components as code units make of them"
        f"{'' if all(known) else lacks}"
    )
    pictures = []
    for label, rows in _panels(some):
        images = as_images(_greys(rows, first.originals), run)
        if images is None:
            return
        error = np.square(rows - first.originals, dtype=np.float64).sum(axis=1).mean()
        of = f"\nerror {error:.2f}" if rows is not first.originals else ""
        columns = math.ceil(math.sqrt(len(images)))
        alt = f"{label}: {len(images)} images in rows of {columns}"
        pictures.append(figures.tiles(images, alt, f"{label}{of}"))
    title = "Originals beside their reconstructions"
    says = (
        f"{len(first.originals)} {first.split} rows from all over {first.data!r}, in "
        f"the same places in every panel, with the error on these rows ({ERROR})"
        f"{pca if any(known) else ''}."
    )
    yield Figure(name, title, says, pictures, "tiles")


def _greys(rows: Any, originals: Any) -> Any:
    """Return rows from 0 to 1: as they are, or about grey on the originals' scale."""
    if originals.min() >= 0 and originals.max() <= 1:
        return rows
    return 0.5 + rows / (2 * (np.quantile(np.abs(originals), 0.99) or 1.0))


def _panels(some: Sequence[tuple[Run, Sample]]) -> Iterator[tuple[str, Any]]:
    yield "originals", some[0][1].originals
    by_components = {s.codes.shape[1]: s.pca for _, s in some if s.pca is not None}
    for n, rows in sorted(by_components.items()):
        yield f"PCA, {count(n, 'component')}", rows
    for run, sample in some:
        for model, rows in sample.reconstructions.items():
            yield f"{run.name}, {model}", rows


def _principal(codes: Any) -> tuple[Any, list[float]]:
    """Return codes on their two first principal components, and their shares."""
    centred = codes - codes.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    total = float((sizes**2).sum()) or 1.0
    return left[:, :2] * sizes[:2], [float(s) ** 2 / total for s in sizes[:2]]
