"""Running a graph on what a request of the Open Inference Protocol holds."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray
from pydantic import ValidationError

from vlrt.errors import InferenceError, LimitError, OptionError, RequestError
from vlrt.server.answering import rendered
from vlrt.server.batching import BatchingRunner
from vlrt.server.models import Catalogue
from vlrt.server.reading import told
from vlrt.server.schemas import Strict
from vlrt.server.strict_json import bounds_of_tensors, parsed_json
from vlrt.server.tensors import (
    DATATYPES,
    check_declared,
    cut,
    datatype,
    from_binary,
    from_json,
    split,
    to_binary,
    to_json,
)
from vlrt.server.v2_schemas import InferRequest

S = TypeVar("S", bound=Strict)

VERSION = "1"  # of every model: a server has each once
# Of one request, in batches of its graph. More rows than a batch are run as they are.
MOST_BATCHES = 4


class Graph(NamedTuple):
    """A model of the protocol.

    Attributes:
        name: as the protocol calls it.
        model: of the catalogue, whose graph it is.
        runner: runs it.
    """

    name: str
    model: str
    runner: BatchingRunner


class Answer(NamedTuple):
    """What a request is answered with.

    Attributes:
        head: JSON.
        tensors: binary data, each named in the JSON.
    """

    head: bytes
    tensors: list[bytes]


def graphs_of(catalogue: Catalogue) -> dict[str, Graph]:
    """All graphs, by what the protocol calls them.

    Raises:
        OptionError: two would be called the same.
    """
    found: dict[str, Graph] = {}
    for served in catalogue:
        for component, runner in served.graphs.items():
            alone = len(served.graphs) == 1
            name = served.name if alone else f"{served.name}.{component}"
            if name in found:
                raise OptionError(
                    f"two graphs would be {name!r} in the Open Inference Protocol, of the models "
                    f"{found[name].model!r} and {served.name!r}; call one of them something else"
                )
            found[name] = Graph(name, served.name, runner)
    return found


def infer(graph: Graph, body: bytes, header_length: str | None) -> Answer:
    """Run a graph on what a request holds.

    Args:
        graph: which.
        body: of the request.
        header_length: what its header says of it.

    Raises:
        RequestError: the body is not what it should be, or ONNX Runtime refuses what is in it.
        OptionError: a field is missing, unknown, or not valid.
        LimitError: there are too many rows.
    """
    head, data = split(body, header_length)
    asked = read(InferRequest, head)
    return _answer(graph, asked, run(graph, asked, data))


def run(graph: Graph, asked: InferRequest, data: memoryview) -> dict[str, NDArray[Any]]:
    """The outputs that a request wants of a graph, in the order in which it names them.

    Args:
        graph: which.
        asked: the request.
        data: the binary data of its inputs.

    Raises:
        RequestError, LimitError: see `infer`.
    """
    wanted = _wanted(graph, asked)
    inputs = _inputs(graph, asked, data)
    try:
        outputs = graph.runner.run(inputs)
    except InferenceError as error:
        if error.__cause__ is None:  # the server's own: its worker has ended
            raise
        raise RequestError(str(error)) from error
    return {name: outputs[name] for name in wanted}


def read(model: type[S], text: bytes) -> S:
    """A request out of its JSON.

    Raises:
        RequestError: it is no JSON.
        OptionError: a field is missing, unknown, or not valid; all of them are named.
        LimitError: it is more than is taken as JSON.
    """
    try:
        return model.model_validate(parsed_json(text, bounds_of_tensors()))
    except LimitError as error:
        raise LimitError(f"{error}; tensors may come as binary data too") from error
    except ValidationError as error:
        raise OptionError(told(error, model)) from error


def _wanted(graph: Graph, asked: InferRequest) -> dict[str, bool]:
    """The outputs that a request wants, and which of them as binary data."""
    known = graph.runner.outputs
    default = asked.parameters is not None and asked.parameters.binary_data_output
    if not asked.outputs:
        return dict.fromkeys(known, default)
    names = [one.name for one in asked.outputs]
    if len(set(names)) < len(names) or not set(names) <= set(known):
        raise RequestError(f"outputs are {names!s:.200}; valid: {list(known)}, each at most once")
    own = [one.binary for one in asked.outputs]
    return {
        name: default if binary is None else binary for name, binary in zip(names, own, strict=True)
    }


def _inputs(graph: Graph, asked: InferRequest, data: memoryview) -> dict[str, NDArray[Any]]:
    """The tensors that a request brings."""
    declared = graph.runner.inputs
    names = [one.name for one in asked.inputs]
    if sorted(names) != sorted(declared):
        raise RequestError(f"inputs are {names!s:.200}; valid: {list(declared)}, each once")
    sizes: dict[str, int] = {}
    for one in asked.inputs:
        if (one.data is None) == (one.size is None):
            raise RequestError(f"input {one.name!r}: give either data or binary_data_size")
        check_declared(f"input {one.name!r}", one.datatype, one.shape, declared[one.name])
        if one.size is not None:
            sizes[one.name] = one.size
    _check_rows(graph, {one.name: one.shape[0] for one in asked.inputs})
    parts = dict(zip(sizes, cut(data, [*sizes.items()]), strict=True))
    found: dict[str, NDArray[Any]] = {}
    for one in asked.inputs:
        what, dtype = f"input {one.name!r}", DATATYPES[one.datatype]
        found[one.name] = (
            from_binary(what, parts[one.name], one.shape, dtype)
            if one.name in parts
            else from_json(what, one.data, one.shape, dtype)
        )
    return found


def _check_rows(graph: Graph, rows: Mapping[str, int]) -> None:
    if len(set(rows.values())) > 1:
        raise RequestError(f"inputs have different numbers of rows (axis 0): {dict(rows)}")
    most = MOST_BATCHES * graph.runner.max_batch
    given = max(rows.values())
    if given > most:
        raise LimitError(f"{given} rows (axis 0) in a request; {graph.name} takes {most}")


def _answer(graph: Graph, asked: InferRequest, outputs: Mapping[str, NDArray[Any]]) -> Answer:
    tensors: list[bytes] = []
    described: list[str] = []
    for name, binary in _wanted(graph, asked).items():
        array = outputs[name]
        one: dict[str, Any] = {
            "name": name,
            "shape": array.shape,
            "datatype": datatype(array.dtype),
        }
        if binary:
            tensors.append(to_binary(array))
            one["parameters"] = {"binary_data_size": len(tensors[-1])}
            described.append(rendered(one))
        else:
            data = to_json(f"output {name!r}", array)
            described.append(f'{rendered(one)[:-1]},"data":{data}}}')
    head = {
        "model_name": graph.name,
        "model_version": VERSION,
        **({} if asked.id is None else {"id": asked.id}),
    }
    text = f'{rendered(head)[:-1]},"outputs":[{",".join(described)}]}}'
    return Answer(text.encode(), tensors)
