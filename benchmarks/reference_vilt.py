"""What `reference.py` loads: transformers' ViLT with the methods of vlrt's."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlrt.errors import OptionError
from vlrt.results import Answers, Matches
from vlrt.stream import is_list, listed
from vlrt.tasks import TASKS

from .reference_families import Embeds, Reference, array, as_given, chunks

_VILT_TASKS = ("visual-question-answering", "image-text-retrieval")


class ViltReference(Reference):
    """A ViLT that answers questions, or that matches pictures and texts."""

    def _class_name(self, config: dict[str, Any]) -> str:
        name = (config.get("architectures") or [None])[0]
        known = [one for one, task in TASKS.items() if task in _VILT_TASKS]
        if name not in known:
            raise OptionError(
                f"architectures in config.json is {name!r}; compared can be: {', '.join(known)}"
            )
        return str(name)

    def ask(
        self,
        images: Any,
        questions: Any,
        *,
        top_k: int = 5,
        truncate: bool = False,
        batch_size: int = 8,
    ) -> Any:
        """Ask every question of every picture, as `vlrt.families.vilt.Model.ask` does."""
        words = self.model.config.id2label
        asked = list(listed(questions))
        rows = self._pairs(listed(images), asked, truncate=truncate, batch_size=batch_size)
        found = [
            [_answers(text, logits, words, top_k) for text, logits in zip(asked, row, strict=True)]
            for row in rows
        ]
        if not is_list(questions):
            return as_given(images, [answers[0] for answers in found])
        return as_given(images, found)

    def match(
        self, images: Any, texts: Any, *, truncate: bool = False, batch_size: int = 8
    ) -> Matches:
        """Score every picture with every text, as `vlrt.families.vilt.Model.match` does."""
        given = tuple(listed(texts))
        rows = self._pairs(listed(images), given, truncate=truncate, batch_size=batch_size)
        return Matches(given, rows[..., 0])

    def _pairs(
        self, images: Sequence[Any], texts: Sequence[str], *, truncate: bool, batch_size: int
    ) -> Embeds:
        """Logits of every picture with every text, float32 [pictures, texts, classes].

        A picture is decoded and processed once for each batch that it takes part in.
        """
        import torch

        pairs = [(i, j) for i in range(len(images)) for j in range(len(texts))]
        rows = []
        with torch.inference_mode():
            for chunk in chunks(pairs, batch_size):
                shown = sorted({i for i, _ in chunk})
                pixels = self.process(self.read([images[i] for i in shown]))
                which = torch.tensor([shown.index(i) for i, _ in chunk], device=self.device)
                tokens = self.tokenize([texts[j] for _, j in chunk], truncate=truncate)
                each = {name: tensor[which] for name, tensor in pixels.items()}
                rows.append(self.model(**tokens, **each).logits.float())
            return array(torch.cat(rows)).reshape(len(images), len(texts), -1)


def _answers(question: str, logits: Embeds, words: dict[int, str], top_k: int) -> Answers:
    # By logits: scores of very sure answers round to the same 1.
    best = np.argsort(-logits, kind="stable")[:top_k]
    scores = (1 / (1 + np.exp(-logits[best].astype(np.float64)))).astype(np.float32)
    return Answers(question, tuple(words[int(i)] for i in best), scores)
