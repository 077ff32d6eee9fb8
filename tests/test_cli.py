"""The command line, run in this process on the bundle that comes with vlrt."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vlrt
from vlrt import cli, demo, jpeg
from vlrt.hardware import MEANINGS
from vlrt.kernels import int8_kernels
from vlrt.session import Session

BUNDLE = str(demo.bundle("clip"))
PICTURES = demo.ROOT / "pictures"
RING = str(PICTURES / "shape-6.jpg")
LABELS = "a yellow ring,a blue cross,a red square"


def test_demo_prints_scores_provider_precision_and_times_and_draws_the_result(tmp_path, capsys):
    assert cli.main(["demo", "-o", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "CPUExecutionProvider, int8" in printed
    shapes = [line for line in printed.splitlines() if line.startswith("  shape-")]
    assert len(shapes) == 8
    assert all(line.endswith("right") for line in shapes)
    assert " ms, 64 labels " in printed
    assert " ms, 20 questions " in printed
    for family in ("clip", "owlvit", "vilt"):
        with Image.open(tmp_path / f"vlrt-demo-{family}.png") as picture:
            assert picture.width > 900


def test_classify_prints_the_best_label_first(capsys):
    assert cli.main(["classify", RING, "--labels", LABELS, "--model", BUNDLE]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.split(maxsplit=1)[1] == "a yellow ring"


def test_classify_as_json_gives_what_the_library_gives(capsys):
    assert cli.main(["classify", RING, "--labels", LABELS, "--model", BUNDLE, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    result = vlrt.load(BUNDLE).classify(RING, LABELS.split(","))
    assert printed == {"image": RING, **result.to_dict()}


def test_classify_with_templates_from_a_file_and_by_name(tmp_path, capsys):
    file = tmp_path / "templates.txt"
    file.write_text("a picture of {}\n\na drawing of {}\n")
    for templates in (str(file), "imagenet"):
        arguments = ["classify", RING, "--labels", LABELS, "--model", BUNDLE]
        assert cli.main([*arguments, "--templates", templates, "--truncate"]) == 0
    assert capsys.readouterr().out.count("a yellow ring") == 2


def test_classify_goes_on_after_a_bad_picture_and_fails_at_the_end(tmp_path, capsys):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    arguments = ["classify", str(bad), RING, "--labels", LABELS, "--model", BUNDLE]
    assert cli.main(arguments) == 1
    said = capsys.readouterr()
    assert "bad.jpg" in said.err
    assert "bad.jpg" not in said.out
    assert "a yellow ring" in said.out
    assert cli.main([*arguments, "--json"]) == 1
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["image"] for row in rows] == [str(bad), RING]
    assert set(rows[0]) == {"image", "error"}
    assert "is not a picture" in rows[0]["error"]
    assert rows[0]["error"] in said.err
    assert len(rows[1]["labels"]) == 3


def test_classify_runs_many_pictures_in_batches_in_their_order(monkeypatch, capsys):
    sizes = []

    def run(self, inputs):
        if "pixel_values" in inputs:
            sizes.append(len(inputs["pixel_values"]))
        return real(self, inputs)

    real = Session.run
    monkeypatch.setattr(Session, "run", run)
    paths = [str(path) for path in sorted(PICTURES.glob("shape-*.jpg"))]
    arguments = ["classify", *paths, "--labels", LABELS, "--model", BUNDLE, "--top-k", "1"]
    assert cli.main([*arguments, "--batch-size", "3"]) == 0
    assert sizes == [3, 3, 2]
    assert capsys.readouterr().out.splitlines()[::2] == paths


def test_classify_takes_directories_and_patterns(capsys):
    paths = [str(path) for path in sorted(PICTURES.glob("*.jpg"))]
    # All are one batch for both: dynamic int8 scales depend on the batch.
    results = vlrt.load(BUNDLE).classify(paths, LABELS.split(","))
    expected = [{"image": path, **r.to_dict()} for path, r in zip(paths, results, strict=True)]
    for given in (str(PICTURES), str(PICTURES / "*.jpg")):
        assert cli.main(["classify", given, "--labels", LABELS, "--model", BUNDLE, "--json"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert rows == expected


def test_pictures_may_stand_before_and_after_options(capsys):
    paths = [str(path) for path in sorted(PICTURES.glob("shape-*.jpg"))[:3]]
    rest = ["--labels", LABELS, "--model", BUNDLE]
    printed = []
    for arguments in ([*paths, *rest], [paths[0], *rest, *paths[1:]],
                      [*rest, paths[0], "--top-k", "5", *paths[1:]]):  # fmt: skip
        assert cli.main(["classify", *arguments]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0].splitlines()[::4] == paths
    assert printed == [printed[0]] * 3


def test_embed_takes_patterns(tmp_path):
    out = tmp_path / "v.npy"
    assert cli.main(["embed", str(PICTURES / "*-6.jpg"), "-o", str(out), "--model", BUNDLE]) == 0
    assert json.loads(out.with_suffix(".json").read_text())["rows"] == [RING]


def test_embed_makes_the_directory_that_it_writes_to(tmp_path):
    out = tmp_path / "new" / "v.npy"
    assert cli.main(["embed", RING, "-o", str(out), "--model", BUNDLE]) == 0
    assert np.load(out).shape[0] == 1
    assert sorted(path.name for path in out.parent.iterdir()) == ["v.json", "v.npy"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_a_terminal_cannot_show_does_not_stop_the_command(tmp_path, encoding):
    name = os.fsencode(tmp_path) + b"/bl\xe4tter.jpg"
    Path(os.fsdecode(name)).write_bytes(Path(RING).read_bytes())
    command = [sys.executable, "-m", "vlrt.cli", "classify", RING, name, tmp_path / "ü.jpg"]
    done = subprocess.run(
        [*command, "--labels", "das gelbe Öhr,東京", "--model", BUNDLE],
        env=os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"\\udce4tter.jpg" in done.stdout
    assert done.stdout.count("東京".encode(encoding, "backslashreplace")) == 2
    assert "ü.jpg".encode(encoding, "backslashreplace") in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_behind_stdout_is_told():
    command = [sys.executable, "-m", "vlrt.cli", "classify", RING, "--labels", "a,b"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*command, "--model", BUNDLE], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"vlrt: ")
    assert b"space" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["classify", RING, "--model", BUNDLE], "--labels"),
        (["classify", "none/*.jpg", "--model", BUNDLE, "--labels", "a"], "none/*.jpg"),
        (["classify", RING, "--model", BUNDLE, "--labels-file", os.devnull], "holds no labels"),
        (["classify", RING, "--model", BUNDLE, "--labels", ""], "label 0 is empty"),
        (["classify", RING, "--model", BUNDLE, "--labels", "a,,b"], "label 1 is empty"),
        (["classify", RING, "--model", BUNDLE, "--labels-file", "none.txt"], "none.txt"),
        (["classify", RING, "--model", BUNDLE, "--labels", "a", "--templates", "no"], "imagenet"),
        (["classify", RING, "--model", "no/such dir", "--labels", "a"], "no/such dir"),
        (["classify", RING, "--model", BUNDLE, "--labels", "a", "--precision", "q4"], "int8"),
        (["classify", RING, "--model", BUNDLE, "--labels", "a", "--device", "tpu"], "cuda"),
        (["classify", RING, "--model", BUNDLE, "--labels", "a", "--decode", "bad"], "fast"),
        (["embed", "nowhere", "-o", "v.npy", "--model", BUNDLE], "nowhere"),
        (["embed", RING, "-o", "", "--model", BUNDLE], "must end in .npy"),
        (["embed", RING, "-o", "v.png", "--model", BUNDLE], "must end in .npy"),
        (["embed", RING, "-o", f"{RING}/v.npy", "--model", BUNDLE], "cannot be written"),
        (["embed", RING, "-o", "x" * 300 + ".npy", "--model", BUNDLE], "cannot be written"),
        (["demo", "-o", RING], "cannot be written"),
        (
            ["classify", RING, "--model", BUNDLE, "--labels", "a", "--value", "scale=1"],
            "given: ['scale']",
        ),
        (["info", str(PICTURES)], "vlrt export"),
    ],
)
def test_a_mistake_is_named_and_fails_without_a_traceback(arguments, said, capsys):
    assert cli.main(arguments) == 1
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.startswith("vlrt: ")
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["classify"], ["classify", RING, "--model", BUNDLE, "--top-k", "0"],
     ["info", BUNDLE, "more"], ["classify", RING, "--model", BUNDLE, "--labels", "a", "--json=1"],
     ["classify", RING, "--model", BUNDLE, "--labels", "a", "--nonsense", RING],
     ["classify", RING, "--model", BUNDLE, "--labels", "a", "--value", "logit_scale"],
     ["classify", RING, "--model", BUNDLE, "--labels", "a", "--value", "100"],
     ["classify", RING, "--model", BUNDLE, "--labels", "a", "--value", "=100"]],
)  # fmt: skip
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_embed_writes_a_row_a_picture_and_their_paths(tmp_path):
    out = tmp_path / "vectors.npy"
    assert cli.main(["embed", str(PICTURES), "-o", str(out), "--model", BUNDLE]) == 0
    index = json.loads(out.with_suffix(".json").read_text())
    vectors = np.load(out)
    assert vectors.dtype == np.float32
    assert index["rows"] == [str(path) for path in sorted(PICTURES.glob("*.jpg"))]
    assert index["skipped"] == {}
    # All eight are one batch for both: dynamic int8 scales depend on the batch.
    np.testing.assert_array_equal(vectors, vlrt.load(BUNDLE).encode_images(index["rows"]))


def test_embed_skips_a_bad_file_says_so_and_fails_at_the_end(tmp_path, capsys):
    for number in range(5):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"broken")
    (tmp_path / "notes.txt").write_text("not a picture by its suffix")
    out = tmp_path / "v.npy"
    arguments = ["embed", str(tmp_path), "-o", str(out), "--model", BUNDLE, "--batch-size", "2"]
    assert cli.main(arguments) == 1
    said = capsys.readouterr().err
    assert "1.png" in said
    assert "no pictures by their suffix: 1 files" in said
    assert len(np.load(out)) == 4
    index = json.loads(out.with_suffix(".json").read_text())
    assert list(index["skipped"]) == [str(tmp_path / "1.png")]
    assert [row[-5:] for row in index["rows"]] == ["0.png", "2.png", "3.png", "4.png"]


def test_embed_with_nothing_readable_leaves_no_file(tmp_path, capsys):
    (tmp_path / "1.png").write_bytes(b"broken")
    assert cli.main(["embed", str(tmp_path), "-o", str(tmp_path / "v.npy"), "--model", BUNDLE]) == 1
    assert "none of 1 pictures" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["1.png"]


def test_embed_overwrites_only_when_told(tmp_path, capsys):
    out = tmp_path / "v.npy"
    out.write_bytes(b"mine")
    arguments = ["embed", RING, "-o", str(out), "--model", BUNDLE]
    assert cli.main(arguments) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert np.load(out).shape[0] == 1


def test_info_tells_how_a_bundle_was_proved(capsys):
    assert cli.main(["info", BUNDLE]) == 0
    printed = capsys.readouterr().out
    for said in ("clip", "int8", "PyTorch fp32", "vision_model", "logit_scale", "int8 here"):
        assert said in printed
    assert cli.main(["info", BUNDLE, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["family"] == "clip"


def test_doctor_names_versions_and_the_providers_that_start(capsys):
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert f"vlrt          {vlrt.__version__}" in printed
    assert "CPUExecutionProvider: starts" in printed
    assert f"large JPEGs   decoded by {jpeg.decoder()}" in printed
    kernels = int8_kernels()
    assert f"  int8 kernels {kernels}: {MEANINGS[kernels]}" in printed


def test_a_verb_of_an_absent_extra_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(cli._FORWARDED, "export", ("a_package_that_is_not_there", "export"))
    assert cli.main(["export", "x", "-o", "y"]) == 1
    assert 'pip install "vlrt[export]"' in capsys.readouterr().err


def test_version_is_the_package_s(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"vlrt {vlrt.__version__}"
