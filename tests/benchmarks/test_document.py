"""Results on disk, and the command that makes them."""

import argparse
import json
import math
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="reports need the extra bench")

from sample_documents import latency

from vlrt import cli
from vlrt.errors import OptionError
from vlrt_benchmarks import __main__ as bench
from vlrt_benchmarks import document


def options(*arguments):
    parser = argparse.ArgumentParser()
    document.add_options(parser, "latency")
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ([], "bench-latency-clip.json"),
        (["-o", "deep/x.json"], "deep/x.json"),
    ],
)
def test_a_result_has_a_place(arguments, path):
    assert document.output_path(options(*arguments), "latency", "clip") == Path(path)


@pytest.mark.parametrize("name", ["x", "x.html", "x.json/"[:-1] + "l"])
def test_a_place_that_is_no_json_file_is_refused(name):
    with pytest.raises(OptionError, match=f"-o is '{name}'; valid: a name that ends in .json"):
        document.output_path(options("-o", name), "latency", "clip")


def test_a_new_result_says_where_and_how_it_is_made(monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.setattr("sys.argv", ["/bin/vlrt", "bench", "latency", "a model", "--title", "T"])
    found = document.begin(
        "latency", options("--title", "T"), subject=None, threads=2, settings={"rounds": 3}
    )
    assert found["command"] == "vlrt bench latency 'a model' --title T"
    assert (found["format"], found["kind"], found["title"]) == (1, "latency", "T")
    machine = found["conditions"]["machine"]
    assert {"processor", "cores", "cpu_features", "gpus", "load_average"} <= set(machine)
    assert found["conditions"]["versions"]["numpy"]


def test_three_files_are_written_and_the_first_read_back(tmp_path):
    path = tmp_path / "deep" / "x.json"
    made = latency()
    made["body"]["odd"] = [math.nan, math.inf, (1, 2)]
    files = document.write(made, path)
    assert [file.suffix for file in files] == [".json", ".md", ".html"]
    assert all(file.stat().st_size > 100 for file in files)
    assert sorted(tmp_path.rglob("*")) == sorted([path.parent, *files])
    read = document.read(path)
    assert read["body"]["odd"] == [None, None, [1, 2]]
    assert read["title"] == made["title"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        ("[]", "is not a result of vlrt bench"),
        ('{"kind": "no"}', "is not a result of vlrt bench"),
        ('{"kind": "latency"}', "format None; this vlrt reads 1"),
        ('{"kind": "latency", "format": 2}', "format 2; this vlrt reads 1"),
        ('{"kind": "latency", "format": 1, "body": {}}', r"lacks \['conditions', 'settings'"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, content, message):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OptionError, match=message):
        document.read(path)


def test_the_command_reports_errors_and_interruptions(monkeypatch, capsys, tmp_path):
    assert cli.main(["bench", "compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert "cannot be read as JSON" in capsys.readouterr().err

    def interrupted(_):
        raise KeyboardInterrupt

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=interrupted)
    monkeypatch.setattr(bench, "parser", lambda: parser)
    assert bench.main([]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "verb",
    ["latency", "accuracy", "footprint", "load", "serve", "tune", "compare", "report", "scenes"],
)
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main([verb, "--help"])
    assert ended.value.code == 0
    assert "usage: vlrt bench" in capsys.readouterr().out


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch, capsys):
    def absent():
        raise ModuleNotFoundError("No module named 'psutil'", name="psutil")

    monkeypatch.setattr(bench, "parser", absent)
    assert bench.main([]) == 1
    said = capsys.readouterr().err
    assert "'psutil'" in said
    assert 'pip install "vlrt[bench]"' in said


def test_the_samples_are_results():
    assert json.loads(json.dumps(latency()))["kind"] == "latency"
