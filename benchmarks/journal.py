"""What was measured so far, kept on disk: a run that is cut off goes on where it was."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from vlrt.errors import BenchmarkError
from vlrt.files import writing

if TYPE_CHECKING:
    from typing import Self  # from Python 3.11 on

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")


def beside(output: Path) -> Path:
    """Where the journal of a result is kept, which goes to `output`."""
    return output.with_suffix(".partial")


class Journal:
    """Values by key, in a file of JSON lines: first the plan, then each value as it comes.

    Args:
        path: the file; one that is there is gone on with.
        plan: all that decides what is measured, ready for JSON. Only a run of the same plan goes
            on: values of two plans are no one result.
        fresh: throw away what is there.

    Raises:
        BenchmarkError: the file holds another plan's run, or is no journal; or another run has it.
        OptionError: the file cannot be written.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.path = path
        self._values: dict[str, Any] = {}
        wanted = json.loads(json.dumps(dict(plan)))
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        try:
            self._claim()
            self._file.seek(0)
            lines = [] if fresh else self._file.readlines()
            # What was cut off in the middle of a line is no value.
            whole = [line for line in lines if line.endswith(b"\n")]
            goes_on = bool(whole) and self._read(whole, wanted)
            with writing(path):
                self._file.truncate(sum(map(len, whole)) if goes_on else 0)
            if not goes_on:
                self._write({"plan": wanted})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def held(self, key: str) -> bool:
        """Whether a value is kept under `key`."""
        return key in self._values

    def keep(self, key: str, make: Callable[[], T]) -> T:
        """The value kept under `key`; if there is none, what `make` gives, which is then kept.

        Returns:
            The value as JSON gives it back: tuples are lists, and numbers those of Python.
        """
        if key not in self._values:
            line = {"key": key, "value": make()}
            self._write(line)
            self._values[key] = json.loads(json.dumps(line))["value"]
        value: T = self._values[key]
        return value

    def done(self) -> None:
        """Remove the file: its values are in a result."""
        self._file.close()
        self.path.unlink()

    def _claim(self) -> None:
        """See to it that no other run writes the file, as far as the system knows how."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchmarkError(
                f"another run writes {self.path}: wait for it, or choose another -o"
            ) from None

    def _write(self, line: Mapping[str, Any]) -> None:
        with writing(self.path):
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()

    def _read(self, lines: list[bytes], wanted: Mapping[str, Any]) -> bool:
        """Read what is there; whether it is of this plan. One without values may be of any."""
        try:
            first, *others = (json.loads(line) for line in lines)
            plan = dict(first["plan"])
            self._values = {str(line["key"]): line["value"] for line in others}
        except (ValueError, KeyError, TypeError) as error:
            raise BenchmarkError(
                f"{self.path} is not what a benchmark left behind: {error}; remove it, or pass "
                "--fresh"
            ) from error
        if plan != wanted and self._values:  # nothing is lost of one that holds no values
            names = sorted(k for k in {*plan, *wanted} if plan.get(k) != wanted.get(k))
            what = "; ".join(
                f"{k} was {plan.get(k)!r:.80}, is {wanted.get(k)!r:.80}" for k in names
            )
            raise BenchmarkError(
                f"{self.path} holds an unfinished run of another plan ({what}): finish it with the "
                "same options, choose another -o, or pass --fresh to throw it away"
            )
        return bool(plan == wanted)
