"""A contender of `questions.py`, a program of its own: load, warm up, ask again and again.

    python ask_many.py vlrt|model|loop JOB

JOB is JSON: model (the directory of a bundle or checkpoint), precision, picture, questions,
batch_size (pairs of the picture and a question in a run), threads, repeats. The first line printed
holds the score of the best answer to each question, the second the seconds that each of the
repeats took, over all questions, and the answers. A repeat starts from the file.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

Job = dict[str, Any]
# Questions -> the best answer to each, and its score.
Ask = Callable[[list[str]], list[tuple[str, float]]]


def load_vlrt(job: Job) -> Ask:
    """The picture is read once for all questions."""
    import vlrt

    vilt = vlrt.load(job["model"], precision=job["precision"], device="cpu", threads=job["threads"])

    def ask(questions: list[str]) -> list[tuple[str, float]]:
        found = vilt.ask(job["picture"], questions, top_k=1, batch_size=job["batch_size"])
        return [answers.best for answers in found]

    return ask


def _load_parts(job: Job) -> tuple[Callable[[], Any], Callable[[Any, list[str]], Any]]:
    """Read the picture; answer questions about what was read."""
    import torch
    from PIL import Image
    from transformers import AutoTokenizer, ViltForQuestionAnswering

    from vlrt_export.reference import pil_processor_class

    torch.set_num_threads(job["threads"])
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[job["precision"]]
    model = ViltForQuestionAnswering.from_pretrained(job["model"], dtype=dtype).eval()
    processor = pil_processor_class("Vilt").from_pretrained(job["model"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])

    def read() -> Any:
        with Image.open(job["picture"]) as file:
            return processor(images=file.convert("RGB"), return_tensors="pt").to(dtype)

    def answer(pixels: Any, questions: list[str]) -> list[tuple[str, float]]:
        tokens = tokenizer(questions, padding=True, return_tensors="pt")
        images = {
            name: tensor.expand(len(questions), *tensor.shape[1:])
            for name, tensor in pixels.items()
        }
        with torch.inference_mode():
            scores, best = model(**tokens, **images).logits.float().sigmoid().max(dim=-1)
        names = [model.config.id2label[i] for i in best.tolist()]
        return list(zip(names, scores.tolist(), strict=True))

    return read, answer


def load_model(job: Job) -> Ask:
    """The model of transformers, given the picture once and the questions in batches."""
    read, answer = _load_parts(job)

    def ask(questions: list[str]) -> list[tuple[str, float]]:
        pixels, size = read(), job["batch_size"]
        batches = [questions[at : at + size] for at in range(0, len(questions), size)]
        return [found for batch in batches for found in answer(pixels, batch)]

    return ask


def load_loop(job: Job) -> Ask:
    """The same model as its page shows it: picture and question, one pair after the other."""
    read, answer = _load_parts(job)
    return lambda questions: [answer(read(), [question])[0] for question in questions]


def main() -> None:
    """Run the contender named on the command line."""
    load = {"vlrt": load_vlrt, "model": load_model, "loop": load_loop}[sys.argv[1]]
    job = json.loads(sys.argv[2])
    ask = load(job)
    ask(job["questions"][:1])
    seconds, found = [], []
    for _ in range(job["repeats"]):
        started = time.perf_counter()
        found = ask(job["questions"])
        seconds.append(time.perf_counter() - started)
    print(json.dumps([score for _, score in found]), flush=True)
    print(json.dumps({"seconds": seconds, "answers": [name for name, _ in found]}), flush=True)


if __name__ == "__main__":
    main()
