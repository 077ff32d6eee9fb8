"""What `all` and `quick` run, in order: groups of steps, those of one group at the same time."""

from collections.abc import Callable
from dataclasses import dataclass

from .settings import Settings

GRACE_S = 20.0
_PIECE_S = 570.0


@dataclass(frozen=True)
class Step:
    """One piece.

    Attributes:
        arguments: of `benchmarks/gpu.sh`.
        limit_s: of its own.
        least_s: with less time left it does not begin.
    """

    arguments: tuple[str, ...]
    limit_s: float = _PIECE_S
    least_s: float = 15.0

    @property
    def title(self) -> str:
        """For the reader: the command without what all share."""
        return " ".join(self.arguments)


Group = list[Step]
_REPORT = Step(("report",), 60.0, 0.0)


def everything(settings: Settings) -> list[Group]:
    """Every row of every piece; of full size about two hours."""
    groups = [[Step((name,))] for name in ("install", "checkpoints", "bundles", "compiled")]
    names = list(settings.models)
    groups += [[Step(("parity", name))] for name in names]
    for name in names:
        if settings.small:
            groups.append([Step(("latency", name))])
        else:  # in two halves, each well under ten minutes
            groups.append([Step(("latency", name, "--sizes", "1", "2", "4", "8", "16"))])
            groups.append([Step(("latency", name, "--sizes", "32", "64", "128", "256"))])
    for piece in ("end-to-end", "memory"):
        groups += [[Step((piece, name))] for name in names]
    groups += [[Step((piece,))] for piece in ("cold-start", "similarity", "tensorrt")]
    return [*groups, [Step(("soak",), 720.0)], [_REPORT]]


def quick(settings: Settings) -> list[Group]:
    """The rows that matter most, the first of them first; the same command goes on after a stop."""
    names = list(settings.models)
    last = [name for name in names if name != "owlvit-b32"]
    families = [name for name in ("owlvit-b32", "clip-b32", "vilt") if name in names]
    return [
        [Step(("install",), 120.0)],
        [Step(("checkpoints",), 120.0)],
        [Step(("bundles", "--quick"), 240.0)],
        # Nothing is timed yet.
        [Step(("compiled", "--quick"), 200.0),
         *(Step(("parity", name, "--quick"), 120.0) for name in families)],
        [Step(("latency", "owlvit-b32", "--quick"), 150.0, 45.0)],
        [Step(("end-to-end", "owlvit-b32", "--quick"), 120.0, 40.0)],
        *([Step(("latency", name, "--quick"), 150.0, 45.0)] for name in last),
        [Step(("memory", "owlvit-b32", "--quick"), 60.0, 25.0)],
        [Step(("cold-start", "owlvit-b32", "--quick"), 90.0, 30.0)],
        [Step(("soak", "owlvit-b32", "--quick"), 180.0, 90.0)],
        [_REPORT],
    ]  # fmt: skip


PLANS: dict[str, Callable[[Settings], list[Group]]] = {"all": everything, "quick": quick}
LIMITS_S = {"all": 4 * 3600.0, "quick": 480.0}
