"""That the reference is transformers' own model: its `forward`, its post-processing, its types."""

from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_vilt_checkpoint

from vlrt.errors import ImageError, OptionError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from PIL import Image  # noqa: E402

from vlrt_benchmarks.reference import load_reference  # noqa: E402
from vlrt_export.demo.scenes import draw_scene  # noqa: E402
from vlrt_export.reference import pil_processor_class  # noqa: E402

DATA = Path(__file__).parents[1] / "data"
CLIP, OWL, VILT = (DATA / f"{name}-shapes" for name in ("clip", "owlvit", "vilt"))
LABELS = ["a red circle", "a blue square", "a green triangle"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(5)
    paths = []
    for number, size_wh in enumerate([(96, 64), (64, 96), (64, 64)]):
        paths.append(root / f"{number}.png")
        draw_scene(rng, size_wh=size_wh, n_objects=2).image.save(paths[-1])
    return paths


def opened(pictures):
    return [Image.open(path).convert("RGB") for path in pictures]


@pytest.fixture(scope="module")
def clip():
    return load_reference(CLIP)


@pytest.fixture(scope="module")
def owl():
    return load_reference(OWL)


@pytest.fixture(scope="module")
def vilt():
    return load_reference(VILT)


@torch.inference_mode()
def test_clip_scores_as_its_forward_does(clip, pictures):
    pixels = pil_processor_class("CLIP").from_pretrained(CLIP)(
        images=opened(pictures), return_tensors="pt"
    )
    tokens = clip.tokenizer(LABELS, padding=True, return_tensors="pt")
    whole = clip.model(**pixels, **tokens)
    found = clip.classify(pictures, LABELS, batch_size=2)
    logits = np.stack([one.logits for one in found])
    np.testing.assert_allclose(logits, whole.logits_per_image.numpy(), atol=1e-4)
    assert {one.labels for one in found} == {tuple(LABELS)}
    np.testing.assert_allclose(clip.encode_images(pictures), whole.image_embeds.numpy(), atol=1e-6)
    np.testing.assert_allclose(clip.encode_texts(LABELS), whole.text_embeds.numpy(), atol=1e-6)


def test_templates_are_averaged_and_labels_need_be_encoded_once(clip, pictures):
    templates = ["a photo of {}", "{}"]
    encoded = clip.encode_labels(LABELS, templates=templates)
    rows = clip.encode_texts([f.format(label) for label in LABELS for f in templates])
    mean = rows.reshape(len(LABELS), 2, -1).mean(axis=1)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(encoded.embeds, expected, atol=1e-6)
    ready = clip.classify(pictures[0], encoded)
    again = clip.classify(pictures[0], LABELS, templates=templates)
    np.testing.assert_array_equal(ready.scores, again.scores)
    assert ready.scores.sum() == pytest.approx(1)


@torch.inference_mode()
@pytest.mark.parametrize("batch_size", [1, 3])
def test_owl_detects_as_its_forward_and_post_processing_do(owl, pictures, batch_size):
    processor = pil_processor_class("OwlViT").from_pretrained(OWL)
    tokens = owl.tokenizer(LABELS, padding=True, return_tensors="pt")
    found = owl.detect(pictures, LABELS, threshold=0.02, batch_size=batch_size)
    for image, one in zip(opened(pictures), found, strict=True):
        whole = owl.model(**processor(images=image, return_tensors="pt"), **tokens)
        (expected,) = processor.post_process_object_detection(
            whole, threshold=0.02, target_sizes=[(image.height, image.width)]
        )
        order = np.argsort(-expected["scores"].numpy(), kind="stable")
        assert len(one) == len(order)
        np.testing.assert_allclose(one.scores, expected["scores"].numpy()[order], atol=1e-5)
        np.testing.assert_allclose(one.boxes, expected["boxes"].numpy()[order], atol=1e-2)
        assert one.size_hw == (image.height, image.width)


def test_owl_may_count_every_label_of_a_box(owl, pictures):
    one = owl.detect(pictures[0], LABELS, threshold=0.0)
    every = owl.detect(pictures[0], LABELS, threshold=0.0, multi_label=True)
    assert len(every) == len(LABELS) * len(one)
    assert every.scores[0] == one.scores[0]
    best = owl.detect(pictures[0], LABELS, threshold=0.0, multi_label=True, top_k=5)
    np.testing.assert_array_equal(best.scores, every.scores[:5])
    # Each label of a box has that box: as often as there are places, and the same ones.
    boxes = [np.sort(every.boxes[every.label_ids == i], axis=0) for i in range(len(LABELS))]
    np.testing.assert_array_equal(boxes[0], boxes[2])


@torch.inference_mode()
@pytest.mark.parametrize("batch_size", [1, 5])
def test_vilt_answers_as_its_forward_does(vilt, pictures, batch_size):
    processor = pil_processor_class("Vilt").from_pretrained(VILT)
    questions = ["how many objects are there?", "is there a red circle?"]
    found = vilt.ask(pictures, questions, top_k=3, batch_size=batch_size)
    for image, row in zip(opened(pictures), found, strict=True):
        for question, answers in zip(questions, row, strict=True):
            tokens = vilt.tokenizer([question], return_tensors="pt")
            pixels = processor(images=image, return_tensors="pt")
            scores, best = vilt.model(**tokens, **pixels).logits[0].sigmoid().topk(3)
            words = tuple(vilt.model.config.id2label[i] for i in best.tolist())
            assert (answers.question, answers.answers) == (question, words)
            np.testing.assert_allclose(answers.scores, scores.numpy(), atol=1e-4)


@torch.inference_mode()
def test_vilt_matches_as_its_forward_does(pictures, tmp_path):
    root = write_vilt_checkpoint(tmp_path / "vilt", "ViltForImageAndTextRetrieval")
    vilt = load_reference(root)
    texts = ["a red dog", "two cats"]
    found = vilt.match(pictures, texts, batch_size=4)
    assert (found.texts, found.logits.shape) == (tuple(texts), (3, 2))
    for image, row in zip(opened(pictures), found.logits, strict=True):
        pixels = vilt.image_processor(images=image, return_tensors="pt")
        for text, logit in zip(texts, row, strict=True):
            whole = vilt.model(**vilt.tokenizer([text], return_tensors="pt"), **pixels)
            assert logit == pytest.approx(float(whole.logits), abs=1e-4)
    one = vilt.match(pictures[0], texts[0])
    np.testing.assert_allclose(one.logits, found.logits[:1, :1], atol=1e-4)


def test_one_in_gives_one_out_and_a_list_a_list(clip, owl, vilt, pictures):
    assert clip.classify(pictures[0], LABELS).best[0] in LABELS
    assert len(clip.classify(pictures[:1], LABELS)) == 1
    assert owl.detect(pictures[0], LABELS, threshold=0).size_hw == (64, 96)
    question = "how many objects are there?"
    assert vilt.ask(pictures[0], question).question == question
    assert [one.question for one in vilt.ask(pictures[:2], question)] == [question] * 2
    assert [one.question for one in vilt.ask(pictures[0], [question])] == [question]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_other_precisions_are_those_of_the_weights(pictures, dtype):
    clip = load_reference(CLIP, dtype)
    assert clip.model.dtype is {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    exact = load_reference(CLIP).encode_images(pictures)
    found = clip.encode_images(pictures)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 0.05
    owl = load_reference(OWL, dtype).detect(pictures[0], LABELS, threshold=0)
    assert np.isfinite(owl.boxes).all()
    (answers,) = load_reference(VILT, dtype).ask(pictures[:1], "is there a star?")
    assert np.isfinite(answers.scores).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((CLIP, "int8"), "precision is 'int8'; valid: fp32, bf16, fp16"),
        ((CLIP, "fp32", "gpu"), "device is 'gpu'; valid for PyTorch here: cpu"),
        ((CLIP, "fp32", "cuda:99"), "device is 'cuda:99'"),
        ((DATA,), "no config.json"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(OptionError, match=message):
        load_reference(*arguments)


def test_a_checkpoint_of_another_family_or_task_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(OptionError, match="'bert'; valid: clip, owlvit, owlv2, vilt"):
        load_reference(tmp_path)
    (tmp_path / "config.json").write_text(
        '{"model_type": "vilt", "architectures": ["ViltForMaskedLM"]}'
    )
    with pytest.raises(OptionError, match="'ViltForMaskedLM'; compared can be"):
        load_reference(tmp_path)


def test_a_broken_picture_is_named(clip, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png"):
        clip.encode_images([tmp_path / "broken.png"])
    with pytest.raises(OptionError, match="nothing to run"):
        clip.encode_images([])
