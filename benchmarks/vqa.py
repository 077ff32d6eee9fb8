"""VQA's own accuracy of an answer, after the description of its evaluation and what that does.

An answer is right if three of ten people gave it: the accuracy is min(n / 3, 1), averaged over the
ten ways to leave one of them out (Antol et al. 2015, section 3; visualqa.org/evaluation.html, which
also says how answers are brought into one form first). Both sides are, the people's too.
"""

import re
from collections.abc import Sequence

_NEEDED = 3  # people who must agree

_DIGITS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_ARTICLES = ("a", "an", "the")

# Apart from the apostrophe, which changes what a word means, and the colon of times.
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")  # but not that of a decimal number

# Those that would be words of their own, such as "well" and "ill", are not among them.
_NEGATED = (
    "ai", "are", "ca", "could", "did", "does", "do", "had", "has", "have", "is", "might", "must",
    "need", "ought", "sha", "should", "was", "were", "wo", "would",
)  # fmt: skip
_ENDED = {
    "d": ("he", "how", "it", "somebody", "someone", "something", "that", "there", "they", "what",
          "where", "who", "why", "you"),
    "ll": ("how", "it", "somebody", "someone", "something", "that", "there", "they", "what", "who",
           "why", "you"),
    "re": ("there", "they", "what", "who", "why", "you"),
    "s": ("he", "how", "let", "somebody", "someone", "something", "that", "there", "what", "when",
          "where", "who", "why"),
    "ve": ("could", "i", "might", "must", "not", "should", "they", "we", "what", "where", "who",
           "would", "you"),
    "m": ("i",),
}  # fmt: skip
# What ends in "'d've", of which either apostrophe may be missing.
_HAD_HAVE = (
    "he", "i", "it", "she", "somebody", "someone", "something", "there", "they", "we", "who",
    "y'all", "you",
)  # fmt: skip
_WHOLE = ("ma'am", "o'clock", "'twas", "y'all", "y'all'll")


def _contractions() -> dict[str, str]:
    """Every contraction without one of its apostrophes -> with all of them."""
    whole = [f"{word}n't" for word in _NEGATED] + [f"{word}n't've" for word in _NEGATED]
    whole += [f"{word}'{end}" for end, words in _ENDED.items() for word in words]
    whole += [f"{word}'d've" for word in _HAD_HAVE] + list(_WHOLE)
    return {
        word[:at] + word[at + 1 :]: word
        for word in whole
        for at, letter in enumerate(word)
        if letter == "'"
    }


_CONTRACTIONS = _contractions()


def normalise(answer: str) -> str:
    """Bring an answer into the form in which answers are compared.

    Lower case; no periods but those of decimal numbers; other punctuation removed or a space for
    it; digits for the numbers up to ten; no articles; contractions with their apostrophe; single
    spaces.
    """
    text = _PERIOD.sub("", _without_marks(" ".join(answer.lower().split())))
    words = (_DIGITS.get(word, word) for word in text.split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_marks(text: str) -> str:
    """Punctuation away: a space for a mark between letters, nothing for one beside a space.

    One place decides for all of a mark's; and a comma within a number, wherever it is, for all
    marks.
    """
    in_number = _COMMA_IN_NUMBER.search(text) is not None
    made = text
    for mark in _MARKS:
        closed = in_number or f"{mark} " in text or f" {mark}" in text
        made = made.replace(mark, "" if closed else " ")
    return made


def accuracy(answer: str, people: Sequence[str]) -> float:
    """How right an answer is.

    Args:
        answer: the model's.
        people: what people said, ten of them as a rule, at least two.

    Returns:
        0 to 1: of every group that leaves one of them out, a third for each who said the same, at
        most 1; averaged.

    Raises:
        ValueError: fewer than two people.
    """
    if len(people) < 2:
        raise ValueError(f"{len(people)} people cannot be left out one by one")
    given = normalise(answer)
    same = [normalise(one) == given for one in people]
    others = (sum(same) - one for one in same)
    return sum(min(number / _NEEDED, 1.0) for number in others) / len(people)
