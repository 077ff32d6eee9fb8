"""Warm-up runs every shape that was asked for, twice."""

import pytest

import vlrt
from vlrt import demo, warmup
from vlrt.buckets import LENGTH_STEP
from vlrt.cli import main
from vlrt.errors import OptionError


@pytest.fixture(scope="module", params=["clip", "owlvit", "vilt"])
def model(request):
    return vlrt.load(demo.bundle(request.param), device="cpu")


def shapes(rows):
    return [(row.what, row.batch_size, row.size_hw, row.tokens) for row in rows]


@pytest.mark.parametrize("batch_sizes", [(), (1,), (1, 3)])
@pytest.mark.parametrize("lengths", [(4,), (4, 7)])
def test_every_shape_is_run(model, batch_sizes, lengths):
    sizes_hw = [(64, 64), (32, 64)]
    found = shapes(model.warmup(batch_sizes, sizes_hw=sizes_hw, lengths=lengths))
    if model.info["family"] == "vilt":
        assert found == [
            ("pictures and texts", batch, size, tokens)
            for batch in batch_sizes
            for size in sizes_hw
            for tokens in lengths
        ]
        return
    expected = []
    for batch in batch_sizes:
        expected.append(("pictures", batch, (64, 64), None))  # all become one size
        expected += [("texts", batch, None, tokens) for tokens in lengths]
    assert found == expected


def test_both_runs_are_timed(model, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(warmup.time, "perf_counter", lambda: next(ticks))
    for row in model.warmup(lengths=[4]):
        assert (row.first_s, row.next_s) == (1, 1)


def test_graphs_see_the_shapes(tiny_bundle):
    seen = []

    def watch(component, session):
        def run(inputs, own=session.run):
            seen.append({name: array.shape for name, array in inputs.items()})
            return own(inputs)

        session.run = run
        return session

    model = vlrt.load(tiny_bundle, device="cpu", wrap=watch)
    model.warmup((2,), lengths=[5])
    assert [made["pixel_values"][0] for made in seen if "pixel_values" in made] == [2, 2]
    assert [made["input_ids"] for made in seen if "input_ids" in made] == [(2, 5), (2, 5)]


def test_by_default_texts_have_all_lengths_that_they_are_padded_to(tiny_bundle):
    model = vlrt.load(tiny_bundle, device="cpu")
    most = model.tokenizer.max_length
    assert model._lengths(None) == [min(LENGTH_STEP, most)]
    model.info["padded"] = True
    found = model._lengths(None)
    assert found[-1] == most
    assert all(b - a <= LENGTH_STEP for a, b in zip([0, *found], found, strict=False))


def test_a_text_can_be_as_long_as_the_model_takes(model):
    most = model.tokenizer.max_length
    assert model._tokens(model._text(most)) == most
    (row, *_) = [row for row in model.warmup(lengths=[most]) if row.tokens]
    assert row.tokens == most


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_sizes": [0]}, "batch_sizes is 0"),
        ({"batch_sizes": [1.5]}, "batch_sizes is 1.5"),
        ({"sizes_hw": [(0, 5)]}, "sizes_hw is 0"),
        ({"sizes_hw": [(5, 5, 3)]}, r"sizes_hw has \(5, 5, 3\); valid: \(height, width\)"),
        ({"lengths": [0]}, "lengths is 0"),
        ({"lengths": [100_000]}, "lengths has 100000; the model takes up to"),
    ],
)
def test_what_is_no_shape_is_refused(model, options, says):
    with pytest.raises(OptionError, match=says):
        model.warmup(**options)


def test_the_command_prints_a_line_a_shape(capsys):
    bundle = str(demo.bundle("clip"))
    assert main(["warmup", bundle, "--batch-size", "1", "2", "--tokens", "4"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("int8 on CPUExecutionProvider: ")
    assert [line.split()[:2] for line in lines] == [
        ["1", "pictures"], ["1", "texts"], ["2", "pictures"], ["2", "texts"]
    ]  # fmt: skip


@pytest.mark.parametrize("size", ["3", "x", "3x", "0x3", "axb"])
def test_the_command_refuses_a_size_that_is_none(size, capsys):
    with pytest.raises(SystemExit):
        main(["warmup", str(demo.bundle("clip")), "--size", size])
    assert "--size" in capsys.readouterr().err
