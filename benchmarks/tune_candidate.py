"""What a candidate of `vlrt bench tune` runs: a bundle in one setup, from pictures to results."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np

from .peers import Arrays, Stage, found

STAGE = "from pictures to results"
MODULE = "vlrt_benchmarks.tune_candidate"  # also where the package is `benchmarks`
_TOP, _THRESHOLD = 5, 0.1


def load(job: Mapping[str, Any]) -> dict[str, Stage]:
    """Load the bundle, decode the pictures, and encode the labels.

    Args:
        job: bundle, precision, threads_inside and provider; method ("classify", "detect" or "ask"),
            labels and question; batch, the pictures of a request; callers, how many make a request
            each in a run, all at once.

    Returns:
        The one stage, whose outputs are the first caller's: scores, one row a picture.
    """
    import vlrt
    from vlrt.session import place_on

    model = vlrt.load(
        job["bundle"],
        precision=job["precision"],
        providers=place_on(job["provider"]).providers,
        threads=job["threads_inside"],
    )
    request, scores = _REQUESTS[job["method"]](model, _pictures(job["batch"]), job)
    if job["callers"] == 1:
        return {STAGE: Stage(request, lambda result: {"scores": scores(_listed(result))})}
    from concurrent.futures import ThreadPoolExecutor

    callers = ThreadPoolExecutor(job["callers"])

    def run() -> list[Any]:
        waiting = [callers.submit(request) for _ in range(job["callers"])]
        return [one.result() for one in waiting]

    return {STAGE: Stage(run, lambda results: {"scores": scores(_listed(results[0]))})}


def _pictures(batch: int) -> Any:
    """Drawn scenes that come with vlrt, as uint8 arrays [H, W, 3]: one, or a list of several."""
    from vlrt import load_image
    from vlrt.demo import ROOT

    paths = sorted(ROOT.glob("pictures/scene-*.jpg"))
    arrays = [np.asarray(load_image(path)) for path in islice(cycle(paths), batch)]
    return arrays[0] if batch == 1 else arrays


def _listed(result: Any) -> list[Any]:
    return result if isinstance(result, list) else [result]


Request = tuple[Callable[[], Any], Callable[[list[Any]], Any]]


def _classify(model: Any, pictures: Any, job: Mapping[str, Any]) -> Request:
    labels = model.encode_labels(job["labels"])
    request = partial(model.classify, pictures, labels, batch_size=job["batch"])
    return request, lambda results: np.stack([one.scores for one in results])


def _detect(model: Any, pictures: Any, job: Mapping[str, Any]) -> Request:
    labels = model.encode_labels(job["labels"])
    request = partial(model.detect, pictures, labels, threshold=_THRESHOLD, batch_size=job["batch"])

    def scores(results: list[Any]) -> Any:
        made: Arrays = found(
            [one.boxes for one in results], [one.scores for one in results], _THRESHOLD
        )
        return made["scores"]

    return request, scores


def _ask(model: Any, pictures: Any, job: Mapping[str, Any]) -> Request:
    request = partial(model.ask, pictures, job["question"], top_k=_TOP, batch_size=job["batch"])
    return request, lambda results: np.stack([one.scores for one in results])


_REQUESTS = {"classify": _classify, "detect": _detect, "ask": _ask}
