"""A contender of `detection.py`, a program of its own: load, warm up, detect again and again.

    python detect_many.py vlrt|model|pipeline JOB

JOB is JSON: model (the directory of a bundle or checkpoint), precision, pictures, labels,
warm_up_labels, threads, repeats. The first line printed holds the scores in the first picture, best
first, the second the seconds that each of the repeats took, over all pictures. A repeat starts from
the files.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

THRESHOLD = 0.1
Job = dict[str, Any]
# Pictures and labels -> the scores in the first picture.
Detect = Callable[[list[str], list[str]], list[float]]


def load_vlrt(job: Job) -> Detect:
    """The labels are encoded once a call, each picture once."""
    import vlrt

    owl = vlrt.load(job["model"], precision=job["precision"], device="cpu", threads=job["threads"])

    def detect(pictures: list[str], labels: list[str]) -> list[float]:
        found: list[float] = owl.detect(pictures, labels, threshold=THRESHOLD)[0].scores.tolist()
        return found

    return detect


def _load_parts(job: Job) -> tuple[Any, Any, Any]:
    import torch
    from transformers import CLIPTokenizer, OwlViTForObjectDetection

    from vlrt_export.reference import pil_processor_class

    torch.set_num_threads(job["threads"])
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[job["precision"]]
    model = OwlViTForObjectDetection.from_pretrained(job["model"], dtype=dtype).eval()
    processor = pil_processor_class("OwlViT").from_pretrained(job["model"])
    return model, processor, CLIPTokenizer.from_pretrained(job["model"])


def load_model(job: Job) -> Detect:
    """The model of transformers, called once a picture with all labels, as its pages recommend."""
    import torch
    from PIL import Image

    model, processor, tokenizer = _load_parts(job)

    def detect(pictures: list[str], labels: list[str]) -> list[float]:
        scores = []
        for picture in pictures:
            with Image.open(picture) as file, torch.inference_mode():
                image = file.convert("RGB")
                pixels = processor(images=image, return_tensors="pt").to(model.dtype)
                tokens = tokenizer(labels, padding="max_length", return_tensors="pt")
                found = processor.post_process_object_detection(
                    model(**tokens, **pixels),
                    threshold=THRESHOLD,
                    target_sizes=[(image.height, image.width)],
                )
                scores.append(found[0]["scores"].sort(descending=True).values.tolist())
        return scores[0]

    return detect


def load_pipeline(job: Job) -> Detect:
    """The zero-shot-object-detection pipeline of transformers."""
    from transformers import pipeline

    model, processor, tokenizer = _load_parts(job)
    detector = pipeline(
        "zero-shot-object-detection", model=model, image_processor=processor, tokenizer=tokenizer
    )

    def detect(pictures: list[str], labels: list[str]) -> list[float]:
        found = [
            detector(picture, candidate_labels=labels, threshold=THRESHOLD) for picture in pictures
        ]
        return [one["score"] for one in found[0]]

    return detect


def main() -> None:
    """Run the contender named on the command line."""
    load = {"vlrt": load_vlrt, "model": load_model, "pipeline": load_pipeline}[sys.argv[1]]
    job = json.loads(sys.argv[2])
    detect = load(job)
    detect(job["pictures"][:1], job["labels"][: job["warm_up_labels"]])
    seconds, scores = [], []
    for _ in range(job["repeats"]):
        started = time.perf_counter()
        scores = detect(job["pictures"], job["labels"])
        seconds.append(time.perf_counter() - started)
    print(json.dumps(scores), flush=True)
    print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
