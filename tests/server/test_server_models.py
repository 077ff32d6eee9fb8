"""Which model answers what: by name, by task, and loaded so that its graphs are shared."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the server extra")

import vlrt
from vlrt import demo
from vlrt.errors import BundleNotFoundError, NotServedError, RequestError
from vlrt.server import models
from vlrt.server.batching import BatchingRunner, Scheduler
from vlrt.server.models import TASKS, Catalogue, Served, load_all
from vlrt.server.settings import ModelSettings


def served(name, *tasks):
    model = SimpleNamespace(info={"task": f"the task of {name}"})
    return Served(name, model, frozenset(tasks), {})


CLIP = served("clip", "classify", "embeddings")
OWL, OWL2 = served("owl", "detect"), served("owl2", "detect")
NLVR2 = served("nlvr2")


@pytest.mark.parametrize(
    ("those", "task", "name", "chosen"),
    [
        ([CLIP], "classify", None, "clip"),
        ([CLIP, OWL], "detect", None, "owl"),
        ([CLIP, OWL, OWL2], "detect", "owl2", "owl2"),
        ([CLIP, OWL, OWL2], "embeddings", "clip", "clip"),
    ],
)
def test_a_task_finds_its_model(those, task, name, chosen):
    assert Catalogue(those).choose(task, name).name == chosen


@pytest.mark.parametrize(
    ("those", "task", "name", "error", "words"),
    [
        ([], "classify", None, NotServedError, "no model of this server serves classify"),
        ([NLVR2], "ask", None, NotServedError, "no model of this server serves ask"),
        ([CLIP], "classify", "dog", NotServedError, "there is no model 'dog'; valid: clip"),
        ([CLIP], "classify", "", NotServedError, "there is no model ''; valid: clip"),
        ([CLIP, OWL], "detect", "clip", NotServedError, "the task of clip, which.*valid: owl"),
        ([CLIP], "detect", "clip", NotServedError, "does not serve detect$"),
        ([OWL, OWL2], "detect", None, RequestError, r"several.*\['owl', 'owl2'\]"),
    ],
)
def test_a_task_without_one_model_says_so(those, task, name, error, words):
    with pytest.raises(error, match=words):
        Catalogue(those).choose(task, name)


def test_the_catalogue_keeps_the_order():
    catalogue = Catalogue([OWL, CLIP])
    assert catalogue.names == [one.name for one in catalogue] == ["owl", "clip"]
    assert len(catalogue) == 2


@pytest.fixture(scope="module")
def loaded():
    scheduler = Scheduler()
    settings = [
        ModelSettings(
            name=f"{family}-demo", source=str(demo.bundle(family)), device="cpu", max_batch=rows
        )
        for family, rows in (("clip", None), ("owlvit", 3), ("vilt", None))
    ]
    catalogue = load_all(settings, scheduler)
    scheduler.start()
    yield catalogue
    scheduler.close()


def test_each_bundle_serves_what_it_can(loaded):
    assert {one.name: set(one.tasks) for one in loaded} == {
        "clip-demo": {"classify", "embeddings"},
        "owlvit-demo": {"detect"},
        "vilt-demo": {"ask"},
    }


def test_all_graphs_are_shared_and_take_as_many_rows_as_the_library_or_the_settings_say(loaded):
    graphs = {
        (one.name, component): graph for one in loaded for component, graph in one.graphs.items()
    }
    assert all(isinstance(graph, BatchingRunner) for graph in graphs.values())
    assert {key: graph.max_batch for key, graph in graphs.items()} == {
        ("clip-demo", "vision_model"): 16,
        ("clip-demo", "text_model"): 16,
        ("owlvit-demo", "vision_model"): 3,
        ("owlvit-demo", "text_model"): 3,
        ("vilt-demo", "model"): 8,
    }


@pytest.mark.parametrize(
    ("methods", "tasks", "shapes", "apart", "asked", "rows"),
    [
        ((), [], {"x": (None, 3)}, True, None, 1),
        ((), [], {"x": (None, 3)}, True, 5, 5),
        (("detect", "encode_labels"), ["detect"], {"x": (None, 3)}, True, None, 4),
        (("detect", "encode_labels"), ["detect"], {"x": (None, 3)}, True, 32, 32),
        (("detect", "encode_labels"), ["detect"], {"x": (None, 3)}, False, None, 1),
        (("detect", "encode_labels"), ["detect"], {"x": (None, 3)}, False, 32, 32),
        (("detect",), ["detect"], {"x": (None, 3)}, True, 32, 1),
        (("detect", "encode_labels"), ["detect"], {"x": (None, 3), "y": (1, 3)}, True, 32, 1),
        (("detect", "encode_labels"), ["detect"], {"x": ()}, True, None, 1),
    ],
)
def test_rows_are_run_together_only_where_each_is_by_itself(
    methods, tasks, shapes, apart, asked, rows
):
    model = SimpleNamespace(
        methods=methods, info={"rows_apart": apart}, detect=lambda images, batch_size=4: None
    )
    graph = SimpleNamespace(input_shapes=shapes)
    assert models._max_batch(graph, model, tasks, asked) == rows


def test_a_shared_model_gives_what_the_library_gives(loaded):
    own = vlrt.load(demo.bundle("clip"), device="cpu")
    picture = demo.ROOT / "pictures" / "shape-1.jpg"
    labels = ["a red star", "a blue ring"]
    model = loaded.get("clip-demo").model
    np.testing.assert_array_equal(
        model.classify(picture, labels).logits, own.classify(picture, labels).logits
    )


def test_every_task_can_be_warmed_up(loaded):
    assert {task for one in loaded for task in one.tasks} == set(TASKS) - {"match"}
    for one in loaded:
        one.warm_up()


def test_a_model_that_cannot_be_loaded_says_so(tmp_path):
    missing = ModelSettings(name="x", source=str(tmp_path / "nothing"), device="cpu", offline=True)
    with pytest.raises(BundleNotFoundError, match="nothing"):
        load_all([missing], Scheduler())
