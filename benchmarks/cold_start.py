"""A contender of `footprint.py`, run as a program of its own: import, load, one classification.

    python cold_start.py vlrt|transformers JOB

JOB is JSON: model (the directory of a bundle or checkpoint), precision (vlrt's), picture, labels,
threads.
The first line printed is the result, the second what it took. Imports stand where their cost is
counted. Linux only.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]
Mark = Callable[[str], None]


def run_vlrt(job: Job, mark: Mark) -> tuple[list[float], Any]:
    """Classify with vlrt; the scores, and what a program would keep in memory."""
    import vlrt

    mark("import")
    clip = vlrt.load(job["model"], precision=job["precision"], device="cpu", threads=job["threads"])
    mark("load")
    return clip.classify(job["picture"], job["labels"]).scores.tolist(), clip


def run_transformers(job: Job, mark: Mark) -> tuple[list[float], Any]:
    """Classify with transformers: only the three classes that it takes, no pipeline around them."""
    import torch
    from PIL import Image

    # By name: `vlrt_export.reference`, which knows others, would be counted with what it imports.
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    mark("import")
    torch.set_num_threads(job["threads"])
    model = CLIPModel.from_pretrained(job["model"], dtype=torch.float32).eval()
    processor = CLIPImageProcessorPil.from_pretrained(job["model"])
    tokenizer = CLIPTokenizer.from_pretrained(job["model"])
    mark("load")
    with Image.open(job["picture"]) as file, torch.inference_mode():
        pixels = processor(images=file.convert("RGB"), return_tensors="pt")
        tokens = tokenizer(job["labels"], padding=True, return_tensors="pt")
        logits = model(**tokens, **pixels).logits_per_image
        return logits.softmax(dim=-1)[0].tolist(), (model, processor, tokenizer)


def resident_mib() -> dict[str, float]:
    """Resident memory of this process, now and at its peak; `exec` has cleared the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    return {"steady_mib": int(kib["VmRSS"][0]) / 1024, "peak_mib": int(kib["VmHWM"][0]) / 1024}


def main() -> None:
    """Run the contender named on the command line."""
    at = {"start": time.perf_counter()}
    contender = {"vlrt": run_vlrt, "transformers": run_transformers}[sys.argv[1]]
    scores, kept = contender(
        json.loads(sys.argv[2]), lambda name: at.__setitem__(name, time.perf_counter())
    )
    print(json.dumps(scores), flush=True)
    at["first result"] = time.perf_counter()
    taken = {
        "import_s": at["import"] - at["start"],
        "load_s": at["load"] - at["import"],
        "first_result_s": at["first result"] - at["load"],
        "cpu_s": time.process_time(),
        **resident_mib(),
    }
    print(json.dumps(taken), flush=True)
    del kept  # not before its memory was measured


if __name__ == "__main__":
    main()
