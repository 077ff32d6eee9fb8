"""Token ids: what is refused, truncation, padding, and parity with transformers' tokenizer."""

import json
import shutil

import numpy as np
import pytest
from checkpoints import END, MAX_TOKENS, START, edit_json, tokenizer_files, word_pieces
from hypothesis import given
from hypothesis import strategies as st

from vlrt.errors import BundleError, TextError, VlrtError
from vlrt.files import Settings, read_settings
from vlrt.text import Tokenizer, token_limit


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("tokenizer")
    tokenizer_files(made)
    return made


def open_tokenizer(root, max_length=MAX_TOKENS):
    settings = read_settings(root, "tokenizer_config.json")
    return Tokenizer(root / "tokenizer.json", settings, max_length)


@pytest.fixture(scope="module")
def tokenizer(root):
    return open_tokenizer(root)


def test_texts_may_come_from_a_generator(root):
    tokenizer = open_tokenizer(root)
    texts = ["a cat", "the dog"]
    assert tokenizer.ids(text for text in texts) == tokenizer.ids(texts)


@pytest.fixture(scope="module")
def vocabulary(root):
    return json.loads((root / "tokenizer.json").read_text())["model"]["vocab"]


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ("a cat", "not one string"),
        (None, "not None"),
        (7, "not 7"),
        ([""], "text 0 is empty"),
        (["a cat", " \t\n\u3000"], "text 1 is empty"),
        (["a cat", None], "text 1 is a NoneType"),
        ([b"a cat"], "text 0 is a bytes"),
        ([7], "text 0 is a int"),
        ([["a cat"]], "text 0 is a list"),
        (["a \ud83d cat"], "text 0 holds a lone surrogate at character 2"),
        (["a cat", "x" * 40], "text 1 has 42 tokens, the model takes 16.*truncate=True"),
    ],
)
def test_a_bad_text_is_named_by_its_position(tokenizer, texts, says):
    with pytest.raises(TextError, match=says):
        tokenizer.ids(texts)


def test_texts_are_called_what_they_are(tokenizer):
    for texts, says in (("why?", "questions must be"), (["why?", ""], "question 1 is empty"),
                        (["x" * 40], "question 0 has 42 tokens")):  # fmt: skip
        with pytest.raises(TextError, match=says):
            tokenizer.ids(texts, what="question")


def test_no_texts_give_no_ids(tokenizer):
    assert tokenizer.ids([]) == []
    padded = tokenizer.pad([])
    assert padded["input_ids"].shape == padded["attention_mask"].shape == (0, 0)


# --- lengths --------------------------------------------------------------------------------------


def test_special_tokens_stand_at_both_ends(tokenizer, vocabulary):
    assert tokenizer.ids(["The cat"]) == [
        [vocabulary[START], vocabulary["the</w>"], vocabulary["cat</w>"], vocabulary[END]]
    ]


@pytest.mark.parametrize("letters", [13, 14, 15, 16, 200])
def test_truncation_keeps_the_end_of_text(tokenizer, vocabulary, letters):
    (ids,) = tokenizer.ids(["x" * letters], truncate=True)
    assert len(ids) == min(letters + 2, MAX_TOKENS)
    assert (ids[0], ids[-1]) == (vocabulary[START], vocabulary[END])


def test_truncation_changes_no_text_that_fits(tokenizer):
    texts = ["a cat", "x" * (MAX_TOKENS - 2)]
    assert tokenizer.ids(texts, truncate=True) == tokenizer.ids(texts)


@given(st.text(min_size=1, max_size=60))
def test_any_text_either_fits_the_model_or_is_refused(tokenizer, vocabulary, text):
    try:
        (ids,) = tokenizer.ids([text], truncate=True)
    except TextError:
        assert not text.strip() or any("\ud800" <= c <= "\udfff" for c in text)
        return
    assert 2 <= len(ids) <= MAX_TOKENS
    assert (ids[0], ids[-1]) == (vocabulary[START], vocabulary[END])


@pytest.mark.parametrize("length", [None, 4, 9])
def test_padding_goes_to_the_right_and_is_masked(tokenizer, length):
    padded = tokenizer.pad([[5, 6], [7, 8, 9, 10]], length)
    longest = length or 4
    ids, mask = padded["input_ids"], padded["attention_mask"]
    assert ids.shape == mask.shape == (2, longest)
    assert ids.dtype == mask.dtype == np.int64
    assert ids[0].tolist() == [5, 6] + [tokenizer.pad_id] * (longest - 2)
    assert mask.sum(axis=1).tolist() == [2, 4]
    assert (mask[:, :2] == 1).all()


@pytest.mark.parametrize(
    ("stated", "config", "expected"),
    [
        (40, {}, 40),
        (10**30, {"max_position_embeddings": 40}, 40),
        (512, {"max_position_embeddings": 40}, 40),
        (16, {"max_position_embeddings": 40}, 16),
        (77, {"text_config": {"max_position_embeddings": 16}}, 16),
        (77, {"text_config": {}, "max_position_embeddings": 40}, 40),
        (77, {"text_config": {"hidden_size": 8}, "max_position_embeddings": 40}, 77),
    ],
    ids=str,
)
def test_a_text_is_as_long_as_the_tokenizer_and_the_model_allow(stated, config, expected):
    tokenizer = Settings("tokenizer_config.json", {"model_max_length": stated})
    assert token_limit(tokenizer, Settings("config.json", config)) == expected


# --- special tokens -------------------------------------------------------------------------------


def test_special_tokens_are_found_by_their_names(tmp_path):
    words = word_pieces(tmp_path)
    tokenizer = open_tokenizer(tmp_path)
    assert tokenizer.special_id("mask_token") == words["[MASK]"]
    assert [tokenizer.token(number) for number in words.values()] == list(words)
    with pytest.raises(BundleError, match="no 'eos_token'"):
        tokenizer.special_id("eos_token")
    with pytest.raises(BundleError, match=f"no token with the id {len(words)}"):
        tokenizer.token(len(words))


# --- broken files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"model": {"type": "none"}}'])
def test_a_file_that_is_no_tokenizer_is_named(root, tmp_path, content):
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a tokenizer"):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("pad", "says"),
    [
        (None, "has no 'pad_token'"),
        ("<pad>", "'<pad>' is not in"),
        ({"content": "<pad>"}, "'<pad>' is not in"),
        ({}, "pad_token None is not in"),
        (7, "pad_token 7 is not in"),
    ],
    ids=str,
)
def test_a_padding_token_that_cannot_be_used_is_named(root, tmp_path, pad, says):
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    edit_json(tmp_path / "tokenizer_config.json", pad_token=pad)
    with pytest.raises(BundleError, match=rf"tokenizer_config\.json.*{says}"):
        open_tokenizer(tmp_path)


@pytest.mark.parametrize("form", [END, {"content": END, "lstrip": False}], ids=["text", "object"])
def test_both_forms_of_a_padding_token_are_read(root, tmp_path, vocabulary, form):
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    edit_json(tmp_path / "tokenizer_config.json", pad_token=form)
    assert open_tokenizer(tmp_path).pad_id == vocabulary[END]


def test_padding_and_truncation_stored_in_the_file_are_not_obeyed(root, tmp_path, tokenizer):
    """transformers too sets its own; a file saved while they were on must not change ids."""
    from tokenizers import Tokenizer as HfTokenizer

    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    stored = HfTokenizer.from_file(str(root / "tokenizer.json"))
    stored.enable_padding(length=10)
    stored.enable_truncation(3)
    stored.save(str(tmp_path / "tokenizer.json"))
    assert open_tokenizer(tmp_path).ids(["a red cat"]) == tokenizer.ids(["a red cat"])


# --- parity with transformers on the real vocabulary ----------------------------------------------

NASTY = [
    "a photo of a cat",
    "A PHOTO of a CaT",
    "İstanbul ΣΊΣΥΦΟΣ ẞtraße Ǆ",
    "it's they're I'd we'll I'm you've can't 'S 'LL o'clock rock'n'roll",
    "  leading,   inner \t\n\r and trailing  ",
    "no\u00a0break\u2003space\u200bzero\ufeffwidth\u3000wide",
    "cafe\u0301 caf\u00e9 \u1e9b\u0323 \ufb01ancée",
    "日本語の猫、犬。中文字符。한국어 고양이",
    "العربية עברית हिन्दी ไทย",
    "🐱 a cat 👩‍👩‍👧‍👦 🏳️‍🌈 ✌🏽 🇫🇷",
    "&lt;b&gt;bold&lt;/b&gt; &amp;amp; <br/> &#39;",
    "<|endoftext|>",
    "a <|endoftext|> in the middle",
    "<|startoftext|>a cat<|endoftext|>",
    "<|ENDOFTEXT|> <|endoftext |> <| endoftext|>",
    "3.14159 1e-4 007 ½ ² ٣ Ⅷ",
    "!!!...---???***###@@@$$$%%%^^^",
    "https://example.org/a?b=c&d=e#f",
    "a_snake_case and-a-hyphen and/or C++ f(x)",
    "zero\0byte \x01\x1f\x7f\x80 controls",
    "\ufffd \U0010ffff \ue000",
    "</w> a</w> </w>b",
    "x" * 75,
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "á̴̛̗̣ͬ̕ zalgo",
]


@pytest.fixture(scope="module")
def real(data, tmp_path_factory):
    """transformers' tokenizer of the real vocabulary, and vlrt's of what it saves."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTokenizer.from_pretrained(data / "clip-vit-base-patch32")
    root = tmp_path_factory.mktemp("real")
    theirs.save_pretrained(root)
    return theirs, open_tokenizer(root, 77)


@pytest.mark.torch
@pytest.mark.parametrize("text", NASTY)
def test_ids_of_nasty_texts_are_those_of_transformers(real, text):
    theirs, ours = real
    assert ours.ids([text]) == [theirs(text)["input_ids"]]


@pytest.mark.torch
def test_a_batch_is_padded_as_transformers_pads_it(real):
    theirs, ours = real
    expected = theirs(NASTY, padding=True, return_tensors="np")
    found = ours.pad(ours.ids(NASTY))
    for name in ("input_ids", "attention_mask"):
        assert np.array_equal(found[name], expected[name])
    expected = theirs(NASTY, padding="max_length", return_tensors="np")
    assert np.array_equal(ours.pad(ours.ids(NASTY), 77)["input_ids"], expected["input_ids"])


@pytest.mark.torch
@given(text=st.text(min_size=1, max_size=120))
def test_ids_of_any_text_are_those_of_transformers(real, text):
    theirs, ours = real
    try:
        found = ours.ids([text], truncate=True)
    except VlrtError:
        return  # which texts are refused is tested above
    assert found == [theirs(text, truncation=True, max_length=77)["input_ids"]]


@pytest.mark.torch
@pytest.mark.parametrize("text", ["a cat " * 40, "x" * 76, "日本" * 40, "<|endoftext|>" * 90])
def test_truncation_is_that_of_transformers(real, text):
    theirs, ours = real
    assert ours.ids([text], truncate=True) == [theirs(text, truncation=True)["input_ids"]]


@pytest.fixture(scope="module")
def bert(data, tmp_path_factory):
    """The same of ViLT's, which is BERT's."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizer.from_pretrained(data / "vilt-b32-finetuned-vqa")
    root = tmp_path_factory.mktemp("bert")
    theirs.save_pretrained(root)
    return theirs, open_tokenizer(root, 40)


MASKED = ["a [MASK] on the [MASK].", "[MASK]", "[mask] [ MASK ]", "a[MASK]b", "[CLS] a [SEP] [PAD]"]


@pytest.mark.torch
@pytest.mark.parametrize("text", NASTY + MASKED)
def test_ids_of_nasty_texts_are_those_of_bert(bert, text):
    theirs, ours = bert
    expected = theirs(text, truncation=True)
    assert ours.ids([text], truncate=True) == [expected["input_ids"]]
    assert not any(expected["token_type_ids"])


@pytest.mark.torch
def test_a_batch_is_padded_as_bert_pads_it(bert):
    theirs, ours = bert
    texts = NASTY + MASKED
    expected = theirs(texts, padding=True, truncation=True, return_tensors="np")
    found = ours.pad(ours.ids(texts, truncate=True))
    for name in ("input_ids", "attention_mask"):
        assert np.array_equal(found[name], expected[name])


@pytest.mark.torch
@given(text=st.text(min_size=1, max_size=120))
def test_ids_of_any_text_are_those_of_bert(bert, text):
    theirs, ours = bert
    try:
        found = ours.ids([text], truncate=True)
    except VlrtError:
        return  # which texts are refused is tested above
    assert found == [theirs(text, truncation=True)["input_ids"]]
