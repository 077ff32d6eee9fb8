"""The options of `vlrt bench latency`, and the plan that they make."""

import argparse
from pathlib import Path

from vlrt.cli_options import count
from vlrt.errors import OptionError
from vlrt.hardware import available_cpus

from . import document
from .machine import pinned
from .peers import STAGES, engines
from .plan import Plan, check, drawn_pictures, given_pictures
from .request import LABELS
from .stats import LEAST_ROUNDS
from .subject import Subject
from .subject import add_options as add_subject

WARM_UP_S = 5.0  # of one stage of one contender, at the most
QUESTION = "what color is the circle?"
FIRST_BASE = "torch-fp32"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all of them."""
    add_subject(parser)
    document.add_options(parser, "latency")
    parser.add_argument(
        "--against", nargs="*", metavar="ENGINE",
        help="whom to compare with (default: all that are installed); none: vlrt's variants alone. "
        f"Engines: {', '.join(engines())}",
    )  # fmt: skip
    parser.add_argument(
        "--batch", nargs="+", type=count, default=[1, 8], metavar="B",
        help="pictures in a run (default: 1 8)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=count, default=available_cpus(),
        help="of every contender, each pinned to as many CPUs (default: all, %(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--rounds", type=count, default=5, help=f"{LEAST_ROUNDS} or more (default: %(default)s)"
    )
    parser.add_argument(
        "--turn", type=float, default=0.5, metavar="SECONDS",
        help="of one contender, on one stage, in one round (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--size", default="1920x1080", metavar="WxH",
        help="of the pictures, which are drawn (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", nargs="+", type=Path, metavar="FILE", help="take these instead of drawn ones"
    )
    parser.add_argument("--labels", nargs="+", default=list(LABELS), help="for CLIP and detectors")
    parser.add_argument("--question", default=QUESTION, help="for ViLT (default: %(default)s)")
    parser.add_argument(
        "--tokens", nargs="+", type=count, default=[], metavar="N",
        help='measure "encode text" on a batch of texts of so many tokens as well',
    )  # fmt: skip
    parser.add_argument(
        "--sizes", nargs="+", type=count, default=[], metavar="N",
        help="measure the towers that see pictures on so many at once as well, in the processes of "
        "the first batch: sooner than by --batch, for each loads once",
    )  # fmt: skip
    parser.add_argument(
        "--stages", nargs="+", metavar="STAGE", help="measure these alone (default: all there are)"
    )
    parser.add_argument(
        "--base", metavar="NAME",
        help=f"the contender that others are compared with (default: {FIRST_BASE}, or vlrt's "
        "first variant)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-mismatch", action="store_true",
        help="measure contenders whose results are not the base's, too, and mark them",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", metavar="NAME",
        help="of the contenders, such as vlrt-fp16, measure these alone",
    )  # fmt: skip
    parser.add_argument(
        "--leave-out-failed",
        action="store_true",
        help="go on without a contender that does not load or run, and say why",
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="let contenders load and warm up at the same time: sooner, and loading times say "
        "nothing then",
    )
    parser.add_argument(
        "--optimum-python", type=Path, metavar="FILE",
        help="the Python of an environment that has optimum-onnx",
    )  # fmt: skip


def check_numbers(options: argparse.Namespace) -> None:
    """Refuse what no measurement can be made with.

    Raises:
        OptionError: the number is named.
    """
    if options.rounds < LEAST_ROUNDS:
        raise OptionError(
            f"--rounds is {options.rounds}; valid: {LEAST_ROUNDS} or more, for an interval"
        )
    if not 0.01 <= options.turn <= 60:
        raise OptionError(f"--turn is {options.turn:g} seconds; valid: 0.01 to 60")
    if options.threads > available_cpus():
        raise OptionError(
            f"--threads is {options.threads}; valid: up to {available_cpus()}, the CPUs that this "
            "process may use, for every contender is pinned to as many"
        )


def make_plan(options: argparse.Namespace, subject: Subject) -> Plan:
    """What the command line asks to be measured.

    Raises:
        OptionError: a size, a stage or the like that is none, or that the model does not have.
        ImageError: one of the pictures cannot be read.
        LabelError: labels that are empty or there twice.
    """
    from vlrt.labels import checked_labels

    batches = tuple(dict.fromkeys(options.batch))
    sizes = tuple(dict.fromkeys(options.sizes))
    size_wh = parsed_size(options.size)
    everything = STAGES.get(subject.family, ())
    plan = Plan(
        batches=batches,
        pictures=(),
        drawn=options.pictures is None,
        size_wh=size_wh,
        labels=checked_labels(options.labels),
        question=options.question,
        tokens=tuple(dict.fromkeys(options.tokens)),
        stages=tuple(options.stages or everything),
        threads=options.threads,
        cpus=tuple(pinned(options.threads)),
        device=options.device,
        rounds=options.rounds,
        turn_s=options.turn,
        warm_up_s=WARM_UP_S,
        optimum_python=str(options.optimum_python) if options.optimum_python else None,
        sizes=sizes,
    )
    check(plan, subject)
    if options.pictures is None:
        pictures = drawn_pictures(options.cache / "pictures", plan.most, size_wh)
    else:
        pictures = given_pictures(options.pictures, plan.most)
    # In the order of the tables, whatever theirs on the command line.
    stages = tuple(stage for stage in everything if stage in plan.stages)
    return plan.on(pictures, stages)


def parsed_size(text: str) -> tuple[int, int]:
    """(width, height) out of "1920x1080".

    Raises:
        OptionError: it is none of a picture.
    """
    width, _, height = text.partition("x")
    if width.isdecimal() and height.isdecimal():
        size_wh = int(width), int(height)
        if min(size_wh) >= 32 and max(size_wh) <= 8192:
            return size_wh
    raise OptionError(f"--size is {text!r}; valid: WIDTHxHEIGHT, each 32 to 8192 pixels")
