"""``mpilayer export``: write a trained model for other programs."""

import argparse
from pathlib import Path

from mpilayer.cli.arguments import require_one_process
from mpilayer.cli.options import add_task
from mpilayer.runs.export import PARTS, export
from mpilayer.runs.tasks import model_in_words
from mpilayer.store.export import Model


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("run", type=Path, metavar="DIR", help="a run")
    parser.add_argument(
        "-o",
        dest="out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the new file; its ending says the format: .npz (NumPy, scikit-learn), "
        ".safetensors (PyTorch), .onnx, .h5",
    )
    parser.add_argument(
        "--part",
        default=PARTS[0],
        metavar="{" + ",".join(PARTS) + "}",
        help=f"what to write; the encoder ends at the code (default: {PARTS[0]})",
    )
    add_task(parser, "which model")
    parser.add_argument("--replace", action="store_true", help="replace an older FILE")


def run(args: argparse.Namespace) -> None:
    """Export, and say what was written.

    Raises
    ------
    ConfigError
        Several processes were started.
    """
    require_one_process("export")
    model = export(args.run, args.out, args.part, args.replace, args.task)
    sizes = "-".join(map(str, model.sizes))
    print(f"wrote {_name(model)} {sizes} to {args.out}")


def _name(model: Model) -> str:
    whole = model_in_words(model.about["model"])
    return whole if model.about["part"] == PARTS[0] else f"the encoder of {whole}"
