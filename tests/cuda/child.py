"""The process on the pretended machine: it calls one function of a test file, and writes down what
it gives. A function may `mark` its steps in the log.
"""

import importlib.util
import json
import os
import sys
from importlib.metadata import Distribution, MetadataPathFinder
from pathlib import Path


def mark(name: str) -> None:
    """Write a name in the log, between what the machine did before and what it does from now on."""
    with open(os.environ["STAND_IN_LOG"], "a", encoding="utf-8") as log:  # noqa: PTH123
        log.write(json.dumps({"call": "mark", "name": name}) + "\n")


def _hide_the_cpu_build() -> None:
    """Leave out the metadata of the ONNX Runtime that this environment has beside the GPU's."""
    find = MetadataPathFinder.find_distributions

    def others(*context: object) -> list[Distribution]:
        return [found for found in find(*context) if found.metadata["Name"] != "onnxruntime"]

    MetadataPathFinder.find_distributions = others


def main() -> None:
    """Answer one call, read from the standard input."""
    file, name, arguments, named, answer = json.load(sys.stdin)
    _hide_the_cpu_build()
    from vlrt.errors import VlrtError

    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        found = {"value": getattr(module, name)(*arguments, **named)}
    except VlrtError as error:
        found = {"error": type(error).__name__, "said": str(error)}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
