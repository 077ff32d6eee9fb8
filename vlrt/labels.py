"""From label texts to label sets: what every family with a text tower shares."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt import templates as prompts
from vlrt.buckets import LENGTH_STEP
from vlrt.bundle import Bundle
from vlrt.checks import check_finite, check_outputs
from vlrt.errors import LabelError, TextError
from vlrt.ops import l2_normalize
from vlrt.results import LabelSet
from vlrt.session import Runner
from vlrt.templates import Templates
from vlrt.text import Tokenizer, token_limit

Embeds = NDArray[np.float32]

_BATCH = 64


class TextEncoder:
    """A tokenizer and a text tower. Safe to share between threads: it holds nothing of a call.

    Args:
        bundle: where they come from.
        tokenizer: the bundle's.
        runner: the graph, from `input_ids` (and `attention_mask`, if it wants one) to
            `text_embeds`.
    """

    def __init__(self, bundle: Bundle, tokenizer: Tokenizer, runner: Runner) -> None:
        self._name, self._fingerprint = bundle.name, bundle.fingerprint
        self._tokenizer, self._runner = tokenizer, runner

    def encode_texts(
        self, texts: Sequence[str], *, truncate: bool = False, normalize: bool = True
    ) -> Embeds:
        """Embed texts.

        Args:
            texts: non-empty strings, at least one.
            truncate: cut a text longer than the model takes, instead of refusing it.
            normalize: scale each embedding to length 1; otherwise as the projection left it.

        Returns:
            float32 [N, D], in the order of the texts.

        Raises:
            TextError: a text is not a string, empty, too long or holds a lone surrogate.
        """
        ids = self._tokenizer.ids(texts, truncate=truncate)
        # Texts of like length go together: little padding, and the result does not depend on it.
        order = sorted(range(len(ids)), key=lambda position: len(ids[position]))
        batches = [order[at : at + _BATCH] for at in range(0, len(order), _BATCH)]
        if not batches:
            raise TextError("there are no texts to encode")
        stacked = np.concatenate([self._run([ids[i] for i in batch]) for batch in batches])
        embeds = np.empty_like(stacked)
        embeds[order] = stacked
        return l2_normalize(embeds) if normalize else embeds

    def _run(self, ids: Sequence[Sequence[int]]) -> Embeds:
        length = self._runner.input_shapes.get("input_ids", (None,))[-1]  # None unless it is fixed
        outputs = self._runner.run(self._tokenizer.pad(ids, length))
        check_outputs(f"the text_model of {self._name}", outputs, {"text_embeds": "ND"}, N=len(ids))
        embeds: Embeds = outputs["text_embeds"]
        return embeds

    def encode_labels(
        self,
        labels: Iterable[str],
        *,
        templates: Templates | None = None,
        truncate: bool = False,
    ) -> LabelSet:
        """Embed labels, averaged over prompts.

        Args:
            labels: distinct label texts, at least one.
            templates: prompts with one `{}` each, or a mapping from every label to its own. The
                embeddings over all of a label's, each of length 1, are averaged and scaled back to
                length 1. The label itself by default.
            truncate: cut texts that are too long instead of refusing them.

        Raises:
            LabelError: no labels, a label that is not a string, empty, or there twice.
            TextError: a text too long, or with a lone surrogate, or a template without one `{}`.
            OptionError: a mapping of templates that lacks a label, or has one too many.
            InferenceError: the graph gives numbers that are not finite.
        """
        names = checked_labels(labels)
        filled = prompts.fill_all(["{}"] if templates is None else templates, names)
        embeds = self.encode_texts([text for row in filled for text in row], truncate=truncate)
        ends = np.cumsum([len(row) for row in filled])
        mean = np.stack([part.mean(axis=0) for part in np.split(embeds, ends[:-1])])
        check_finite({"text_embeds": mean}, "the labels")
        return LabelSet(names, l2_normalize(mean), self._fingerprint)

    def label_set(
        self,
        labels: Iterable[str] | LabelSet,
        *,
        templates: Templates | None = None,
        truncate: bool = False,
    ) -> LabelSet:
        """Labels given in either form, as a set of this model.

        Raises:
            LabelError: templates beside a set, or a set of another model; or see `encode_labels`.
        """
        if not isinstance(labels, LabelSet):
            return self.encode_labels(labels, templates=templates, truncate=truncate)
        if templates is not None:
            raise LabelError("templates were given with a LabelSet, which is already encoded")
        if labels.model != self._fingerprint:
            raise LabelError(
                f"this LabelSet was encoded by another model ({labels.model}), not by "
                f"{self._name} ({self._fingerprint})"
            )
        return labels


def open_tokenizer(bundle: Bundle, info: Mapping[str, Any] | None = None) -> Tokenizer:
    """A bundle's tokenizer, with the length that its text model takes.

    Args:
        bundle: the bundle.
        info: the model's, which says whether texts are padded to a few lengths (`padded`).

    Raises:
        BundleError: its files do not make one.
    """
    return Tokenizer(
        bundle.root / "tokenizer.json",
        bundle.tokenizer,
        max_length=token_limit(bundle.tokenizer, bundle.config),
        step=LENGTH_STEP if (info or {}).get("padded") else 1,
    )


def checked_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Label texts that can be told apart.

    Raises:
        LabelError: there are none, or one is not a string, empty, or there twice.
    """
    if isinstance(labels, str):
        raise LabelError(f"labels must be a list of strings, not one string: {labels[:40]!r}")
    if not isinstance(labels, Iterable):
        raise LabelError(f"labels must be a list of strings, not {labels!r:.60}")
    names = tuple(labels)
    if not names:
        raise LabelError("there are no labels; give at least one")
    seen: set[str] = set()
    for position, name in enumerate(names):
        if not isinstance(name, str):
            raise LabelError(
                f"label {position} is a {type(name).__name__}, not a string: {name!r:.60}"
            )
        if not name.strip():
            raise LabelError(f"label {position} is empty")
        if name in seen:
            raise LabelError(f"label {position} is there twice: {name!r:.60}")
        seen.add(name)
    return names
