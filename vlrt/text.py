"""Texts to token ids, bit for bit as transformers makes them, by the same `tokenizers` library."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as HfTokenizer

from vlrt.buckets import length_bucket
from vlrt.errors import BundleError, TextError
from vlrt.files import Settings


class Tokenizer:
    """A `tokenizer.json` with the padding and truncation of its model.

    Args:
        path: the bundle's `tokenizer.json`.
        settings: its `tokenizer_config.json`, for the padding token.
        max_length: the most tokens that the model takes, specials included.
        step: rows are padded to multiples of so many tokens, so that there are few lengths.

    Raises:
        BundleError: the file is not a tokenizer, or its padding token is missing from it.
    """

    def __init__(self, path: Path, settings: Settings, max_length: int, step: int = 1) -> None:
        try:
            self._tokenizer = HfTokenizer.from_file(str(path))
        except Exception as error:  # `tokenizers` raises bare Exception
            raise BundleError(f"{path} is not a tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._settings = settings
        self.pad_id = self.special_id("pad_token")
        self.max_length, self._step = max_length, step

    def special_id(self, name: str) -> int:
        """The id of a special token.

        Args:
            name: its name in `tokenizer_config.json`, such as "pad_token".

        Raises:
            BundleError: the settings do not name it, or the tokenizer does not have it.
        """
        value = self._settings.need(name)
        token = value.get("content") if isinstance(value, dict) else value
        found = self._tokenizer.token_to_id(token) if isinstance(token, str) else None
        if found is None:
            raise BundleError(f"{self._settings.file}: {name} {token!r} is not in tokenizer.json")
        return int(found)

    def token(self, token_id: int) -> str:
        """A token as the vocabulary writes it.

        Raises:
            BundleError: there is none of that id.
        """
        token: str | None = self._tokenizer.id_to_token(token_id)
        if token is None:
            raise BundleError(f"{self._settings.file}: there is no token with the id {token_id}")
        return token

    def ids(
        self, texts: Iterable[str], *, truncate: bool = False, what: str = "text"
    ) -> list[list[int]]:
        """Token ids of each text, special tokens included, not padded.

        Args:
            texts: any number of texts.
            truncate: cut a text that is too long, keeping the closing special token as transformers
                does with `truncation=True`; otherwise such a text is an error.
            what: to call a text in messages.

        Raises:
            TextError: a text is not a string, is empty, holds a lone surrogate, or is too long.
        """
        if isinstance(texts, str):
            raise TextError(f"{what}s must be a list of strings, not one string: {texts[:40]!r}")
        if not isinstance(texts, Iterable):
            raise TextError(f"{what}s must be a list of strings, not {texts!r:.60}")
        texts = list(texts)
        for position, text in enumerate(texts):
            _check(text, f"{what} {position}")
        encodings = self._tokenizer.encode_batch(texts)
        specials = self._tokenizer.num_special_tokens_to_add(False)
        for position, encoding in enumerate(encodings):
            if len(encoding.ids) <= specials:
                raise TextError(
                    f"{what} {position} is empty to the tokenizer: {texts[position]!r:.60}"
                )
            if len(encoding.ids) > self.max_length:
                if not truncate:
                    raise TextError(
                        f"{what} {position} has {len(encoding.ids)} tokens, the model takes "
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
        self, ids: Sequence[Sequence[int]], length: int | None = None, *, beside: int = 0
    ) -> dict[str, NDArray[np.int64]]:
        """Pad rows of ids on the right, to the longest of them (see `step`) or to `length`.

        Args:
            ids: rows of any lengths.
            length: of all of them, if it is fixed.
            beside: tokens that will stand in one row with these.

        Returns:
            `input_ids` and `attention_mask` (1 for tokens, 0 for padding), both int64 [N, L].
        """
        if length is None:
            longest = max((len(row) for row in ids), default=0)
            length = length_bucket(longest, self.max_length, self._step, beside)
        input_ids = np.full((len(ids), length), self.pad_id, np.int64)
        mask = np.zeros((len(ids), length), np.int64)
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
    # A model of two towers states those of its texts apart; a joint one, with the rest.
    positions = (config.get("text_config") or config).get("max_position_embeddings")
    return int(stated if positions is None else min(stated, positions))


def _check(text: Any, name: str) -> None:
    if not isinstance(text, str):
        raise TextError(f"{name} is a {type(text).__name__}, not a string: {text!r:.60}")
    if not text.strip():
        raise TextError(f"{name} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"{name} holds a lone surrogate at character {error.start}: {text!r:.60}"
        ) from error
