"""What every process that a benchmark starts finds around it, and what is told of its end."""

# After its turn, a process's threads may spin for a moment longer: the next must not pay for that.
PAUSE_S = 0.2
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
# Whatever an engine makes its threads with.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
_LAST_LINES = 30


def environment(threads: int) -> dict[str, str]:
    """What a contender must find beside its parent's: no hub, and so many threads."""
    return {**OFFLINE, **dict.fromkeys(_THREADS, str(threads))}


def last_words(said: str) -> str:
    """The last lines of what a process said, for the error that tells of its end."""
    return "\n".join(said.splitlines()[-_LAST_LINES:])
