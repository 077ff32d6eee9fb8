"""How much of a model's work is in flight, and how fast it flows."""

from collections import deque
from dataclasses import dataclass, field

# From how many jobs that finished last their rate is taken.
_RECENT = 64
# Between which seconds a client is sent away.
_SOONEST, _LATEST = 1.0, 60.0


@dataclass
class Flow:
    """The jobs of a model: how many are in flight, and when the last ones finished."""

    in_flight: int = 0
    busy_since: float = 0.0
    finished: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def retry_after(self, now: float) -> float:
        """Seconds after which what is in flight is likely to have finished."""
        since = self.finished[0] if len(self.finished) == _RECENT else self.busy_since
        expected = self.in_flight * (now - since) / max(1, len(self.finished))
        return min(max(expected, _SOONEST), _LATEST)

    def begin(self, number: int, now: float) -> None:
        """Count jobs as in flight."""
        if not self.in_flight:
            self.busy_since = now
            self.finished.clear()  # the rate of another rush, with a pause after it
        self.in_flight += number

    def end(self, now: float) -> None:
        """Count one as finished."""
        self.in_flight -= 1
        self.finished.append(now)
