"""What decides a whole experiment, besides its training."""

from dataclasses import dataclass

from mpilayer.config.fields import Settings, option

STEPS = ("data", "pretrain", "finetune", "sparse", "compare", "evaluate", "report")
"""Steps of an experiment, in their order."""


@dataclass(frozen=True)
class ExperimentConfig(Settings):
    """What ``mpilayer run`` does besides training."""

    name: str = option("", "what to call it; empty: as the file")
    run: str = option("", "directory of all results; empty: runs/NAME")
    steps: tuple[str, ...] = option(
        ("auto",),
        "what to do, in this order; auto: what has a section, then evaluate, report",
        choices=("auto", *STEPS),
    )
    split: str = option(
        "test",
        "rows to evaluate on; the training rows where the data have no such split",
        choices=("train", "validation", "test"),
    )


@dataclass(frozen=True)
class DataConfig(Settings):
    """The data set of an experiment, and how it is made if it is not there."""

    path: str = option("", "the data set; empty: data.h5 beside the results")
    source: str = option("", "what to make it from, if it is not there; empty: nothing")
    make: str = option(
        "prepare",
        "how: 'prepare' from files of samples, 'patches' of images",
        choices=("prepare", "patches"),
    )
    validation: int = option(
        0,
        "rows to set apart for validation, equally many of each class; patches: "
        "further ones",
        least=0,
    )
    test: int = option(0, "further rows to set apart, for tests", least=0, of="prepare")
    unbalanced: bool = option(
        False, "set rows apart whatever their classes are", of="prepare"
    )
    labels: str = option(
        "",
        "the column of a .csv, by name or number, or the array that holds "
        "labels: whole numbers or texts are classes, other numbers are for finetune "
        "--task regress; empty: 'label' in .csv, 'labels' or 'y' elsewhere, if there",
        metavar="COLUMN",
        of="prepare",
    )
    scale: str = option(
        "none",
        "each column by its training rows, minmax to 0 to 1, standard to mean "
        "0 and standard deviation 1",
        choices=("none", "minmax", "standard"),
        of="prepare",
    )
    like: str = option(
        "",
        "as the data of a run, or a data set, were: the same labels, classes "
        "and scaling",
        metavar="RUN|DATA.h5",
        of="prepare",
    )
    seed: int = option(0, "chooses the rows to set apart, or the patches", least=0)
    name: str = option("", "what to call it; empty: as the source", metavar="NAME")
    count: int = option(100_000, "training patches to draw", least=1, of="patches")
    size: int = option(8, "height and width in pixels", least=1, of="patches")
    whiten: bool = option(
        False,
        "flatten the images' spectrum first, as Olshausen and Field do",
        of="patches",
    )
    range: str = option(
        "raw",
        "raw, as they are; LOW,HIGH: subtract each patch's mean, truncate at "
        "3 standard deviations, scale to that range; 0.1,0.9 suits sigmoid units",
        metavar="raw|LOW,HIGH",
        of="patches",
    )


@dataclass(frozen=True)
class ReportConfig(Settings):
    """The report of an experiment."""

    file: str = option("report.html", "its name, beside the results")
