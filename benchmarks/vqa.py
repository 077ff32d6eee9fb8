"""VQA's own accuracy of an answer, after the published description of its evaluation.

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
_PUNCTUATION = re.compile(r"[;/\[\]\"{}()=+\\_\-><@`,?!]")
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),(?=\d)")
_PERIOD = re.compile(r"\.(?!\d)")  # but not that of a decimal number

# Those that would be words of their own, such as "well" and "ill", are not among them.
_NEGATED = (
    "ai", "are", "ca", "could", "did", "does", "do", "had", "has", "have", "is", "might", "must",
    "need", "ought", "sha", "should", "was", "were", "wo", "would",
)  # fmt: skip
_ENDED = {
    "d": ("he", "how", "it", "that", "there", "they", "what", "where", "who", "why", "you"),
    "ll": ("how", "it", "somebody", "that", "there", "they", "what", "who", "why", "you"),
    "re": ("they", "what", "who", "why", "you"),
    "s": ("he", "how", "let", "somebody", "someone", "something", "that", "there", "what", "when",
          "where", "who", "why"),
    "ve": ("could", "i", "might", "must", "should", "they", "we", "what", "would", "you"),
    "m": ("i",),
}  # fmt: skip
_CONTRACTIONS = {f"{word}nt": f"{word}n't" for word in _NEGATED} | {
    f"{word}{end}": f"{word}'{end}" for end, words in _ENDED.items() for word in words
}


def normalise(answer: str) -> str:
    """Bring an answer into the form in which answers are compared.

    Lower case; no periods but those of decimal numbers, and no commas within numbers; a space for
    all other punctuation; digits for the numbers up to ten; no articles; contractions with their
    apostrophe; single spaces.
    """
    text = _COMMA_IN_NUMBER.sub("", answer.lower())
    text = _PUNCTUATION.sub(" ", _PERIOD.sub("", text))
    words = (_DIGITS.get(word, word) for word in text.split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


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
