"""`vlrt bench VERB`, also `python -m benchmarks VERB` from a checkout."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from vlrt.errors import ExtraMissingError, VlrtError

# Each is a module with `add`, which adds its verbs.
_MODULES = (
    "latency", "accuracy", "footprint", "load", "serve", "tune", "compare", "report", "scenes",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(
        prog="vlrt bench",
        description="How fast, how exact and how small is a model here, against PyTorch and "
        "others? Results are JSON, Markdown and a page of HTML.",
    )
    verbs = made.add_subparsers(metavar="VERB", required=True)
    for name in _MODULES:
        importlib.import_module(f"{__package__}.{name}").add(verbs)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 if it was measured and written, 1 if not, with the reason on stderr; 130 if it was
        interrupted. Wrong usage exits with 2.
    """
    try:
        options = parser().parse_args(arguments)
        return int(options.run(options))
    except ModuleNotFoundError as error:
        print(ExtraMissingError("vlrt bench", "bench", error.name or "?"), file=sys.stderr)
        return 1
    except VlrtError as error:
        print(f"vlrt bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vlrt bench: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
