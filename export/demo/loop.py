"""A resumable training loop, shared by the model families."""

from __future__ import annotations

import logging
import math
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """Optimiser settings and the rhythm of a run, all counted in steps."""

    steps: int
    rate: float = 1e-3
    warm_up: int = 200
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    log_every: int = 250
    save_every: int = 250


@dataclass(frozen=True)
class Outcome:
    """How a run went; `seconds` counts training before an interruption too."""

    steps: int
    seconds: float
    loss: float


def versions() -> dict[str, str]:
    """What a run ran on, for training.json."""
    packages = ("torch", "transformers", "tokenizers", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def rate_at(schedule: Schedule, step: int) -> float:
    """Learning rate: a linear warm-up, then half a cosine down to a hundredth of the peak."""
    if step < schedule.warm_up:
        return schedule.rate * (step + 1) / schedule.warm_up
    done = (step - schedule.warm_up) / max(schedule.steps - schedule.warm_up, 1)
    return schedule.rate * (0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def optimiser_for(
    model: nn.Module, schedule: Schedule, slow: Mapping[str, float] | None = None
) -> torch.optim.AdamW:
    """AdamW that decays matrices only: neither biases and norms nor scalars.

    slow: name prefix -> share of the learning rate that the parameters below it get; the first
        prefix that fits counts.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        shares = (share for prefix, share in (slow or {}).items() if name.startswith(prefix))
        decay = schedule.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((decay, next(shares, 1.0)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "share": share}
            for (decay, share), parameters in sorted(groups.items(), reverse=True)
        ],
        lr=schedule.rate,
        betas=(0.9, 0.98),
    )


def _end_with_parent() -> None:
    """Make this worker process end when its parent does, however that ends."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def prefetched(make: Callable[[int], T], start: int, stop: int, ahead: int = 6) -> Iterator[T]:
    """`make(step)` for every step, in order, made ahead of time by a worker process."""
    # "spawn", because a fork of a process that runs torch's threads can hang.
    with ProcessPoolExecutor(1, get_context("spawn"), _end_with_parent) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for step in range(start, stop):
                while len(waiting) < ahead and step + len(waiting) < stop:
                    waiting.append(pool.submit(make, step + len(waiting)))
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint in one move: an interruption leaves the previous one intact."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_state(path: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Read the checkpoint of a run.

    Raises:
        ValueError: it is the checkpoint of another run; the message says what differs.
    """
    state: dict[str, Any] = torch.load(path, weights_only=True)
    then, now = _flat(state.get("run", {})), _flat(run)
    differing = [
        f"{name} was {then.get(name)!r} and is {now.get(name)!r}"
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]
    if differing:
        raise ValueError(
            f"{path} is of another run: {', '.join(differing)}; "
            "give the same options, another --work, or --no-resume"
        )
    return state


def _flat(run: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A mapping of mappings as one, with dots in its names."""
    flat: dict[str, Any] = {}
    for name, value in run.items():
        inner = _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else None
        flat |= {f"{before}{name}": value} if inner is None else inner
    return flat


def _update(
    model: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, rate: float, norm: float
) -> float:
    """One optimiser step down the gradient of the loss; returns the loss."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), norm)
    optimiser.step()
    return float(loss.detach())


def train(
    model: nn.Module,
    make: Callable[[int], T],
    loss_of: Callable[[T], Tensor],
    report: Callable[[], str],
    *,
    schedule: Schedule,
    work: Path,
    resume: bool = True,
    slow: Mapping[str, float] | None = None,
    made_of: Mapping[str, Any] | None = None,
) -> Outcome:
    """Train a model in place.

    make: a picklable function that makes the batch of a step, run in a worker process.
    loss_of: the scalar loss of a batch.
    report: a line about the model's quality, logged every `log_every` steps.
    work: a folder for the checkpoint; a run found there goes on unless `resume` is off.
    slow: as `optimiser_for` takes it.
    made_of: what else decides how the run goes, ready for JSON; only the same run is resumed.

    Raises:
        ValueError: the checkpoint in `work` is of another run.
    """
    run = {**(made_of or {}), "schedule": asdict(schedule), "slow": dict(slow or {})}
    optimiser = optimiser_for(model, schedule, slow)
    checkpoint = work / "checkpoint.pt"
    start, before, recent = 0, 0.0, math.nan
    if resume and checkpoint.exists():
        state = load_state(checkpoint, run)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"])
        start, before, recent = state["step"], state["seconds"], state["loss"]
        log.info("resumed at step %d from %s", start, checkpoint)
    began = time.monotonic()
    bar = tqdm(total=schedule.steps, initial=start, desc="training", mininterval=5)
    with logging_redirect_tqdm(), bar:
        model.train()
        for done, batch in enumerate(prefetched(make, start, schedule.steps), start + 1):
            rate = rate_at(schedule, done - 1)
            loss = _update(model, optimiser, loss_of(batch), rate, schedule.clip_norm)
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss} at step {done}")
            recent = loss if math.isnan(recent) else 0.98 * recent + 0.02 * loss
            bar.update()
            seconds = before + time.monotonic() - began
            last = done == schedule.steps
            if last or done % schedule.log_every == 0:
                model.eval()
                log.info("step %d, %.0f s, loss %.4f; %s", done, seconds, recent, report())
                model.train()
            if last or done % schedule.save_every == 0:
                state = {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "rng": torch.get_rng_state(),
                    "step": done,
                    "run": run,
                    "seconds": seconds,
                    "loss": recent,
                }
                save_state(checkpoint, state)
    model.eval()
    return Outcome(schedule.steps, before + time.monotonic() - began, recent)
