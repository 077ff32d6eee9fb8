"""`vlrt export MODEL -o BUNDLE`, also `python -m export` from a checkout."""

import argparse
import sys
from collections.abc import Sequence

from vlrt.errors import VlrtError

from . import samples
from .pipeline import export
from .precision import PRECISIONS


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
        "--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), metavar="P",
        help=f"which variants to make, of {', '.join(PRECISIONS)}; all by default",
    )  # fmt: skip
    made.add_argument("--revision", help="branch, tag or commit on the hub")
    made.add_argument("--overwrite", action="store_true", help="replace the bundle if it exists")
    made.add_argument(
        "--images", metavar="DIR", help="pictures to verify on (drawn ones if absent)"
    )
    made.add_argument("--texts", metavar="FILE", help="texts to verify on, one a line")
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
            images=samples.pictures_in(args.images) if args.images else None,
            texts=samples.texts_in(args.texts) if args.texts else None,
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
