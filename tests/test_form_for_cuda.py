"""What a GPU runs, run on the CPU: bytes in, fused operators, similarities of their own graph.

Results are those of the standard graphs. Where nodes run on a GPU, and what is copied, `tests/cuda`
shows; what they compute there takes one.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from pictures import FILES, picture

import vlrt
from vlrt.bundle import FOR_CUDA, open_bundle
from vlrt.device import OnDevice
from vlrt.errors import BundleError, ImageError, InferenceError, OptionError
from vlrt.load import import_family
from vlrt.session import Session, place
from vlrt.similarity import SIMILARITY_RUNNER, Similarity

pytest.importorskip("onnx", reason="bundles are written by onnx")

LABELS = ["a red ring", "a blue star", "a green heart", "a circle"]
QUESTIONS = ["how many stars are there?", "what color is the ring?"]
SAME_ABS = 2e-5  # logits of fp32 graphs that sum in another order
PICTURES = [
    picture("RGB", size, seed=n) for n, size in enumerate([(200, 120), (90, 160), (64, 64)])
]


class OnHost(Session):
    """A graph on the CPU that keeps what it is asked to as if it stood on a GPU, padded."""

    def run_on_device(self, inputs, *, fetch, keep=()):
        arrays = {
            name: one.value.array if isinstance(one, OnDevice) else one
            for name, one in inputs.items()
        }
        self.fetched, found = list(fetch), self.run(arrays)
        return {name: found[name] for name in fetch} | {
            name: OnDevice(
                SimpleNamespace(array=np.concatenate([found[name], found[name][-1:]])),
                len(found[name]),
            )
            for name in keep
        }

    def upload(self, array):
        self.uploads = [*getattr(self, "uploads", []), array.shape]
        return OnDevice(SimpleNamespace(array=array), len(array))


@pytest.fixture(scope="module", params=["clip", "owlvit", "vilt"])
def bundle(request, tmp_path_factory):
    from vlrt_export import pipeline, reference

    out = tmp_path_factory.mktemp("bundles") / request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "missing", lambda: ["torch"])  # other tests prove
        checkpoint = f"tests/data/{request.param}-shapes"
        pipeline.export(checkpoint, out, precisions=["fp32"], say=lambda line: None)
    return out


def on_host(root, *, similarity=False):
    """A model of the graphs for CUDA, on the CPU."""
    described = open_bundle(root)
    family = import_family(described.config["model_type"])
    paths = described.fetch(family.COMPONENTS, "fp32", form=FOR_CUDA)
    if similarity:
        paths[SIMILARITY_RUNNER] = described.fetch_similarity()
    sessions = {name: OnHost(path, place("cpu"), threads=1) for name, path in paths.items()}
    info = {"threads": 1, "decode": "exact", "pixels": "uint8", "padded": True}
    return family.Model(described, sessions, info=info, values=described.values)


def standard(root):
    return vlrt.load(root, device="cpu", precision="fp32", threads=1)


def answers(model, pictures):
    """What a model says of pictures, as rows of numbers that can be compared."""
    if hasattr(model, "classify"):
        return [found.logits for found in model.classify(pictures, LABELS)]
    if hasattr(model, "detect"):
        found = model.detect(pictures, LABELS, threshold=0.0)
        return [np.column_stack([one.scores, one.boxes / 100, one.label_ids]) for one in found]
    return [
        np.array([one.scores, [model._labels.index(word) for word in one.answers]])
        for row in model.ask(pictures, QUESTIONS)
        for one in row
    ]


def test_results_are_those_of_the_standard_graphs(bundle):
    ours, theirs = answers(on_host(bundle), PICTURES), answers(standard(bundle), PICTURES)
    for a, b in zip(ours, theirs, strict=True):
        assert np.allclose(a, b, atol=SAME_ABS, rtol=0)


@pytest.mark.parametrize("kind", sorted(FILES))
def test_every_kind_of_picture_is_seen_alike(bundle, kind):
    data = FILES[kind]()
    try:
        (theirs,) = answers(standard(bundle), [data])[:1]
    except ImageError as error:
        with pytest.raises(ImageError, match=str(error)[:20]):
            answers(on_host(bundle), [data])
        return
    (ours,) = answers(on_host(bundle), [data])[:1]
    assert np.allclose(ours, theirs, atol=SAME_ABS, rtol=0)


def test_a_graph_for_bytes_refuses_the_processor_of_another_family():
    from vlrt.padded import PaddedProcessor

    with pytest.raises(BundleError, match="resized in fractions"):
        PaddedProcessor.as_bytes(None)


def test_floats_are_not_taken_for_bytes(bundle):
    described = open_bundle(bundle)
    component = "model" if "model" in described.variants else "vision_model"
    paths = described.fetch((component,), "fp32", form=FOR_CUDA)
    session = Session(paths[component], place("cpu"), threads=1)
    shapes = {name: [size or 64 for size in one.shape] for name, one in session.inputs.items()}
    given = {name: np.ones(shape, session.inputs[name].dtype) for name, shape in shapes.items()}
    given["pixel_values"] = given["pixel_values"].astype(np.float32)
    with pytest.raises(InferenceError, match=r"pixel_values of the graph is bytes, uint8 \[None"):
        session.run(given)


# --- similarities ---------------------------------------------------------------------------------


def compared(bundle):
    """A model whose similarities have a graph of their own, and the standard one."""
    if open_bundle(bundle).config["model_type"] == "vilt":
        pytest.skip("it reads pictures and texts together")
    return on_host(bundle, similarity=True), standard(bundle)


def test_similarities_of_a_graph_are_those_of_numpy(bundle):
    ours, theirs = compared(bundle)
    for a, b in zip(answers(ours, PICTURES), answers(theirs, PICTURES), strict=True):
        assert np.allclose(a, b, atol=SAME_ABS, rtol=0)


def test_a_picture_that_cannot_be_read_leaves_the_others(bundle):
    ours, _ = compared(bundle)
    method = "iter_classify" if hasattr(ours, "classify") else "iter_detect"
    for pictures in ([b"none"], [b"none", PICTURES[0], b"no", PICTURES[1]]):
        found = list(getattr(ours, method)(pictures, LABELS, batch_size=3))
        assert [source for source, _ in found] == pictures
        failed = [isinstance(one, ImageError) for _, one in found]
        assert failed == [isinstance(one, bytes) for one in pictures]


def test_labels_are_uploaded_once_for_as_long_as_they_are_held(bundle):
    ours, _ = compared(bundle)
    labels = ours.encode_labels(LABELS)
    method = ours.classify if hasattr(ours, "classify") else ours.detect
    for _ in range(3):
        method(PICTURES, labels)
    graphs = ours._similarity if hasattr(ours, "_similarity") else ours._graphs._similarity
    assert isinstance(graphs, Similarity)
    assert graphs._session.uploads == [labels.embeds.shape]
    assert list(graphs._labels) == [labels]
    del labels
    assert not list(graphs._labels)


def test_of_a_detector_the_best_of_each_place_alone_is_fetched(bundle):
    ours, theirs = compared(bundle)
    if not hasattr(ours, "detect"):
        pytest.skip("no detector")
    graph = ours._graphs._similarity._session
    ours.detect(PICTURES[0], LABELS)
    assert graph.fetched == ["best_logits", "best_labels"]
    options = {"threshold": 0.01, "multi_label": True, "top_k": 20}
    ours_all, theirs_all = (m.detect(PICTURES, LABELS, **options) for m in (ours, theirs))
    assert graph.fetched == ["logits"]
    for a, b in zip(ours_all, theirs_all, strict=True):
        assert a.names == b.names
        assert np.allclose(a.scores, b.scores, atol=SAME_ABS)


def test_pictures_that_are_encoded_already_are_compared_too(bundle):
    ours, theirs = compared(bundle)
    if not hasattr(ours, "detect"):
        pytest.skip("no detector")
    encoded = [*ours.encode_image(PICTURES[:2]), PICTURES[2]]
    found = ours.detect(encoded, LABELS, threshold=0.0)
    for a, b in zip(found, theirs.detect(PICTURES, LABELS, threshold=0.0), strict=True):
        assert np.allclose(a.scores, b.scores, atol=SAME_ABS)
    like, alike = (m.detect_like(PICTURES[0], PICTURES[1]) for m in (ours, theirs))
    assert np.allclose(like.scores, alike.scores, atol=SAME_ABS)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"similarity": "gpu"}, "similarity is 'gpu'; valid: numpy, device"),
        ({"similarity": "device"}, "is for graphs on a GPU .* run on CPUExecutionProvider"),
    ],
)
def test_where_they_cannot_be_had_they_are_refused(bundle, options, says):
    with pytest.raises(OptionError, match=says):
        vlrt.load(bundle, device="cpu", **options)


def test_a_bundle_without_their_graph_says_so(bundle, own_bundle):
    (own_bundle / "vlrt.json").unlink()
    for root in (own_bundle, *([bundle] if bundle.name == "vilt" else [])):
        with pytest.raises(BundleError, match="no graph of similarities"):
            open_bundle(root).fetch_similarity()
