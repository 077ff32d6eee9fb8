"""PyTorch end to end with a pool of threads in front of it, as a careful user writes it.

Each picture is decoded and processed in the pool by transformers' own parts, two batches ahead of
the GPU. The GPU's part is the model's public parts, as in `reference_families.py`.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

_AHEAD = 2  # batches

Inputs = dict[str, Any]
# One picture's inputs, and its (height, width).
Ready = tuple[Inputs, tuple[int, int]]


def pooled(model: Any, job: Mapping[str, Any]) -> Callable[[Sequence[str], int], list[float]]:
    """The best score of each picture.

    Args:
        model: as `reference.load_reference` gives it.
        job: see `end_to_end`.
    """
    import torch

    pool = ThreadPoolExecutor(job["threads"])
    finish = {"clip": _classify, "owlvit": _detect, "vilt": _ask}[job["family"]](model, job)

    def call(paths: Sequence[str], batch: int) -> list[float]:
        best: list[float] = []
        for ready in _batches(pool, model, paths, batch):
            joined = {name: torch.cat([one[name] for one, _ in ready]) for name in ready[0][0]}
            on_device = {
                name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
                for name, tensor in joined.items()
            }
            best += finish(on_device, [size for _, size in ready])
        return best

    return call


def _batches(
    pool: ThreadPoolExecutor, model: Any, paths: Sequence[str], batch: int
) -> Iterator[list[Ready]]:
    """Processed batches, in order; the next are under way while one is used."""

    def processed(path: str) -> Ready:
        (picture,) = model.read([path])
        made = model.image_processor(images=[picture], return_tensors="pt")
        return dict(made), (picture.height, picture.width)

    under_way: deque[list[Future[Ready]]] = deque()
    for start in range(0, len(paths), batch):
        under_way.append([pool.submit(processed, path) for path in paths[start : start + batch]])
        if len(under_way) > _AHEAD:
            yield [one.result() for one in under_way.popleft()]
    while under_way:
        yield [one.result() for one in under_way.popleft()]


def _classify(model: Any, job: Mapping[str, Any]) -> Any:
    import torch

    encoded = model.encode_labels(job["labels"]).embeds
    texts = torch.from_numpy(encoded).to(model.device, model.dtype)

    def finish(inputs: Inputs, sizes: Sequence[tuple[int, int]]) -> list[float]:
        del sizes
        embeds = model.model.visual_projection(model.model.vision_model(**inputs).pooler_output)
        embeds = embeds / embeds.norm(p=2, dim=-1, keepdim=True)
        logits = (embeds @ texts.T * model.model.logit_scale.exp()).float()
        best: list[float] = logits.softmax(dim=-1).amax(dim=-1).tolist()
        return best

    return finish


def _detect(model: Any, job: Mapping[str, Any]) -> Any:
    import torch

    encoded = model.encode_labels(job["labels"]).embeds
    queries = torch.from_numpy(encoded).to(model.device, model.dtype)
    threshold = job["threshold"]

    def finish(inputs: Inputs, sizes: Sequence[tuple[int, int]]) -> list[float]:
        outputs = model.search(inputs["pixel_values"], queries)
        kept = model.image_processor.post_process_object_detection(
            outputs, threshold=threshold, target_sizes=list(sizes)
        )
        return [max([threshold, *one["scores"].tolist()]) for one in kept]

    return finish


def _ask(model: Any, job: Mapping[str, Any]) -> Any:
    def finish(inputs: Inputs, sizes: Sequence[tuple[int, int]]) -> list[float]:
        tokens = model.tokenize([job["question"]] * len(sizes))
        scores = model.model(**inputs, **tokens).logits.float().sigmoid()
        best: list[float] = scores.amax(dim=-1).tolist()
        return best

    return finish
