"""Results as Markdown and as pages: complete, self-contained, and safe with any text."""

import copy
import itertools
import re
from html.parser import HTMLParser

import pytest
from sample_documents import (
    MAKERS,
    accuracy,
    around,
    footprint,
    latency,
    load,
    read_back,
    small_latency,
    tune,
    with_another_base,
)

from vlrt.errors import OptionError
from vlrt_benchmarks import document as documents
from vlrt_benchmarks.joined import figures as joined_figures
from vlrt_benchmarks.plots import colour, drawn, unique
from vlrt_benchmarks.report import html, markdown, markdown_table, page
from vlrt_benchmarks.views import kinds, view_of
from vlrt_benchmarks.wording import in_order, number, points, ratio, spoken

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """What a page is made of; fails on tags that are closed wrongly."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags, self.links, self.columns = [], [], [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids += [value for key, value in attributes if key == "id"]
        self.links += [found[key] for key in ("src", "href", "xlink:href") if key in found]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def joined():
    return [small_latency(), small_latency(threads=1, seed=5), accuracy(), footprint()]


PAGES = {**{kind: lambda make=make: html(make()) for kind, make in MAKERS.items()},
         "joined": lambda: page(joined())}  # fmt: skip


@pytest.fixture(scope="module")
def pages():
    return {name: make() for name, make in PAGES.items()}


def test_there_is_a_view_and_a_sample_of_every_kind():
    assert kinds() == sorted(documents.KINDS) == sorted(MAKERS)
    for kind in kinds():
        view = view_of(kind)
        assert all(hasattr(view, n) for n in ("headline", "highlights", "tables", "figures"))


def test_an_unknown_kind_names_the_valid_ones():
    with pytest.raises(OptionError, match=r"'speed'; valid: accuracy, compare, footprint"):
        view_of("speed")


# --- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed_and_stands_alone(pages, name):
    found = Page(pages[name])
    assert len(found.ids) == len(set(found.ids))
    assert all(link.startswith("#") or link == "data:," for link in found.links)
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert not re.search(r"https?:|@import|<script|url\((?!#)", pages[name])
    assert set(re.findall(r"url\(#([^)]+)\)", pages[name])) <= set(found.ids)
    assert len(pages[name]) < 1.5e6


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_without_seeing_it(pages, name):
    tags = Page(pages[name]).tags
    headings = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings[1:]))
    assert headings[1] in (2, 3)
    plots = [found for _, found in tags if found.get("class") == "plot"]
    assert plots
    assert all(found["role"] == "img" and len(found["aria-label"]) > 20 for found in plots)
    assert all(found["scope"] in ("col", "row") for tag, found in tags if tag == "th")
    names = [tag for tag, _ in tags]
    assert names.count("caption") == names.count("table")


def test_a_page_is_the_same_each_time(pages):
    assert page(joined()) == pages["joined"]


@pytest.mark.parametrize("kind", MAKERS)
def test_a_page_and_markdown_have_the_same_tables(pages, kind):
    document = MAKERS[kind]()
    shown, written = Page(pages[kind]).text, markdown(document)
    for table in view_of(kind).tables(document):
        for row in [table.header, *table.rows]:
            for cell in row:
                assert cell in shown
                assert cell in written


@pytest.mark.parametrize("kind", MAKERS)
def test_what_was_read_back_gives_the_same_page(pages, kind):
    assert html(read_back(MAKERS[kind]())) == pages[kind]


@pytest.mark.parametrize("kind", MAKERS)
def test_an_empty_body_says_so(kind):
    document = around(kind, {})
    assert "Nothing was measured." in Page(html(document)).text
    assert markdown(document).startswith("# clip-vit-base-patch32: ")


@pytest.mark.parametrize("kind", MAKERS)
def test_any_text_is_only_text(kind):
    evil = "<script>alert(1)</script> a|b $x$ & ](y) `c` \u732b"
    document = MAKERS[kind]()
    document["title"] = document["command"] = evil
    document["notes"] = [evil]
    document["skipped"] = {evil: evil}
    if document["model"]:
        document["model"] = {**document["model"], "name": evil, "files": {evil: evil}}
    found = Page(html(renamed(document, evil)))
    assert "script" not in {tag for tag, _ in found.tags}
    assert evil in found.text
    assert "<script" not in re.sub(r"`[^`\n]*`", "", markdown(document))


def renamed(document, name):
    """The same with one contender of another name, wherever it is named."""
    text = copy.deepcopy(document)

    def walk(value):
        if isinstance(value, dict):
            return {name if k == "vlrt-fp32" else k: walk(v) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(one) for one in value]
        return name if value == "vlrt-fp32" else value

    return walk(text)


def test_a_difference_without_an_interval_is_shown_as_it_is():
    document = accuracy()
    for row in document["body"]["rows"]:
        row["low"] = row["high"] = None
        if row["difference"]:
            row["difference"] = {**row["difference"], "low": None, "high": None}
    assert "None" not in html(document)
    cells = [cell for row in view_of("accuracy").tables(document)[0].rows for cell in row]
    assert not any("[" in cell for cell in cells)


# --- what a report says ---------------------------------------------------------------------------


def test_the_headline_of_latency_is_the_whole_way_of_one_picture():
    document = latency()
    row = next(r for r in document["body"]["rows"] if r["stage"] == "end to end")
    found = row["ratios"]["vlrt-int8"]
    said = view_of("latency").headline(document)
    assert said == (
        f"vlrt int8 answers {ratio(found['value'])} times as fast as PyTorch fp32, from file to "
        f"scores, batch 1 [{ratio(found['low'])}-{ratio(found['high'])}]"
    )
    found["verdict"] = "too noisy"
    assert "too noisy" in view_of("latency").headline(document)
    assert "times as fast" not in view_of("latency").headline(document)


def test_an_option_that_nobody_has_by_default_is_not_in_the_headline():
    document = latency(contenders={"torch-fp32": 1.0, "vlrt-int8": 3.0, "vlrt-int8-fast": 9.0})
    assert view_of("latency").headline(document).startswith("vlrt int8 answers")


def test_ratios_to_another_base_stand_apart():
    document = with_another_base()
    view = view_of("latency")
    first, second = (t for t in view.tables(document) if t.title.startswith("Times as fast as"))
    assert (first.title, second.title) == (
        "Times as fast as torch-fp32",
        "Times as fast as vlrt-fp32",
    )
    assert "preprocess" not in {row[0] for row in first.rows}
    assert [row[:2] for row in second.rows] == [["preprocess", "1"]]
    assert second.note.startswith("torch-fp32 does not do these.")
    titles = [figure.title for figure in view.figures(document)]
    assert "Times as fast as torch-fp32, batch 1" in titles
    assert "Times as fast as vlrt-fp32, batch 1" in titles
    assert not any(one.value.startswith("77") for one in view.highlights(document))
    whole = with_another_base("end to end")
    assert "labels ready" in view.headline(whole)  # the first stage that the base has
    assert "77" not in view.headline(whole)


def test_a_result_of_before_has_one_base_and_no_classes():
    document = latency()
    for row in document["body"]["rows"]:
        del row["base"], row["same_class"]
    titles = [table.title for table in view_of("latency").tables(document)]
    assert titles.count("Times as fast as torch-fp32") == 1
    assert "Within one precision class" not in titles


def test_variants_stand_beside_others_of_their_class():
    tables = {table.title: table for table in view_of("latency").tables(latency())}
    found = tables["Within one precision class"]
    assert list(found.header) == ["stage", "batch", "variant", "to torch-fp32", "to openvino-int8"]
    assert ["end to end", "1", "vlrt-int8", "-", "1.40 [1.34-1.46]"] in [
        list(r) for r in found.rows
    ]
    assert ["decode", "1", "vlrt-fp32", "1.40 [1.34-1.46]", "-"] in [list(r) for r in found.rows]


def test_the_headline_is_of_a_variant_that_surely_differs():
    document = accuracy()
    changes = {"vlrt-fp32": (-0.02, -0.05, 0.01), "vlrt-int8": (0.012, 0.004, 0.02)}
    for row in document["body"]["rows"]:
        if row["difference"]:
            keys = ("value", "low", "high")
            row["difference"] = dict(zip(keys, changes[row["contender"]], strict=True))
    said = view_of("accuracy").headline(document)
    assert said.startswith("vlrt int8 is 1.20 points above PyTorch fp32's")


@pytest.mark.parametrize("end", [None, float("inf")])
def test_too_few_items_say_nothing(end):
    document = accuracy()
    for row in document["body"]["rows"]:
        if row["difference"]:
            low = None if end is None else -end
            row["difference"] = {"value": 0.0, "low": low, "high": end}
    assert view_of("accuracy").headline(document).startswith("Too few items to say whether vlrt")


def test_a_machine_too_noisy_for_a_knee_is_said():
    document = load()
    for one in document["body"]["contenders"].values():
        one["knee_per_s"] = None
    assert view_of("load").headline(document).startswith("No knee was found. ")
    for one in document["body"]["contenders"].values():
        one["too_noisy"] = True
    view = view_of("load")
    assert view.headline(document).startswith("This machine was too noisy for a knee. ")
    assert {row[-1] for row in view.tables(document)[0].rows} == {"too noisy"}
    assert "too noisy for a knee" in html(document)


def test_a_candidate_has_one_name_everywhere():
    document = tune()
    headline = view_of("tune").headline(document)
    assert headline.startswith("int8 with 2 threads on CPU is ")
    for one in document["body"]["candidates"]:
        del one["spinning"]
    assert view_of("tune").headline(document) == headline


def test_accuracy_says_whether_a_difference_is_chance():
    document = accuracy()
    assert "points below PyTorch fp32's" in view_of("accuracy").headline(document) or (
        "points above" in view_of("accuracy").headline(document)
    )
    for row in document["body"]["rows"]:
        if row["difference"]:
            row["difference"] = {"value": -0.001, "low": -0.004, "high": 0.002}
    assert "by more than chance" in view_of("accuracy").headline(document)


def test_results_together_show_what_none_shows_alone():
    titles = [figure.title for figure in joined_figures(joined())]
    assert titles == ["Speed against accuracy", "Throughput by threads, end to end"]
    assert joined_figures([small_latency(), footprint()]) == []


def test_throughput_by_threads_is_of_one_place_and_one_work():
    two, one, four = small_latency(), small_latency(threads=1), small_latency(threads=4)
    four["conditions"]["machine"]["processor"] = "another"
    assert joined_figures([two, four]) == []
    elsewhere = small_latency(threads=8)
    elsewhere["settings"]["device"] = "cuda"
    (drawing,) = joined_figures([two, one, four, elsewhere])
    assert "at threads 2" in drawing.alt
    with pytest.raises(OptionError, match="several results of latency with 2 threads"):
        joined_figures([two, one, small_latency(seed=4)])


def test_speed_is_that_of_the_first_result_with_something_to_quote():
    empty = {**small_latency(), "body": {}}
    titles = [figure.title for figure in joined_figures([empty, small_latency(), accuracy()])]
    assert titles == ["Speed against accuracy"]
    assert joined_figures([empty, accuracy()]) == []


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_results_of_no_model_or_of_several_are_refused(names):
    given = [{**around("load", {}), "model": {"name": name}} for name in names]
    with pytest.raises(OptionError, match="valid: "):
        page(given)


# --- the verb -------------------------------------------------------------------------------------


def test_several_results_become_one_page(tmp_path, capsys):
    from vlrt_benchmarks.__main__ import main

    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, one in zip(paths, (accuracy(), footprint()), strict=True):
        documents.write(one, path)
    out = tmp_path / "page.html"
    assert main(["report", *map(str, paths), "-o", str(out), "--title", "Both"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    text = Page(out.read_text()).text
    assert "Both" in text
    assert "Footprint" in text
    assert main(["report", str(paths[0]), "-o", str(tmp_path / "page.pdf")]) == 1
    assert "valid: a name that ends in .html" in capsys.readouterr().err


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "rows", "lines"),
    [
        ([], [], ["|  |", "|  |"]),
        (["a", "b"], [], ["| a | b |", "| ---: | ---: |"]),
        (["a", "b"], [["x|y", "1.5"]], ["| a | b |", "| --- | ---: |", "| x\\|y | 1.5 |"]),
    ],
)
def test_a_table_in_markdown(header, rows, lines):
    assert markdown_table(header, rows).splitlines() == lines


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (float("nan"), "-"), (float("inf"), "infinite"), (0, "0"), (0.00012, "1.2e-04"),
     (0.0126, "0.0126"), (1.234, "1.23"), (99.96, "100.0"), (123.4, "123"), (1234.5, "1,234")],
)  # fmt: skip
def test_numbers_have_three_digits(value, said):
    assert number(value) == said


def test_points_of_nothing_have_no_sign():
    assert points(-0.00001, signed=True) == "0.00"
    assert points(0.0123, signed=True) == "+1.23"


def test_contenders_are_named_and_ordered_for_readers():
    assert spoken("torch-compile-fp32") == "torch.compile fp32"
    assert spoken("vlrt-int8") == "vlrt int8"
    names = ["openvino-int8", "vlrt-int8", "torch-fp32", "vlrt-fp32"]
    assert in_order(names, "torch-fp32") == [
        "torch-fp32",
        "vlrt-int8",
        "vlrt-fp32",
        "openvino-int8",
    ]


def test_every_contender_has_its_own_colour():
    names = ["torch-fp32", "torch-bf16", "torch-compile-fp32", "pipeline-fp32", "openvino-fp32",
             "openvino-int8", "optimum-fp32", "vlrt-fp32", "vlrt-fp16", "vlrt-int8",
             "vlrt-int8-fast", "rust"]  # fmt: skip
    assert len({colour(name) for name in names}) == len(names)


def test_ids_of_drawings_do_not_meet():
    svg = drawn(lambda axes: axes.plot([0, 1], [0, 1], marker="o"), 1)
    ids = [set(re.findall(r'id="([^"]+)"', unique(svg, prefix))) for prefix in "ab"]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'href="#([^"]+)"', unique(svg, "a"))) <= ids[0]
