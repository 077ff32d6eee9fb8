"""Embeddings of texts and pictures in OpenAI's shape, for its clients."""

import base64
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from vlrt.errors import ImageError, OptionError
from vlrt.server.answering import answered, rendered
from vlrt.server.answers import EmbeddingsAnswer
from vlrt.server.context import Context
from vlrt.server.describing import body, problems
from vlrt.server.fields import source_of
from vlrt.server.jobs import Done
from vlrt.server.leaving import unless_gone
from vlrt.server.models import Served
from vlrt.server.reading import JSON, read
from vlrt.server.schemas import EmbeddingsRequest, ImageInput, TextInput
from vlrt.server.tasks import data_of, fetched, named


def router(context: Context) -> APIRouter:
    """`POST /v1/embeddings`."""
    routes = APIRouter(prefix="/v1", tags=["tasks"])

    @routes.post(
        "/embeddings",
        operation_id="embeddings",
        summary="Where do texts and pictures lie in the model's space?",
        response_model=EmbeddingsAnswer,
        responses=problems(400, 401, 403, 404, 408, 413, 415, 422, 500, 503),
        openapi_extra=body(EmbeddingsRequest, JSON),
    )
    async def embeddings(request: Request) -> Response:
        began = time.perf_counter()
        asked = await read(request, EmbeddingsRequest, context.settings)
        served = context.catalogue.choose("embeddings", asked.model)
        done = await unless_gone(
            request, _embed(context, served, asked), context.settings.deadline_s
        )
        tokens = sum(one.value.tokens for one in done)
        entries = sorted(entry for one in done for entry in one.value.entries.items())
        head = {
            "object": "list",
            "model": served.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return answered(head, "data", (text for _, text in entries), done, began)

    return routes


class Made(NamedTuple):
    """What a job made.

    Attributes:
        tokens: of its texts.
        entries: position among the inputs -> the embedding's entry in the answer, JSON.
    """

    tokens: int
    entries: dict[int, str]


async def _embed(context: Context, served: Served, asked: EmbeddingsRequest) -> list[Done[Made]]:
    """Embed all texts in one job, and each picture in one."""
    inputs = asked.input if isinstance(asked.input, list) else [asked.input]
    shown = {at: one for at, one in enumerate(inputs) if isinstance(one, ImageInput)}
    addresses = [source_of(one.image_url.url) for one in shown.values()]
    sources = await fetched(context, addresses, [("input", at) for at in shown])
    texts = {
        at: one.text if isinstance(one, TextInput) else one
        for at, one in enumerate(inputs)
        if not isinstance(one, ImageInput)
    }

    def embed_texts() -> Made:
        wanted = list(texts.values())
        embeds = served.model.encode_texts(wanted, truncate=asked.truncate)
        ids = served.model.tokenizer.ids(wanted, truncate=asked.truncate)
        return Made(sum(map(len, ids)), _entries(texts, embeds, asked))

    def embed_picture(at: int, source: str | bytes) -> Made:
        data = data_of(source, "input", at, len(inputs), context.settings)
        try:
            embeds = served.model.encode_images([data])
        except ImageError as error:
            raise named(error, "input", at, len(inputs)) from error
        return Made(0, _entries([at], embeds, asked))

    works: list[Callable[[], Made]] = [embed_texts] if texts else []
    works += [partial(embed_picture, *pair) for pair in zip(shown, sources, strict=True)]
    return await context.jobs.run_all(served.name, works)


def _entries(
    positions: Iterable[int], embeds: NDArray[np.float32], asked: EmbeddingsRequest
) -> dict[int, str]:
    """The entries of some embeddings [N, D] in the answer.

    Raises:
        OptionError: other dimensions than D are asked for.
    """
    number = embeds.shape[1]
    if asked.dimensions not in (None, number):
        raise OptionError(
            f"dimensions is {asked.dimensions}; valid: {number}, all that this model gives"
        )
    return {
        at: rendered({"object": "embedding", "index": at, "embedding": _written(row, asked)})
        for at, row in zip(positions, embeds, strict=True)
    }


def _written(embed: NDArray[np.float32], asked: EmbeddingsRequest) -> Any:
    if asked.encoding_format == "base64":
        return base64.b64encode(embed.astype("<f4").tobytes()).decode()
    return embed.tolist()
