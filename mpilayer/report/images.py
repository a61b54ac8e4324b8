"""What rows, weights and codes look like: pictures of all kinds of runs."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mpilayer.arrays import AnyArray
from mpilayer.report import figures
from mpilayer.report.figures import Chart
from mpilayer.report.html import Figure, Part, Picture, note
from mpilayer.report.run import Run, Sample
from mpilayer.report.words import ERROR

_MOST_FILTERS = 100


def as_images(rows: AnyArray, run: Run) -> AnyArray | None:
    """Return rows (n, n_visible) as images, None if those of the run are none."""
    size = run.image_size
    return rows.reshape(-1, size, size) if size * size == rows.shape[1] else None


def reconstructions(runs: Sequence[Run], name: str) -> Iterator[Part]:
    """Yield originals beside what the runs make of them, a figure a data set.

    As in Figure 5 of Santara et al. 2016. The name is that of the figures. A line says
    which data have no images, here and in the sections on each run.
    """
    tables = [run for run in runs if run.weights is not None and not run.image_size]
    if tables:
        of = ", ".join(
            dict.fromkeys(str(run.section("data").get("name")) for run in tables)
        )
        yield note(
            f"The rows of {of} are not square images, so there are no pictures of "
            "reconstructions and of what hidden units respond to."
        )
    known = [(run, run.sample) for run in runs if run.sample is not None]
    digests = dict.fromkeys(sample.digest for _, sample in known)
    for place, digest in enumerate(digests, start=1):
        some = [(run, sample) for run, sample in known if sample.digest == digest]
        drawn = _compared(some, f"{name}-{place}")
        if drawn is not None:
            yield drawn


def first_layer(run: Run, name: str) -> Iterator[Figure]:
    """Yield the weights of the first layer's units as images, if rows are images."""
    if run.weights is None:
        return
    images = as_images(run.weights.T, run)
    if images is None:
        return
    some = images[:_MOST_FILTERS]
    columns = math.ceil(math.sqrt(len(some)))
    of = "first " if len(some) < len(images) else ""
    yield Figure(
        f"filters-{name}",
        "First-layer filters",
        f"Weights from the {images.shape[1]} × {images.shape[2]} inputs to each of the "
        f"{of}{len(some)} of {len(images)} hidden units; grey is 0, each tile has its "
        "own scale.",
        (
            Picture(
                figures.tiles(some, columns, signed=True),
                f"Weights of {len(some)} hidden units of {run.name}, as grey images",
            ),
        ),
    )


def code_space(run: Run, name: str) -> Iterator[Figure]:
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
    labels = run.sample.labels
    shown = "without labels"
    if labels is not None:
        is_number = labels.dtype.kind == "f"
        shown = "each drawn as its label"
        if is_number:
            shown = "each coloured by its label, which is a number"
        if (names := run.sample.classes) and not is_number:
            shown += f" ({', '.join(f'{k}: {name}' for k, name in enumerate(names))})"
    alt = f"Codes of {len(codes)} rows of {run.name}, {shown}"
    drawn = figures.scatter(codes[:, 0], codes[:, 1], labels, Chart((), *axes, alt))
    yield Figure(
        f"codes-{name}",
        "Code space",
        f"Codes of {len(codes)} {run.sample.split} rows{how}, {shown}, by the encoder "
        f"of the {run.sample.model}, in the units of the code.",
        (Picture(drawn, alt),),
    )


def _compared(some: Sequence[tuple[Run, Sample]], name: str) -> Figure | None:
    run, first = some[0]
    known = [sample.pca is not None for _, sample in some]
    lacks = " (not where the code is as wide as the rows, or PCA takes long)"
    pca = (
        "; PCA: what as many principal components as code units make of them"
        f"{lacks * (not all(known))}"
    ) * any(known)
    pictures = []
    for label, rows in _panels(some):
        images = as_images(_greys(rows, first.originals), run)
        if images is None:
            return None
        columns = math.ceil(math.sqrt(len(images)))
        error = np.square(rows - first.originals, dtype=np.float64).sum(axis=1).mean()
        of = f"\nerror {error:.2f}" if rows is not first.originals else ""
        pictures.append(
            Picture(
                figures.tiles(images, columns),
                f"{label}: {len(images)} images in rows of {columns}",
                f"{label}{of}",
            )
        )
    return Figure(
        name,
        "Originals beside their reconstructions",
        f"{len(first.originals)} {first.split} rows from all over {first.data!r}, in "
        f"the same places in every panel, with the error on these rows ({ERROR}){pca}.",
        tuple(pictures),
        "tiles",
    )


def _greys(rows: Any, originals: Any) -> Any:
    """Return rows from 0 to 1: as they are, or about grey on the originals' scale."""
    if originals.min() >= 0 and originals.max() <= 1:
        return rows
    return 0.5 + rows / (2 * (np.quantile(np.abs(originals), 0.99) or 1.0))


def _panels(some: Sequence[tuple[Run, Sample]]) -> Iterator[tuple[str, Any]]:
    yield "originals", some[0][1].originals
    by_components = {s.codes.shape[1]: s.pca for _, s in some if s.pca is not None}
    for n, rows in sorted(by_components.items()):
        yield f"PCA, {n} component{'s' * (n > 1)}", rows
    for run, sample in some:
        for model, rows in sample.reconstructions.items():
            yield f"{run.name}, {model}", rows


def _principal(codes: Any) -> tuple[Any, list[float]]:
    """Return codes on their two first principal components, and their shares."""
    centred = codes - codes.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    total = float((sizes**2).sum()) or 1.0
    return left[:, :2] * sizes[:2], [float(s) ** 2 / total for s in sizes[:2]]
