"""Texts to token ids, bit for bit as transformers makes them, by the same `tokenizers` library."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as HfTokenizer

from vlrt.errors import BundleError, TextError
from vlrt.files import Settings


class Tokenizer:
    """A `tokenizer.json` with the padding and truncation of its model.

    Args:
        path: the bundle's `tokenizer.json`.
        settings: its `tokenizer_config.json`, for the padding token.
        max_length: the most tokens that the model takes, specials included.

    Raises:
        BundleError: the file is not a tokenizer, or its padding token is missing from it.
    """

    def __init__(self, path: Path, settings: Settings, max_length: int) -> None:
        try:
            self._tokenizer = HfTokenizer.from_file(str(path))
        except Exception as error:  # `tokenizers` raises bare Exception
            raise BundleError(f"{path} is not a tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        pad = settings.need("pad_token")
        token = pad.get("content") if isinstance(pad, dict) else pad
        pad_id = self._tokenizer.token_to_id(token) if isinstance(token, str) else None
        if pad_id is None:
            raise BundleError(f"{settings.file}: pad_token {token!r} is not in {path.name}")
        self.pad_id: int = pad_id
        self.max_length = max_length

    def ids(self, texts: Iterable[str], *, truncate: bool = False) -> list[list[int]]:
        """Token ids of each text, special tokens included, not padded.

        Args:
            texts: any number of texts.
            truncate: cut a text that is too long, keeping the closing special token as transformers
                does with `truncation=True`; otherwise such a text is an error.

        Raises:
            TextError: a text is not a string, is empty, holds a lone surrogate, or is too long.
        """
        if isinstance(texts, str):
            raise TextError(f"texts must be a list of strings, not one string: {texts[:40]!r}")
        if not isinstance(texts, Iterable):
            raise TextError(f"texts must be a list of strings, not {texts!r:.60}")
        texts = list(texts)
        for position, text in enumerate(texts):
            _check(text, position)
        encodings = self._tokenizer.encode_batch(texts)
        for position, encoding in enumerate(encodings):
            if len(encoding.ids) > self.max_length:
                if not truncate:
                    raise TextError(
                        f"text {position} has {len(encoding.ids)} tokens, the model takes "
                        f"{self.max_length}; shorten it, or cut it by truncate=True (--truncate): "
                        f"{texts[position][:60]!r}..."
                    )
                encodings[position] = self._cut(texts[position])
        return [encoding.ids for encoding in encodings]

    def _cut(self, text: str) -> Any:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        encoding.truncate(self.max_length - self._tokenizer.num_special_tokens_to_add(False))
        return self._tokenizer.post_process(encoding)

    def pad(
        self, ids: Sequence[Sequence[int]], length: int | None = None
    ) -> dict[str, NDArray[np.int64]]:
        """Pad rows of ids on the right, to the longest of them or to `length`.

        Returns:
            `input_ids` and `attention_mask` (1 for tokens, 0 for padding), both int64 [N, L].
        """
        longest = length if length is not None else max((len(row) for row in ids), default=0)
        input_ids = np.full((len(ids), longest), self.pad_id, np.int64)
        mask = np.zeros((len(ids), longest), np.int64)
        for position, row in enumerate(ids):
            input_ids[position, : len(row)] = row
            mask[position, : len(row)] = 1
        return {"input_ids": input_ids, "attention_mask": mask}


def token_limit(tokenizer: Settings, config: Settings) -> int:
    """The most tokens that a text model takes, specials included.

    It is what the tokenizer states, but no more than the positions that the model has: a tokenizer
    that was saved without a length states 10**30.

    Raises:
        BundleError: the tokenizer states none.
    """
    stated = tokenizer.need("model_max_length")
    if not isinstance(stated, int | float) or stated < 1:
        raise BundleError(f"{tokenizer.file}: model_max_length is {stated!r}, not a number")
    positions = (config.get("text_config") or {}).get("max_position_embeddings")
    return int(stated if positions is None else min(stated, positions))


def _check(text: Any, position: int) -> None:
    if not isinstance(text, str):
        raise TextError(f"text {position} is a {type(text).__name__}, not a string: {text!r:.60}")
    if not text.strip():
        raise TextError(f"text {position} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"text {position} holds a lone surrogate at character {error.start}: {text!r:.60}"
        ) from error
