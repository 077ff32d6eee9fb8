"""VQA's accuracy on the cases that its description gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlrt_benchmarks.vqa import accuracy, normalise

WORDS = st.text("abc 'N.,-?1", max_size=12)


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("", ""),
        ("Yes", "yes"),
        ("  two   dogs\n", "2 dogs"),
        ("yes.", "yes"),
        ("U.S.A.", "usa"),
        ("3.5 miles", "3.5 miles"),
        ("100,978", "100978"),
        ("1,000 black/white", "1000 blackwhite"),  # a comma in a number closes all punctuation
        ("red - blue-green", "red bluegreen"),
        ("red -blue", "red blue"),
        ("yes/no; no", "yes no no"),
        ("t-shirt -\n", "tshirt"),
        ("t-shirt\n", "t shirt"),
        ("3 oclock", "3 o'clock"),
        ("yall", "y'all"),
        ("maam", "ma'am"),
        ("twas", "'twas"),
        ("itd've", "it'd've"),
        ("it'dve", "it'd've"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("red, white and blue", "red white and blue"),
        ("t-shirt", "t shirt"),
        ("black/white", "black white"),
        ("dont know", "don't know"),
        ("it's a cat", "it's cat"),
        ("the dog's", "dog's"),
        ("10:30", "10:30"),
        ("None", "0"),
        ("ten", "10"),
        ("The", ""),
        ("well", "well"),  # a word of its own, and not "we'll"
        ("what?", "what"),
    ],
)
def test_answers_are_brought_into_one_form(answer, form):
    assert normalise(answer) == form


@given(WORDS)
def test_that_form_has_but_one(answer):
    assert normalise(normalise(answer)) == normalise(answer)
    assert normalise(answer.upper()) == normalise(answer)


@pytest.mark.parametrize(
    ("same", "right"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)]
)
def test_three_of_ten_people_are_nearly_enough(same, right):
    people = ["yes"] * same + ["no"] * (10 - same)
    assert accuracy("Yes.", people) == pytest.approx(right)


@given(st.lists(WORDS, min_size=2, max_size=10), WORDS)
def test_accuracy_is_a_share_and_does_not_depend_on_the_order_of_people(people, answer):
    found = accuracy(answer, people)
    assert 0 <= found <= 1
    assert found == pytest.approx(accuracy(answer, people[::-1]))
    # Who agrees makes it no less right.
    assert accuracy(answer, [answer, *people[1:]]) >= found - 1e-9


def test_people_are_brought_into_that_form_too():
    assert accuracy("2", ["Two!"] * 10) == 1


def test_one_person_is_not_enough():
    with pytest.raises(ValueError, match="1 people"):
        accuracy("yes", ["yes"])
