"""A contender of `footprint.py`, a program of its own: import, load, one request, and some more.

    python cold_start.py vlrt|torch JOB

JOB is JSON: family, model (the directory of a bundle or checkpoint), precision (PyTorch's is fp32,
or fp16 on a GPU), picture (the path of a JPEG), labels, question, threads, cpus (to be pinned to),
device ("cpu", where it is left out, or "cuda"), more (requests after the first one).
The first line printed is the result, the second what it took. Imports stand where their cost is
counted, and nothing is imported that a user's own program would not. Linux only.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]
# The best first, each with its name, its score and, of an object, its box (x0, y0, x1, y1) as
# shares of the picture's sides.
Result = list[dict[str, Any]]
Request = Callable[[], Result]
Mark = Callable[[str], None]

# So many of a picture's objects and of the answers; all of its labels are in a result.
OBJECTS, ANSWERS = 10, 5
# With transformers: the model's class, the image processor's and the tokenizer's.
CLASSES = {
    "clip": ("CLIPModel", "CLIPImageProcessor", "CLIPTokenizer"),
    "owlvit": ("OwlViTForObjectDetection", "OwlViTImageProcessor", "CLIPTokenizer"),
    "owlv2": ("Owlv2ForObjectDetection", "Owlv2ImageProcessor", "CLIPTokenizer"),
    "vilt": ("ViltForQuestionAnswering", "ViltImageProcessor", "BertTokenizer"),
}


def load_vlrt(job: Job, mark: Mark) -> Request:
    """The bundle, and what asks it."""
    import vlrt

    mark("import")
    model = vlrt.load(
        job["model"],
        precision=job["precision"],
        device=job.get("device", "cpu"),
        threads=job["threads"],
    )
    mark("load")

    def classify() -> Result:
        found = model.classify(job["picture"], job["labels"])
        return [{"name": name, "score": score} for name, score in found.top()]

    def detect() -> Result:
        found = model.detect(job["picture"], job["labels"], threshold=0, top_k=OBJECTS)
        height, width = found.size_hw
        boxes = (found.boxes / (width, height, width, height)).tolist()
        rows = zip(found.names, found.scores.tolist(), boxes, strict=True)
        return [{"name": name, "score": score, "box": box} for name, score, box in rows]

    def ask() -> Result:
        found = model.ask(job["picture"], job["question"], top_k=ANSWERS)
        rows = zip(found.answers, found.scores.tolist(), strict=True)
        return [{"name": name, "score": score} for name, score in rows]

    return {"clip": classify, "owlvit": detect, "owlv2": detect, "vilt": ask}[job["family"]]


def load_torch(job: Job, mark: Mark) -> Request:
    """The checkpoint, by only the three classes that it takes, with no pipeline around them."""
    import torch
    import transformers
    from PIL import Image, ImageOps

    # By name, for transformers imports what is asked for, and the image processor on PIL, which
    # spares importing torchvision. Before 5.1 that was the one without a suffix.
    names = CLASSES[job["family"]]
    on_pil = getattr(transformers, f"{names[1]}Pil", None) or getattr(transformers, names[1])
    kind, tokenizer_kind = getattr(transformers, names[0]), getattr(transformers, names[2])
    mark("import")
    torch.set_num_threads(job["threads"])
    device = job.get("device", "cpu")
    dtype = torch.float16 if job.get("precision") == "fp16" else torch.float32
    model = kind.from_pretrained(job["model"], dtype=dtype).eval().to(device)
    processor = on_pil.from_pretrained(job["model"])
    tokenizer = tokenizer_kind.from_pretrained(job["model"])
    mark("load")

    def pixels() -> tuple[Any, tuple[int, int]]:
        # Turned as it was taken, and alpha on white, as its own image processors have it.
        with Image.open(job["picture"]) as file:
            image = ImageOps.exif_transpose(file)
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        image = image.convert("RGB")
        made = processor(images=image, return_tensors="pt")
        return made.to(device).to(dtype), image.size

    @torch.inference_mode()
    def classify() -> Result:
        tokens = tokenizer(job["labels"], padding=True, return_tensors="pt").to(device)
        scores = model(**tokens, **pixels()[0]).logits_per_image.softmax(dim=-1)[0].tolist()
        best = sorted(zip(scores, job["labels"], strict=True), reverse=True)
        return [{"name": name, "score": score} for score, name in best]

    @torch.inference_mode()
    def detect() -> Result:
        tokens = tokenizer(job["labels"], padding="max_length", return_tensors="pt").to(device)
        images, (width, height) = pixels()
        (found,) = processor.post_process_object_detection(
            model(**tokens, **images), threshold=0, target_sizes=[(height, width)]
        )
        scores, order = found["scores"].sort(descending=True)
        sides = torch.tensor([width, height, width, height], device=device)
        return [
            {
                "name": job["labels"][found["labels"][place]],
                "score": score,
                "box": (found["boxes"][place] / sides).tolist(),
            }
            for score, place in list(zip(scores.tolist(), order.tolist(), strict=True))[:OBJECTS]
        ]

    @torch.inference_mode()
    def ask() -> Result:
        tokens = tokenizer(job["question"], return_tensors="pt").to(device)
        scores = model(**tokens, **pixels()[0]).logits[0].sigmoid()
        best = scores.topk(min(ANSWERS, len(scores)))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [{"name": model.config.id2label[place], "score": score} for place, score in rows]

    return {"clip": classify, "owlvit": detect, "owlv2": detect, "vilt": ask}[job["family"]]


def resident_mib() -> dict[str, float]:
    """Resident memory of this process, now and at its peak; `exec` has cleared the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    return {"now_mib": int(kib["VmRSS"][0]) / 1024, "peak_mib": int(kib["VmHWM"][0]) / 1024}


def main() -> None:
    """Run the contender named on the command line."""
    at = {"start": time.perf_counter()}
    job = json.loads(sys.argv[2])
    if job["cpus"]:
        os.sched_setaffinity(0, job["cpus"])
    load = {"vlrt": load_vlrt, "torch": load_torch}[sys.argv[1]]
    request = load(job, lambda name: at.__setitem__(name, time.perf_counter()))
    print(json.dumps(request()), flush=True)
    at["first request"] = time.perf_counter()
    taken = {
        "import_s": at["import"] - at["start"],
        "load_s": at["load"] - at["import"],
        "first_request_s": at["first request"] - at["load"],
        "cpu_s": time.process_time(),
        "first_mib": resident_mib()["now_mib"],
    }
    for _ in range(job["more"]):
        request()
    after = resident_mib()
    taken |= {"steady_mib": after["now_mib"], "peak_mib": after["peak_mib"]}
    print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    # This file's folder has modules of the names of packages that libraries import.
    sys.path = [place for place in sys.path if place != str(Path(__file__).resolve().parent)]
    main()
