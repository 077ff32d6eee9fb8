"""What answers hold, for the description of the API; they are made by the library's `to_dict`."""

from typing import Literal

from pydantic import BaseModel


class LabelScore(BaseModel):
    """A label, its part of the softmax and what that was taken over."""

    label: str
    score: float
    logit: float


class Classified(BaseModel):
    """A picture's labels, best first."""

    labels: list[LabelScore]


class ClassifyAnswer(BaseModel):
    """A result for each picture, in order."""

    model: str
    results: list[Classified]


class Box(BaseModel):
    """Corners in pixels of the picture; they may lie a little outside of it."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float


class Detection(BaseModel):
    """An object; `alpha`, which shows how it compares with the best, is by example alone."""

    label: str
    score: float
    box: Box
    alpha: float | None = None


class Detected(BaseModel):
    """A picture's size in pixels and the objects in it, best first."""

    width: int
    height: int
    detections: list[Detection]


class DetectAnswer(BaseModel):
    """A result for each picture, in order."""

    model: str
    results: list[Detected]


class Answer(BaseModel):
    """An answer; its score says how sure it is, and several may be right."""

    answer: str
    score: float


class Asked(BaseModel):
    """A question's answers, best first."""

    question: str
    answers: list[Answer]


class AskAnswer(BaseModel):
    """A list for each picture, in order, of a result for each question, in order."""

    model: str
    results: list[list[Asked]]


class TextLogit(BaseModel):
    """A text, and how well it fits: higher is better, comparable over texts and pictures."""

    text: str
    logit: float


class Matched(BaseModel):
    """A picture's texts, best first."""

    texts: list[TextLogit]


class MatchAnswer(BaseModel):
    """A result for each picture, in order."""

    model: str
    results: list[Matched]


class Embedding(BaseModel):
    """An embedding of length 1: numbers or, if so asked, base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """How many tokens the texts have."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """An embedding for each input, in order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["vlrt"]
    task: str
    methods: list[str]
    family: str
    precision: str
    precision_reason: str
    provider: str
    threads: int
    decode: str


class ModelList(BaseModel):
    """The models that are served, in the order in which they were named."""

    object: Literal["list"]
    data: list[ModelCard]
