"""What requests hold: one model a request, whichever way its body comes.

Values are strict: `"5"` is no number and 1 is no bool. Optional fields that are left out are not
passed on, so that the library's own defaults hold; the limits of a server are checked apart (see
`vlrt.server.reading`).
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from vlrt.server.fields import (
    Count,
    Labels,
    Maybe,
    Picture,
    Pictures,
    Source,
    Templates,
    Text,
    Texts,
    Threshold,
    Unit,
    kinds,
    one_of,
    optional,
)


class Strict(BaseModel):
    """A request, or a part of one: nothing is converted, and no field is unknown."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    def _check_one(self, *names: str) -> None:
        given = [name for name in names if name in self.model_fields_set]
        if len(given) != 1:
            raise PydanticCustomError(
                "one_of",
                "{problem}; give one of {valid}",
                {
                    "problem": f"both {' and '.join(given)} are given"
                    if given
                    else "none is given",
                    "valid": " and ".join(names),
                },
            )

    def given(self, *names: str) -> dict[str, Any]:
        """Those of some fields that the request states, for the library's keywords."""
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}


_MODEL = "its name; may be left out where one model alone serves this"
_TRUNCATE = "cut texts that are too long for the model, instead of refusing them"
_TEMPLATES = (
    "prompts with one `{}` each, averaged over, or an object from every label to a list of its own"
)


class PictureRequest(Strict):
    """What every request about pictures has."""

    model: Maybe[str] = optional(_MODEL)
    image: Maybe[Picture] = optional("one picture")
    images: Maybe[Pictures] = optional("several pictures, which may differ in size")
    truncate: bool = Field(default=False, description=_TRUNCATE)

    @model_validator(mode="after")
    def _one_kind(self) -> "PictureRequest":
        self._check_one("image", "images")
        return self

    @property
    def sources(self) -> list[Source]:
        """The pictures, however many there are."""
        return self.images if self.images is not None else [self.image]  # type: ignore[list-item]


class ClassifyRequest(PictureRequest):
    """Which of some labels fits a picture?"""

    model_config = ConfigDict(json_schema_extra=one_of(("image", "images")))

    labels: Labels = Field(description="distinct texts")
    templates: Templates | None = Field(default=None, description=_TEMPLATES)
    top_k: Count | None = Field(default=None, description="only so many of the best labels")


class Example(Strict):
    """A picture of one object, which stands for what is looked for."""

    image: Maybe[Picture] = optional(
        "the picture; left out, it is the one that is searched, which then must be the only one"
    )
    box: Maybe[Annotated[list[float], Field(min_length=4, max_length=4, fail_fast=True)]] = (
        optional("[x0, y0, x1, y1] in pixels, where the object is; left out, all over the picture")
    )
    name: Maybe[Text] = optional('what to call it; left out, "example 0" and so on')


class DetectRequest(PictureRequest):
    """Where in a picture is what some labels name, or what looks like some examples?

    With examples, of the options only `threshold` (one number), `iou_threshold` and `top_k` may be
    given.
    """

    model_config = ConfigDict(json_schema_extra=one_of(("image", "images"), ("labels", "examples")))

    labels: Maybe[Labels] = optional("distinct texts")
    examples: Maybe[Annotated[list[Example], Field(min_length=1, fail_fast=True)]] = optional(
        "pictures of one object each"
    )
    threshold: Maybe[Threshold] = optional(
        "the score that an object must exceed: one number (left out, 0.1; by example, 0), a list, "
        "one a label, or an object from every label to its own"
    )
    iou_threshold: Unit | None = Field(
        default=None,
        description="of two boxes of one label that overlap by more than this, only the better one "
        "is kept; null keeps both (left out, null; by example, 0.3)",
    )
    class_agnostic: bool = Field(
        default=False, description="compare boxes of different labels with each other too"
    )
    multi_label: bool = Field(
        default=False, description="report a box for every label that exceeds its threshold there"
    )
    soft_nms: Annotated[float, Field(ge=1e-6, le=1e6)] | None = Field(
        default=None,
        description="instead of iou_threshold, the sigma by which overlapping boxes lose score",
    )
    top_k: Count | None = Field(default=None, description="only so many of the best objects")
    templates: Templates | None = Field(default=None, description=_TEMPLATES)

    @model_validator(mode="after")
    def _one_search(self) -> "DetectRequest":
        self._check_one("labels", "examples")
        return self


class AskRequest(PictureRequest):
    """What is the answer to a question about a picture?"""

    model_config = ConfigDict(
        json_schema_extra=one_of(("image", "images"), ("question", "questions"))
    )

    question: Maybe[Text] = optional("one question")
    questions: Maybe[Texts] = optional("several questions, each asked of every picture")
    top_k: Count = Field(default=5, description="so many of the likeliest answers")

    @model_validator(mode="after")
    def _one_asked(self) -> "AskRequest":
        self._check_one("question", "questions")
        return self

    @property
    def asked(self) -> list[str]:
        """The questions, however many there are."""
        return self.questions if self.questions is not None else [self.question]  # type: ignore[list-item]


class MatchRequest(PictureRequest):
    """How well do pictures and texts belong together?"""

    model_config = ConfigDict(json_schema_extra=one_of(("image", "images"), ("text", "texts")))

    text: Maybe[Text] = optional("one text")
    texts: Maybe[Texts] = optional("several texts, each held against every picture")

    @model_validator(mode="after")
    def _one_matched(self) -> "MatchRequest":
        self._check_one("text", "texts")
        return self

    @property
    def matched(self) -> list[str]:
        """The texts, however many there are."""
        return self.texts if self.texts is not None else [self.text]  # type: ignore[list-item]


class TextInput(Strict):
    """A text among inputs of several kinds."""

    type: Literal["text"]
    text: Text


class ImageUrl(Strict):
    """Where the picture is."""

    url: Text = Field(
        description="a data: URL, or an https: URL of a host that this server fetches from"
    )


class ImageInput(Strict):
    """A picture among inputs of several kinds."""

    type: Literal["image_url"]
    image_url: ImageUrl


_INPUTS = (
    "must be a text, or an object of type text or image_url; token ids are not taken, as "
    "the tokenizer is the model's own"
)
Input: TypeAlias = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[TextInput, Tag("<text object>")]
    | Annotated[ImageInput, Tag("<picture>")],
    kinds(_INPUTS),
]


class EmbeddingsRequest(Strict):
    """Where do texts and pictures lie in the model's space?"""

    model: Maybe[str] = optional(_MODEL)
    input: Annotated[
        Annotated[Text, Tag("<text>")]
        | Annotated[Annotated[list[Input], Field(min_length=1, fail_fast=True)], Tag("<list>")],
        kinds("must be a text, or a list of texts and pictures"),
    ] = Field(description="a text, or a list of texts and pictures")
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="base64 is of little-endian float32"
    )
    dimensions: Maybe[Count] = optional("only the model's own number is valid")
    user: Maybe[str] = optional("accepted for OpenAI's clients; it has no effect")
    truncate: bool = Field(default=False, description=_TRUNCATE)
