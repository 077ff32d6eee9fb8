"""OWLv2 at run time: what differs from OWL-ViT."""

import numpy as np
import pytest
from owl import make, one_graph, see, torch_model, towers
from pictures import picture
from tolerances import BATCHING_ABS

from vlrt import boxes as geometry
from vlrt.errors import BundleError, ImageError
from vlrt.padded import PaddedProcessor
from vlrt.results import EncodedImage

LABELS = ["a cat", "the red dog"]


@pytest.fixture
def owl(tmp_path):
    return make(tmp_path, "owlv2", towers())


def test_pictures_are_padded_and_boxes_measured_by_the_longer_side(owl):
    model = owl.model
    assert isinstance(model.processor, PaddedProcessor)
    for size_wh in [(64, 48), (48, 64), (1, 1), (500, 3)]:
        image = picture("RGB", size_wh)
        found = model.detect(image, LABELS, threshold=0)
        pixels = model.processor([image])
        expected = geometry.center_to_corners(see(pixels)["pred_boxes"][0].astype(np.float32))
        expected = expected * np.float32(max(size_wh))
        assert found.size_hw == size_wh[::-1]
        assert sorted(map(tuple, found.boxes)) == sorted(map(tuple, expected))


def test_an_example_is_the_place_of_the_highest_objectness(owl):
    example = picture("RGB", (50, 40), seed=3)
    encoded = owl.model.encode_image(example)
    place = encoded.objectness_logits.argmax()
    expected = encoded.class_embeds[place] / np.linalg.norm(encoded.class_embeds[place])
    found = owl.model.encode_examples(example).embeds[0]
    assert np.abs(found - expected).max() <= BATCHING_ABS["fp32"]


def test_an_example_in_a_box_is_the_place_whose_box_is_most_like_it(owl):
    example = owl.model.encode_image(picture("RGB", (50, 40), seed=3))
    corners = geometry.center_to_corners(example.pred_boxes)
    pixels = owl.model.processor.to_pixels(corners, example.size_hw)
    inside = [
        n for n, box in enumerate(geometry.clip(pixels, (40, 50))) if geometry.area(box[None])
    ]
    assert inside
    for place in inside:
        (found,) = owl.model.encode_examples(example, boxes=[pixels[place]]).embeds
        cosines = example.class_embeds @ found / np.linalg.norm(example.class_embeds, axis=1)
        assert cosines.argmax() == place


def test_a_box_that_no_place_touches_shows_nothing(owl):
    image = owl.model.encode_image(picture())
    nowhere = np.full_like(image.pred_boxes, 0.9)
    nowhere[:, 2:] = 0.01
    away = EncodedImage(**{**vars(image), "pred_boxes": nowhere})
    with pytest.raises(ImageError, match=r"nothing was found in .* 'example 0' at \[0, 0, 3, 3\]"):
        owl.model.encode_examples(away, boxes=[(0, 0, 3, 3)])


def test_a_graph_without_objectness_says_so(tmp_path):
    def seen(pixel_values):
        outputs = see(pixel_values)
        del outputs["objectness_logits"]
        return outputs

    model = make(tmp_path, "owlv2", towers(seen=seen)).model
    assert model.encode_image(picture()).objectness_logits is None
    with pytest.raises(BundleError, match="no objectness_logits"):
        model.encode_examples(picture())


def test_a_foreign_graph_detects_the_same(tmp_path, owl):
    model = make(tmp_path / "foreign", "owlv2", one_graph()).model
    images = [picture("RGB", (64, 48)), picture("RGB", (20, 60), seed=1)]
    options = {"threshold": 0.3, "multi_label": True}
    both = (m.detect(images, LABELS, **options) for m in (model, owl.model))
    for found, expected in zip(*both, strict=True):
        assert len(found)
        assert found.label_ids.tolist() == expected.label_ids.tolist()
        assert np.array_equal(found.boxes, expected.boxes)
        assert np.abs(found.scores - expected.scores).max() <= BATCHING_ABS["fp32"]


@pytest.mark.torch
def test_the_place_of_an_example_is_that_of_transformers(owl):
    torch = pytest.importorskip("torch")
    reference = torch_model("Owlv2")
    with torch.no_grad():
        features = torch.randn(6, 36, 16)
        expected = reference.embed_image_query(features, features.reshape(6, 6, 6, 16))
        embeds = reference.class_predictor(features)[1].numpy()
        objectness = reference.objectness_predictor(features).numpy()
    zeros = np.zeros(36, np.float32)
    for n in range(6):
        pred_boxes = expected[2][n].numpy()
        image = EncodedImage(
            embeds[n],
            zeros,
            zeros,
            pred_boxes,
            objectness[n],
            (9, 9),
            owl.model._graphs.fingerprint,
        )
        place = owl.model._example_place(image, None)
        assert place == int(expected[1][n])
        assert np.array_equal(embeds[n][place], expected[0][n, 0].numpy())
