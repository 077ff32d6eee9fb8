"""`vlrt export MODEL -o BUNDLE`, also `python -m export` from a checkout."""

import argparse
import sys
from collections.abc import Sequence

from vlrt.errors import VlrtError

from .gates import QUALITIES
from .pipeline import export
from .precision import DEFAULT_PRECISIONS, PRECISIONS
from .samples import DRAWN


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(
        prog="vlrt export",
        description="Turn a Hugging Face checkpoint into a bundle, each variant proved against "
        "PyTorch and written only if it passes its gate.",
    )
    made.add_argument("model", help="a local snapshot, or owner/name on the hub")
    made.add_argument("-o", "--output", required=True, help="the bundle's directory")
    made.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, metavar="P",
        default=list(DEFAULT_PRECISIONS),
        help=f"which variants to make, of {', '.join(PRECISIONS)}; default: "
        f"{' '.join(DEFAULT_PRECISIONS)}",
    )  # fmt: skip
    made.add_argument(
        "--calibrate", nargs="+", default=[], metavar="PATH",
        help="take the scales of int8 from directories of pictures and from text files with one "
        f"text a line, every second of each, and verify on the others; or from {DRAWN!r} scenes. "
        "Without, int8 finds its scales at run time",
    )  # fmt: skip
    made.add_argument(
        "--quality", choices=QUALITIES, default="speed",
        help="how near a variant must come: 'accuracy' allows half the errors that 'speed' does; "
        "default: %(default)s",
    )  # fmt: skip
    made.add_argument(
        "--reduce-range", action="store_true",
        help="int8 weights of 7 bits, which x86 CPUs without VNNI multiply fast and right",
    )  # fmt: skip
    made.add_argument("--revision", help="branch, tag or commit on the hub")
    made.add_argument("--overwrite", action="store_true", help="replace the bundle if it exists")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if every variant was written, 1 if any was refused or nothing could be."""
    args = parser().parse_args(arguments)
    try:
        report = export(
            args.model,
            args.output,
            precisions=args.precision,
            revision=args.revision,
            overwrite=args.overwrite,
            calibrate=args.calibrate,
            quality=args.quality,
            reduce_range=args.reduce_range,
            say=lambda line: print(line, flush=True),
        )
    except VlrtError as error:
        print(f"vlrt export: {error}", file=sys.stderr)
        return 1
    print(f"wrote {report.path} with {', '.join(report.written)}")
    for precision, whys in report.refused.items():
        print(f"vlrt export: {precision} was refused: {'; '.join(whys)}", file=sys.stderr)
    return 1 if report.refused else 0


if __name__ == "__main__":
    sys.exit(main())
