"""`vlrt ask` and `vlrt match`, on a model that answers what the tests want."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vlrt
from vlrt import cli
from vlrt.errors import ImageError
from vlrt.families import vilt
from vlrt.image import load_image
from vlrt.results import Answers

QUESTION = "How many cats are there?"
QUESTIONS = [QUESTION, "Is it red?"]
TEXTS = ["a cat", "two cats, asleep", "東京"]


class Model:
    """Gives answers, and logits that fall with the picture and rise with the text; keeps calls."""

    def __init__(self):
        self.calls = []
        self.info = {"task": "visual-question-answering"}

    def iter_ask(self, images, questions, **given):
        self._record("iter_ask", images, questions, **given)
        words = ("two", "a cat", "no")[: given["top_k"]]
        scores = np.array([0.91, 0.5, 0.0004], np.float32)[: given["top_k"]]
        return self._each(images, lambda _: [Answers(q, words, scores) for q in questions])

    def iter_match(self, images, texts, **given):
        self._record("iter_match", images, texts, **given)
        rise = np.arange(len(texts), dtype=np.float32)
        return self._each(images, lambda at: rise - at / 2)

    def _record(self, method, *args, **given):
        # The real model takes what this one is given.
        inspect.signature(getattr(vilt.Model, method)).bind(self, *args, **given)
        self.calls.append((method, args, given))

    def _each(self, images, result):
        for at, path in enumerate(images):
            try:
                load_image(path)
            except ImageError as error:
                yield path, error
                continue
            yield path, result(at)


@pytest.fixture
def model(monkeypatch):
    made = Model()
    monkeypatch.setattr(vlrt, "load", lambda *_, **__: made)
    return made


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Run in a directory with pictures, questions and texts."""
    for name in ("a.png", "b.jpg", "sub/a.png", "sub/c.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48), (200, 200, 200)).save(tmp_path / name)
    (tmp_path / "q.txt").write_text("\ufeff" + "\n\n".join(QUESTIONS) + "\n", encoding="utf-8")
    (tmp_path / "t.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n \n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*arguments):
    return cli.main(["ask", *arguments, "--model", "vilt"])


def match(*arguments, texts="t.txt"):
    return cli.main(["match", *arguments, "--texts", texts, "--model", "vilt"])


# --- ask: what is printed -------------------------------------------------------------------------


def test_one_question_about_one_picture_prints_its_answers_alone(model, folder, capsys):
    assert ask("a.png", QUESTION) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["  0.910  two", "  0.500  a cat", "  0.000  no"]
    assert said.err == ""


def test_several_questions_and_pictures_head_their_answers(model, folder, capsys):
    assert ask("a.png", "sub", "--questions", "q.txt", "--top-k", "1") == 0
    asked = [f"  {QUESTIONS[0]}", "    0.910  two", f"  {QUESTIONS[1]}", "    0.910  two"]
    lines = ["a.png", *asked, "sub/a.png", *asked, "sub/c.bmp", *asked]
    assert capsys.readouterr().out.splitlines() == lines


def test_json_lines_hold_what_the_library_gives(model, folder, capsys):
    for arguments, questions in ((["--questions", "q.txt"], QUESTIONS), ([QUESTION], [QUESTION])):
        assert ask("a.png", "sub", *arguments, "--json") == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["image"] for row in rows] == ["a.png", "sub/a.png", "sub/c.bmp"]
        for row in rows:
            assert [entry["question"] for entry in row["questions"]] == questions
            for entry in row["questions"]:
                assert [one["answer"] for one in entry["answers"]] == ["two", "a cat", "no"]
                assert entry["answers"][1]["score"] == 0.5


# --- ask: what is asked ---------------------------------------------------------------------------


def test_the_last_argument_is_the_question(model, folder):
    assert ask("a.png", "b.jpg", QUESTION) == 0
    ((method, args, given),) = model.calls
    assert (method, args) == ("iter_ask", (["a.png", "b.jpg"], [QUESTION]))
    assert given == {"top_k": 5, "truncate": False, "batch_size": 8}
    own = inspect.signature(vilt.Model.iter_ask).parameters
    assert {name: own[name].default for name in given} == given


@pytest.mark.parametrize(
    "order",
    [["a.png", "b.jpg", QUESTION, "--json"], ["a.png", "b.jpg", "--json", QUESTION],
     ["a.png", "--json", "b.jpg", QUESTION], ["--json", "a.png", "b.jpg", QUESTION],
     ["--top-k", "5", "a.png", "--json", "b.jpg", "--batch-size", "8", QUESTION]],
)  # fmt: skip
def test_options_may_stand_between_the_pictures_and_the_question(model, folder, order):
    assert ask(*order) == 0
    ((_, args, _),) = model.calls
    assert args == (["a.png", "b.jpg"], [QUESTION])


def test_every_option_reaches_the_model(model, folder):
    options = ["--top-k", "2", "--truncate", "--batch-size", "3"]
    assert ask("a.png", "--questions", "q.txt", *options) == 0
    ((_, args, given),) = model.calls
    assert args == (["a.png"], QUESTIONS)
    assert given == {"top_k": 2, "truncate": True, "batch_size": 3}


def test_a_question_that_no_model_would_take_is_left_to_it(model, folder):
    for question in ("", " ", "why " * 500, "Is this a.png?"):
        assert ask("a.png", question) == 0
        assert model.calls[-1][1] == (["a.png"], [question])


# --- match ----------------------------------------------------------------------------------------


def test_the_texts_of_one_picture_are_ranked(model, folder, capsys):
    assert match("a.png") == 0
    lines = ["   2.000  東京", "   1.000  two cats, asleep", "   0.000  a cat"]
    assert capsys.readouterr().out.splitlines() == lines
    ((method, args, given),) = model.calls
    assert (method, args[0], list(args[1])) == ("iter_match", ["a.png"], TEXTS)
    assert given == {"truncate": False, "batch_size": 8}
    own = inspect.signature(vilt.Model.iter_match).parameters
    assert {name: own[name].default for name in given} == given


def test_of_several_pictures_each_heads_its_texts(model, folder, capsys):
    assert match("a.png", "b.jpg", "--top-k", "1") == 0
    lines = ["a.png", "   2.000  東京", "b.jpg", "   1.500  東京"]
    assert capsys.readouterr().out.splitlines() == lines


def test_by_text_each_text_heads_its_pictures(model, folder, capsys):
    assert match("b.jpg", "a.png", "--by", "text", "--truncate", "--batch-size", "2") == 0
    lines = []
    for at, text in enumerate(TEXTS):
        lines += [text, f"{at:8.3f}  b.jpg", f"{at - 0.5:8.3f}  a.png"]
    assert capsys.readouterr().out.splitlines() == lines
    assert model.calls[0][2] == {"truncate": True, "batch_size": 2}
    Path("one.txt").write_text("a cat")
    assert match("b.jpg", "a.png", "--by", "text", "--top-k", "1", texts="one.txt") == 0
    assert capsys.readouterr().out == "   0.000  b.jpg\n"


def test_match_as_json(model, folder, capsys):
    assert match("a.png", "b.jpg", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in rows] == ["a.png", "b.jpg"]
    assert rows[1]["texts"][:2] == [{"text": "東京", "logit": 1.5},
                                    {"text": "two cats, asleep", "logit": 0.5}]  # fmt: skip
    assert match("a.png", "b.jpg", "--json", "--by", "text", "--top-k", "2") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    assert rows[2]["images"] == [{"image": "a.png", "logit": 2.0}, {"image": "b.jpg", "logit": 1.5}]


# --- both: pictures that cannot be read, files, mistakes ------------------------------------------


@pytest.mark.parametrize("run", [lambda *more: ask(*more, "--questions", "q.txt"), match,
                                 lambda *more: match(*more, "--by", "text")])  # fmt: skip
def test_a_bad_picture_is_named_and_the_others_go_on(model, folder, capsys, run):
    (folder / "bad.jpg").write_bytes(b"no picture")
    assert run("bad.jpg", "a.png", "missing.png") == 1
    said = capsys.readouterr()
    assert "bad.jpg" not in said.out
    assert "a.png" in said.out
    for expected in ("bad.jpg", "missing.png", "2 of 3 could not be read"):
        assert expected in said.err
    assert run("bad.jpg", "a.png", "--json") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0].keys() == {"image", "error"}
    assert rows[0]["image"] == "bad.jpg"
    assert "'bad.jpg' is not a picture" in rows[0]["error"]
    assert len(rows) >= 2
    assert not any("error" in row for row in rows[1:])
    assert run("bad.jpg") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "could not be read" not in said.err  # one picture is not counted


@pytest.mark.parametrize("run", [lambda *more: ask(*more, QUESTION), match,
                                 lambda *more: match(*more, "--by", "text")])  # fmt: skip
def test_results_go_into_a_file(model, folder, capsys, run):
    assert run("sub", "--json") == 0
    printed = capsys.readouterr().out
    assert run("sub", "--json", "-o", "new/out.jsonl") == 0
    assert capsys.readouterr().out == ""
    assert Path("new/out.jsonl").read_text() == printed
    assert run("sub", "--json", "-o", "new/out.jsonl") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert run("sub", "a.png", "--json", "-o", "new/out.jsonl", "--overwrite") == 0
    assert len(Path("new/out.jsonl").read_text()) > len(printed)
    assert run("sub", "--json", "-o", "a.png/out.jsonl") == 1
    assert "cannot be written" in capsys.readouterr().err
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ask", "a.png"], "no question: 'a.png' names pictures"),
        (["ask", "a.png", "b.jpg"], "no question: 'b.jpg' names pictures"),
        (["ask", "a.png", "missing.jpg"], "no question: 'missing.jpg' names pictures"),
        (["ask", "a.png", "sub"], "no question: 'sub' names pictures"),
        (["ask", "a.png", "sub/*"], "no question: 'sub/*' names pictures"),
        (["ask", QUESTION], f"no picture: the last argument, {QUESTION!r}, is the question"),
        (["ask", "a.png", QUESTION, "--questions", "q.txt"], "no question stands after"),
        (["ask", "a.png", "Why", "--questions", "q.txt"], "no question stands after"),
        (["ask", "a.png", "", "--questions", "q.txt"], "no question stands after"),
        (["ask", "a.png", "--questions", "none.txt"], "questions file 'none.txt' cannot be read"),
        (["ask", "a.png", "--questions", "a.png"], "questions file 'a.png' cannot be read"),
        (["ask", "a.png", "--questions", "empty.txt"], "'empty.txt' holds no questions"),
        (["ask", "in/*.jpg", QUESTION], "no file matches 'in/*.jpg'"),
        (["ask", "a.png", QUESTION, "-o", "out.jsonl"], "with --json"),
        (["ask", "a.png", QUESTION, "--json", "-o", "out.png"], "a name in .jsonl"),
        (["ask", "a.png", QUESTION, "--json", "-o", "x" * 300 + ".jsonl"], "cannot be written"),
        (["match", "a.png", "--texts", "none.txt"], "texts file 'none.txt' cannot be read"),
        (["match", "a.png", "--texts", "empty.txt"], "'empty.txt' holds no texts"),
        (["match", "a.png", "--texts", "t.txt", "-o", "out.jsonl"], "with --json"),
    ],
)
def test_a_mistake_is_named_before_the_model_is_loaded(
    folder, monkeypatch, capsys, arguments, said
):
    loads = []
    monkeypatch.setattr(vlrt, "load", lambda *_, **__: loads.append(1))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert cli.main([*arguments, "--model", "vilt"]) == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.startswith("vlrt: ")
    assert loads == []
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "arguments",
    [["ask"], ["ask", "--model", "m"], ["ask", "a.png", QUESTION],
     ["ask", "a.png", QUESTION, "--model", "m", "--top-k", "0"],
     ["ask", "a.png", QUESTION, "--model", "m", "--nonsense"],
     ["ask", "a.png", "--model", "m", "--nonsense", QUESTION],
     ["match", "a.png", "--model", "m"], ["match", "--texts", "t.txt", "--model", "m"],
     ["match", "a.png", "--texts", "t.txt", "--model", "m", "--by", "colour"]],
)  # fmt: skip
def test_wrong_usage_exits_with_2(model, folder, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err
    assert model.calls == []


@pytest.mark.parametrize("run", [lambda: ask("a.png", QUESTION), lambda: match("a.png")])
def test_a_model_for_something_else_is_refused(folder, monkeypatch, capsys, run):
    class Classifier:
        info = {"task": "zero-shot-image-classification"}  # noqa: RUF012

    monkeypatch.setattr(vlrt, "load", lambda *_, **__: Classifier())
    assert run() == 1
    assert "zero-shot-image-classification" in capsys.readouterr().err


# --- the bar --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "shown"),
    [(lambda: ask("sub", QUESTION), False), (lambda: match("sub"), False),
     (lambda: match("sub", "--by", "text"), True),
     (lambda: ask("sub", QUESTION, "--json", "-o", "out.jsonl"), True)],
)  # fmt: skip
def test_a_bar_is_drawn_where_no_results_come_between(
    model, folder, monkeypatch, capsys, run, shown
):
    for name in ("stderr", "stdout"):
        monkeypatch.setattr(f"sys.{name}.isatty", lambda: True)
    assert run() == 0
    said = capsys.readouterr().err
    assert ("2/2" in said) == shown
    assert (
        said.endswith("\n") == shown
    )  # results that are printed next begin on a line of their own
