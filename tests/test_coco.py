"""COCO's result format, and pycocotools reading it."""

import contextlib
import io
import json
from pathlib import PurePath

import numpy as np
import pytest

from vlrt import coco
from vlrt.errors import OptionError
from vlrt.results import Detections


def detections(boxes, scores, label_ids, size_hw=(40, 60), labels=("cat", "dog")):
    return Detections(
        labels,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(label_ids, np.intp),
        size_hw,
    )


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        ([], []),
        (["000000039769.jpg"], [39769]),
        (["000000039769.jpg", "a/7.png"], [39769, 7]),
        (["000000039769.jpg", "cat.jpg"], [1, 2]),
        (["-1.jpg", "2.jpg"], [1, 2]),
        (["²"], [1]),
        (["x.jpg", "x.jpg"], [1, 2]),
    ],
)
def test_ids_are_the_numbers_in_the_names_or_else_positions(names, ids):
    assert coco.image_ids([PurePath(name) for name in names]) == ids


def test_two_pictures_with_one_id_are_refused():
    with pytest.raises(OptionError, match=r"a/01\.jpg.*b/1\.jpg.*image_id 1"):
        coco.image_ids([PurePath("a/01.jpg"), PurePath("b/1.jpg")])


def test_no_objects_make_no_entries():
    assert coco.entries(detections([], [], []), image_id=1, file_name="x.jpg") == []


def test_an_entry_holds_a_clipped_box_with_its_size():
    found = detections([[-5, 10, 70, 30.5]], [0.5], [1])
    assert json.loads(json.dumps(coco.entries(found, image_id=7, file_name="x.jpg"))) == [
        {"image_id": 7, "category_id": 2, "bbox": [0, 10, 60, 20.5], "score": 0.5,
         "file_name": "x.jpg", "category": "dog"}
    ]  # fmt: skip


def test_pycocotools_evaluates_the_entries(tmp_path):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    boxes = [[5, 5, 25, 25], [30, 10, 55, 35]]
    truth = {
        "info": {},
        "images": [{"id": 39769, "width": 60, "height": 40}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i + 1, "image_id": 39769, "category_id": i + 1, "iscrowd": 0,
             "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
            for i, (x0, y0, x1, y1) in enumerate(boxes)
        ],
    }  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    found = coco.entries(detections(boxes, [0.9, 0.8], [0, 1]), image_id=39769, file_name="x")
    (tmp_path / "found.json").write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(tmp_path / "truth.json"))
        judged = COCOeval(reference, reference.loadRes(str(tmp_path / "found.json")), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    assert judged.stats[0] == pytest.approx(1.0)
