"""From label texts to label sets: what every family with a text tower shares."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlrt import templates as prompts
from vlrt.bundle import Bundle
from vlrt.errors import LabelError, TextError
from vlrt.ops import l2_normalize
from vlrt.results import LabelSet
from vlrt.session import Runner
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
        length = self._runner.input_shapes["input_ids"][1]  # None unless the graph fixes it
        parts = [
            self._runner.run(self._tokenizer.pad([ids[i] for i in order[at : at + _BATCH]], length))
            for at in range(0, len(order), _BATCH)
        ]
        if not parts:
            raise TextError("there are no texts to encode")
        stacked = np.concatenate([part["text_embeds"] for part in parts])
        embeds = np.empty_like(stacked)
        embeds[order] = stacked
        return l2_normalize(embeds) if normalize else embeds

    def encode_labels(
        self,
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        truncate: bool = False,
    ) -> LabelSet:
        """Embed labels, averaged over prompts.

        Args:
            labels: distinct label texts, at least one.
            templates: prompts with one `{}` each. The embeddings over all of them, each of length
                1, are averaged and scaled back to length 1. The label itself by default.
            truncate: cut texts that are too long instead of refusing them.

        Raises:
            LabelError: no labels, a label that is not a string, empty, or there twice.
            TextError: a text too long, or with a lone surrogate, or a template without one `{}`.
        """
        names = checked_labels(labels)
        templates = ["{}"] if templates is None else templates
        filled = [prompts.fill(templates, name) for name in names]
        embeds = self.encode_texts([text for row in filled for text in row], truncate=truncate)
        mean = embeds.reshape(len(names), -1, embeds.shape[1]).mean(axis=1)
        return LabelSet(names, l2_normalize(mean), self._fingerprint)

    def label_set(
        self,
        labels: Sequence[str] | LabelSet,
        *,
        templates: Sequence[str] | None = None,
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


def open_tokenizer(bundle: Bundle) -> Tokenizer:
    """A bundle's tokenizer, with the length that its text model takes.

    Raises:
        BundleError: its files do not make one.
    """
    return Tokenizer(
        bundle.root / "tokenizer.json",
        bundle.tokenizer,
        max_length=token_limit(bundle.tokenizer, bundle.config),
    )


def example_names(sources: Sequence[Any], names: Sequence[str] | None = None) -> tuple[str, ...]:
    """What to call example pictures; by default a file's name without its suffix, or "example 1".

    Raises:
        LabelError: a name is not a string, or empty, or there is not one a picture.
    """
    if names is None:
        return tuple(
            (isinstance(source, str | os.PathLike) and Path(source).stem) or f"example {number}"
            for number, source in enumerate(sources, start=1)
        )
    if isinstance(names, str) or len(names) != len(sources):
        raise LabelError(f"names must be a list of {len(sources)}, one an example: {names!r:.60}")
    return tuple(checked_labels([name])[0] for name in names)


def checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Label texts that can be told apart.

    Raises:
        LabelError: there are none, or one is not a string, empty, or there twice.
    """
    if isinstance(labels, str):
        raise LabelError(f"labels must be a list of strings, not one string: {labels[:40]!r}")
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
