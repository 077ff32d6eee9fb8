"""What requests and answers of the Open Inference Protocol hold; tensors' numbers apart.

Clients write null for what they leave out, so that is the same here.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from vlrt.server.schemas import Strict
from vlrt.server.tensors import DATATYPES

Shape: TypeAlias = Annotated[
    list[Annotated[int, Field(json_schema_extra={"minimum": 1})]], Field(fail_fast=True)
]
Datatype: TypeAlias = Annotated[str, Field(json_schema_extra={"enum": list(DATATYPES)})]


class InputParameters(Strict):
    """How an input comes."""

    binary_data_size: int | None = Field(
        default=None,
        description="bytes of it among those that follow the JSON, in the order of the inputs",
        json_schema_extra={"minimum": 0},
    )


class Input(Strict):
    """A tensor for the graph: its numbers in `data`, or as binary data."""

    name: str
    shape: Shape
    datatype: Datatype
    data: list[Any] | None = Field(
        default=None, description="all numbers in one list, or lists in lists as the shape says"
    )
    parameters: InputParameters | None = None

    @property
    def size(self) -> int | None:
        """Bytes of it, if it is binary data."""
        return None if self.parameters is None else self.parameters.binary_data_size


class OutputParameters(Strict):
    """How an output is wanted."""

    binary_data: bool | None = Field(
        default=None, description="left out, as the request's binary_data_output says"
    )


class Output(Strict):
    """An output that is wanted."""

    name: str
    parameters: OutputParameters | None = None

    @property
    def binary(self) -> bool | None:
        """Whether as binary data, if the request says so of this one."""
        return None if self.parameters is None else self.parameters.binary_data


class RequestParameters(Strict):
    """How outputs are wanted."""

    binary_data_output: bool = Field(
        default=False, description="as binary data that follows the JSON, all of them"
    )


class InferRequest(Strict):
    """Run a graph on tensors."""

    id: str | None = Field(default=None, description="comes back in the answer")
    inputs: list[Input] = Field(min_length=1, fail_fast=True)
    outputs: Annotated[list[Output], Field(fail_fast=True)] | None = Field(
        default=None, description="left out or empty, all"
    )
    parameters: RequestParameters | None = None


class IndexRequest(Strict):
    """Which models are there?"""

    ready: bool = Field(default=False, description="only those that are ready")


class AnsweredParameters(BaseModel):
    """How an output comes."""

    binary_data_size: int


class AnsweredTensor(BaseModel):
    """An output: its numbers in `data`, or binary data that follows the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: AnsweredParameters | None = None


class InferAnswer(BaseModel):
    """What the graph gave."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[AnsweredTensor]


class ServerLive(BaseModel):
    """The server answers."""

    live: Literal[True]


class ServerReady(BaseModel):
    """The server takes requests."""

    ready: Literal[True]


class ModelReady(BaseModel):
    """The model takes requests."""

    name: str
    ready: Literal[True]


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """What a graph says of an input or output; -1 is an axis that it leaves open."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a graph takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Indexed(BaseModel):
    """A model of the server."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


def body(model: type[Strict], *others: str, required: bool = True) -> dict[str, Any]:
    """The body of a route that reads it itself, for its `openapi_extra`.

    Args:
        model: of it as JSON.
        others: media types that it may be of as well.
        required: whether there must be one.
    """
    described = model.model_json_schema()
    schema = _inlined(described, described.pop("$defs", {}))
    content: dict[str, Any] = {
        "application/json": {"schema": schema},
        **{one: {} for one in others},
    }
    return {"requestBody": {"required": required, "content": content}}


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema that refers to nothing outside of it."""
    match schema:
        case {"$ref": str(name)}:
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            return {**_inlined(definitions[name.rpartition("/")[2]], definitions), **rest}
        case dict():
            return {key: _inlined(value, definitions) for key, value in schema.items()}
        case list():
            return [_inlined(value, definitions) for value in schema]
    return schema
