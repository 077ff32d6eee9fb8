"""A small ViLT that answers questions about drawn scenes, started from the demo OWL-ViT.

ViLT is a vision transformer that reads words too; the paper (Kim et al. 2021, section 3.1) starts
it from one trained on pictures alone, and so does this: the first layers are those of OWL-ViT's
picture tower, which already knows colours, shapes and places. A few new ones above them reason.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from transformers import BertTokenizer, ViltForQuestionAnswering

from ..checkpoint import open_checkpoint
from ..reference import pil_processor_class
from .clip import MEAN, STD, normalised
from .evaluate import SEED, Table, format_table
from .loop import Schedule, train, versions
from .question_accuracy import Answer, accuracy, guesser_accuracy
from .question_batches import QuestionBatch, QuestionRecipe, make_questions
from .questions import ANSWERS, KINDS, ask
from .tokenizer import build_word_pieces, save_tokenizer
from .vilt_model import MAX_TOKENS, PATCH, SIDE, Pointing, build_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

AMOUNT = 200  # questions of each kind to evaluate on
PICTURES = 40  # squares in a step
POINTING = 20.0  # weight of pointing at what is asked about, in the loss
_BATCH = 50


@dataclass(frozen=True)
class Stage:
    """A part of the training: `share` of all steps.

    The new layers learn at `rate`, what comes from OWL-ViT at a share of it, `tower`. `easy`,
    `counting` and `sides` are those of `QuestionRecipe`. `placing` is the weight, in the loss, of
    telling places.
    """

    share: float
    rate: float
    tower: float
    easy: float
    counting: float
    sides: float
    placing: float


# OWL-ViT's tower tells of each patch what is there, and has forgotten where that is. So places come
# second: once the new layers know what is asked about, all learn again where it is, and on which
# side. What else there is to learn by then is to count.
STAGES = (
    Stage(3 / 4, rate=1e-3, tower=0.2, easy=0.1, counting=0.25, sides=0.25, placing=0.0),
    Stage(1 / 4, rate=6e-4, tower=1.0, easy=0.0, counting=0.3, sides=0.4, placing=5.0),
)


def build_processor() -> Any:
    """ViLT's own steps: resize the shorter side, floor to patches, rescale, normalise, pad."""
    return pil_processor_class("Vilt")(
        size={"shortest_edge": SIDE},
        size_divisor=PATCH,
        resample=Image.Resampling.BICUBIC,
        image_mean=list(MEAN),
        image_std=list(STD),
    )


def build_tokenizer(seed: int) -> BertTokenizer:
    """Word pieces of BERT's kind, with the words of all questions and answers as tokens."""
    rng = np.random.default_rng((seed, 9 << 32))
    questions = [ask(rng, kind, (1, 1))[1].question for kind in KINDS for _ in range(500)]
    return build_word_pieces([*questions, *ANSWERS], max_length=MAX_TOKENS)


@dataclass
class ViltTrainee:
    """A ViLT in training with its tokenizer and image processor."""

    model: Pointing
    tokenizer: BertTokenizer
    processor: Any
    placing: float = 0.0

    def loss(self, batch: QuestionBatch) -> Tensor:
        """The loss of a batch, a float32 scalar.

        ViLT's own, a yes or no on each of the answers; a yes or no on each of the patches; and how
        far the places are from the true ones.
        """
        tokens = self.tokenizer(batch.questions, padding=True, return_tensors="pt")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, points, places, own = self.model(tokens, normalised(batch.pixels))
        wanted = one_hot(torch.from_numpy(batch.answers), len(ANSWERS)).float()
        answers = binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none")
        pointers = torch.from_numpy(batch.pointers).float()
        pointing = binary_cross_entropy_with_logits(points.float(), pointers)
        known = ~torch.from_numpy(np.isnan(batch.places))
        away = (places.float() - torch.from_numpy(batch.places))[known].abs().sum() / len(places)
        grid = [(torch.arange(size) + 0.5) / size for size in own.shape[1:3]]
        y, x = torch.meshgrid(*grid, indexing="ij")
        own_away = (own.float() - torch.stack([x, y], dim=-1)).abs().sum(dim=-1).mean()
        placing = self.placing * (away + 2 * own_away)
        loss: Tensor = answers.sum(dim=1).mean() + POINTING * pointing + placing
        return loss

    def answer(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Sequence[str]:
        """The best answer to each question about the picture beside it."""
        return answerer(self.model.vilt, self.tokenizer, self.processor)(images, questions)

    def report(self) -> str:
        """Accuracy on a small fixed set, for the training log."""
        return format_table(accuracy(self.answer, per_kind=50, seed=99))


def answerer(model: Any, tokenizer: BertTokenizer, processor: Any) -> Answer:
    """A model of transformers as what `question_accuracy` asks."""

    @torch.no_grad()
    def answer(images: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
        found = []
        for start in range(0, len(images), _BATCH):
            pixels = processor(images=images[start : start + _BATCH], return_tensors="pt")
            asked = list(questions[start : start + _BATCH])
            tokens = tokenizer(asked, padding=True, return_tensors="pt")
            best = model(**tokens, **pixels).logits.argmax(dim=1)
            found += [ANSWERS[i] for i in best.tolist()]
        return found

    return answer


def evaluate_folder(folder: Path, amount: int = AMOUNT, seed: int = SEED) -> Table:
    """The accuracy of a saved ViLT in PyTorch, on `amount` fresh questions of each kind."""
    model: Any = ViltForQuestionAnswering.from_pretrained(folder)
    model.eval()
    tokenizer = BertTokenizer.from_pretrained(folder)
    processor = pil_processor_class("Vilt").from_pretrained(folder)
    return accuracy(answerer(model, tokenizer, processor), per_kind=amount, seed=seed)


def evaluate_model(model: Any, amount: int = AMOUNT, seed: int = SEED) -> Table:
    """The same of a model that `vlrt.load` returned."""

    def answer(images: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
        pairs = zip(images, questions, strict=True)
        return [model.ask(image, question, top_k=1).best[0] for image, question in pairs]

    return accuracy(answer, per_kind=amount, seed=seed)


def baselines(amount: int, seed: int) -> dict[str, Table]:
    """What a model must be compared with: the accuracy of who looks at no picture."""
    return {"language only": guesser_accuracy(per_kind=amount, seed=seed)}


def _save(trainee: ViltTrainee, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    trainee.model.vilt.save_pretrained(out)
    save_tokenizer(trainee.tokenizer, out)
    trainee.processor.save_pretrained(out)


def train_family(
    out: Path, *, owlvit: Path, steps: int, seed: int, work: Path, resume: bool = True
) -> dict[str, Any]:
    """Train or go on, save to `out`, and return what training.json says.

    Raises:
        ValueError: the checkpoint in `work` is of another run.
    """
    owl_sha256 = open_checkpoint(str(owlvit)).weights_sha256
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(seed)
    model = Pointing(build_model(owlvit, tokenizer))
    trainee = ViltTrainee(model, tokenizer, build_processor())
    outcomes = []
    for number, stage in enumerate(STAGES):
        folder, part = work / str(number), round(steps * stage.share)
        folder.mkdir(parents=True, exist_ok=True)
        recipe = QuestionRecipe(
            seed + number, part, SIDE, PATCH, PICTURES, stage.counting, stage.sides, stage.easy
        )
        trainee.placing = stage.placing
        outcome = train(
            model,
            partial(make_questions, recipe),
            trainee.loss,
            trainee.report,
            schedule=Schedule(steps=part, rate=stage.rate),
            work=folder,
            resume=resume,
            slow=model.slow(stage.tower),
            made_of={
                "recipe": asdict(recipe),
                "pointing": POINTING,
                "placing": stage.placing,
                "owlvit_sha256": owl_sha256,
            },
        )
        outcomes.append({**asdict(stage), **asdict(outcome), "recipe": asdict(recipe)})
    _save(trainee, out)
    record = {
        "seed": seed,
        "started_from": owlvit.name,
        "steps": steps,
        "seconds": sum(outcome["seconds"] for outcome in outcomes),
        "stages": outcomes,
        "pointing": POINTING,
        "parameters": sum(p.numel() for p in model.vilt.parameters()),
        "accuracy": evaluate_folder(out),
        "versions": versions(),
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    return record
