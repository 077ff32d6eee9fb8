"""The models of a server: loaded so that requests share their graphs, found by name or by task."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from vlrt.errors import NotServedError, RequestError
from vlrt.load import load
from vlrt.server.batching import BatchingRunner, Scheduler
from vlrt.session import Session

if TYPE_CHECKING:
    from vlrt.server.settings import ModelSettings

# What is asked of a server -> the methods that a model needs for it, the first of which decides how
# many rows run together.
TASKS: Mapping[str, tuple[str, ...]] = {
    "classify": ("classify",),
    "detect": ("detect",),
    "ask": ("ask",),
    "match": ("match",),
    "embeddings": ("encode_images", "encode_texts"),
}
# The shortest request of each task, to be made before the first user's.
_FIRST: Mapping[str, Callable[[Any, Image.Image], Any]] = {
    "classify": lambda model, picture: model.classify(picture, ["a"]),
    "detect": lambda model, picture: model.detect(picture, ["a"]),
    "ask": lambda model, picture: model.ask(picture, "what?"),
    "match": lambda model, picture: model.match(picture, "a"),
    "embeddings": lambda model, picture: model.encode_images([picture]),
}


@dataclass(frozen=True)
class Served:
    """A model that requests share.

    Attributes:
        name: as requests call it.
        model: as `vlrt.load` gives it.
        tasks: which of `TASKS` it serves; of other tasks, its graphs alone.
        graphs: its graphs, by component.
    """

    name: str
    model: Any
    tasks: frozenset[str]
    graphs: Mapping[str, BatchingRunner]

    @property
    def info(self) -> Mapping[str, Any]:
        """What `vlrt.load` decided."""
        info: Mapping[str, Any] = self.model.info
        return info

    def warm_up(self) -> None:
        """Make the first request of each task, so that no user has to wait for its like."""
        picture = Image.new("RGB", (640, 480))
        for task in sorted(self.tasks):
            _FIRST[task](self.model, picture)


class Catalogue:
    """The models of a server, in the order in which they were named.

    Args:
        served: of distinct names.
    """

    def __init__(self, served: Sequence[Served]) -> None:
        self._served = {one.name: one for one in served}

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def __len__(self) -> int:
        return len(self._served)

    @property
    def names(self) -> list[str]:
        """What the models are called."""
        return list(self._served)

    def get(self, name: str) -> Served:
        """The model of a name.

        Raises:
            NotServedError: there is none.
        """
        if name not in self._served:
            raise NotServedError(f"there is no model {name!r:.80}; valid: {', '.join(self.names)}")
        return self._served[name]

    def choose(self, task: str, name: str | None = None) -> Served:
        """The model for a task: the one named or, if it alone serves the task, the only one.

        Args:
            task: a key of `TASKS`.
            name: as the request calls it, if it does.

        Raises:
            NotServedError: no model serves the task, or not the one named, or there is none of
                that name.
            RequestError: several serve it, and none is named.
        """
        able = [one.name for one in self if task in one.tasks]
        if name is not None:
            served = self.get(name)
            if task in served.tasks:
                return served
            others = f"; valid: {', '.join(able)}" if able else ""
            raise NotServedError(
                f"{name} is a model for {served.info['task']}, which does not serve {task}{others}"
            )
        if not able:
            raise NotServedError(f"no model of this server serves {task}")
        if len(able) > 1:
            raise RequestError(f"several models serve {task}; name one as 'model': {able}")
        return self._served[able[0]]


def load_all(settings: Sequence["ModelSettings"], scheduler: Scheduler) -> Catalogue:
    """Load models whose graphs run where a scheduler says.

    Raises:
        VlrtError: one cannot be loaded (see `vlrt.load`).
    """
    return Catalogue([_load(each, scheduler) for each in settings])


def _load(settings: "ModelSettings", scheduler: Scheduler) -> Served:
    graphs: dict[str, BatchingRunner] = {}

    def shared(component: str, session: Session) -> BatchingRunner:
        graphs[component] = scheduler.runner(settings.name, component, session, max_batch=1)
        return graphs[component]

    model = load(
        settings.source,
        precision=settings.precision,
        device=settings.device,
        providers=settings.providers,
        revision=settings.revision,
        offline=settings.offline,
        threads=settings.threads,
        spinning=settings.spinning,
        decode=settings.decode,
        values=settings.values,
        memory_limit=settings.memory_limit,
        cuda_graph=settings.cuda_graph,
        engine_cache=settings.engine_cache,
        wrap=shared,
    )
    tasks = [name for name, needed in TASKS.items() if set(needed) <= set(model.methods)]
    for graph in graphs.values():
        graph.max_batch = _max_batch(graph, model, tasks, settings.max_batch)
    return Served(settings.name, model, frozenset(tasks), graphs)


def _max_batch(graph: BatchingRunner, model: Any, tasks: Sequence[str], asked: int | None) -> int:
    """How many rows of a graph are run together.

    It is what was asked for, or what the library runs together by default in the first task. But
    it is one where rows are not each by itself: in a detector of one graph, which shows all its
    labels to one picture, and where a graph fixes their number. And it is one, unless it was asked
    for, where results may depend on what else is in a batch.
    """
    one_piece = "detect" in tasks and "encode_labels" not in model.methods
    if one_piece or any(shape[:1] != (None,) for shape in graph.input_shapes.values()):
        return 1
    if asked is not None:
        return asked
    if not model.info["rows_apart"]:
        return 1
    for task in tasks:
        method = getattr(model, TASKS[task][0])
        return int(inspect.signature(method).parameters["batch_size"].default)
    return 1
