"""The page, driven in a real browser against a real server: it shows what the library gives."""

import asyncio
import base64
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlrt.demo import ROOT
from vlrt.errors import OverloadError

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
from selenium.webdriver.common.actions.action_builder import ActionBuilder  # noqa: E402
from selenium.webdriver.common.actions.pointer_input import PointerInput  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"
)
SCENE, SHAPE = ROOT / "pictures" / "scene-1.jpg", ROOT / "pictures" / "shape-2.jpg"
LABELS = ["a purple diamond", "a yellow circle", "a purple star", "a pink heart"]
MERGED = {"iou_threshold": 0.5, "class_agnostic": True}  # what the page asks for
KEY = "a-key-that-is-hard-to-guess"
PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}


class Page:
    """The page in a browser, as a reader uses it."""

    def __init__(self, browser, url):
        self.browser, self.url = browser, url
        self.expected = []  # parts of console messages that a test provokes

    def open(self, url=None):
        self.browser.get(f"{url or self.url}/")
        self.until(lambda: "Asking" not in self.text("waiting") or self.shown("key"))

    def until(self, holds):
        WebDriverWait(self.browser, 30).until(lambda _: holds())

    def at(self, name):
        return self.browser.find_element("id", name)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def js(self, code, *values):
        return self.browser.execute_script(code, *values)

    def cdp(self, command, **values):
        return self.browser.execute_cdp_cmd(command, values)

    def shown(self, name):
        return self.at(name).is_displayed()

    def text(self, name):
        return self.at(name).text

    def show(self, path):
        before = self.js("return document.getElementById('image').src")
        self.at("file").send_keys(str(path))
        self.until(lambda: self.js("return document.getElementById('image').src") != before)
        self.until(lambda: self.shown("stage") and Path(path).name in self.text("file-about"))

    def tab(self, name):
        self.at(f"tab-{name}").click()

    def by(self, kind):
        self.all(f".switch input[value={kind}]")[0].send_keys(Keys.SPACE)

    def run(self):
        self.at("run").click()
        self.until(lambda: self.shown("results") and not self.shown("progress"))

    def boxes(self):
        """The boxes as drawn, the best first: label, and corners in the picture's pixels."""
        drawn = self.js(
            """return [...document.querySelectorAll(".object .box")].map((box) => [
                Number(box.parentNode.dataset.number), box.parentNode.dataset.label,
                ...["x", "y", "width", "height"].map((name) => Number(box.getAttribute(name)))])"""
        )
        return [
            (label, [x, y, x + width, y + height])
            for _, label, x, y, width, height in sorted(drawn)
        ]

    def rows(self):
        return [
            (
                row.find_element("css selector", "b").text,
                row.find_element("class name", "score").text,
            )
            for row in self.all("#found li")
        ]

    def region(self):
        return [int(self.at(f"region-{side}").get_property("value") or -1) for side in "xywh"]

    def network(self):
        logs = [
            json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")
        ]
        return [
            log["params"]["request"] for log in logs if log["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    folder = tmp_path_factory.mktemp("chromium")
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--user-data-dir={folder}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)) as driver:
        yield driver


@pytest.fixture
def page(browser, server):
    """The page, just opened. Afterwards: nothing went wrong in it, nothing was asked elsewhere."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    page = Page(browser, server.url)
    page.open()
    yield page
    messages = [entry["message"] for entry in browser.get_log("browser")]
    origins = {
        request["url"].split("/")[2] for request in page.network() if "http" in request["url"][:4]
    }
    page.cdp("Emulation.clearDeviceMetricsOverride")
    page.cdp("Emulation.setTouchEmulationEnabled", enabled=False)
    page.js("sessionStorage.clear()")
    assert [one for one in messages if not any(part in one for part in page.expected)] == []
    assert origins <= {page.url.split("/")[2]}


def expected(found):
    boxes = found.clipped().boxes.astype(float).tolist()
    return list(zip(found.names, boxes, strict=True))


def assert_drawn(page, found):
    drawn, wanted = page.boxes(), expected(found)
    assert [label for label, _ in drawn] == [label for label, _ in wanted]
    assert len(drawn) >= 1
    np.testing.assert_allclose([box for _, box in drawn], [box for _, box in wanted], atol=1e-3)


def turned(path, orientation, transpose):
    """A JPEG whose pixels lie on their side, and whose EXIF says how to turn them upright."""
    with Image.open(path) as image:
        image.transpose(transpose).save(path, exif=_exif(orientation), quality=95)
    return path


def _exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def text_of(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.text


# The files


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
        ("/static/script.js", "text/javascript; charset=utf-8"),
        ("/static/icon.svg", "image/svg+xml"),
    ],
)
def test_a_file_is_asked_for_again_and_sent_once(client, path, media_type):
    first = client.get(path)
    assert first.status_code == 200
    assert first.headers["Content-Type"] == media_type
    assert first.headers["Cache-Control"] == "no-cache"
    tag = first.headers["ETag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).content == first.content
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(first.content))


def test_all_that_the_page_is_made_of_is_there_and_nothing_of_it_is_elsewhere(client):
    seen, left = set(), ["/"]
    while left:
        path = left.pop()
        seen.add(path)
        text = text_of(client, path)
        if not path.endswith(".svg"):
            assert set(re.findall(r"https?://[^\s\"'`)]*", text)) <= {"http://www.w3.org/2000/svg"}
        names = re.findall(r'(?:"static/|"\./)([\w.]+)"', text)
        left += [f"/static/{name}" for name in names if f"/static/{name}" not in seen]
    from vlrt.server.pages import read_pages

    assert {path.rpartition("/")[2] or "index.html" for path in seen} == set(read_pages())


@pytest.mark.parametrize(
    "path",
    [
        "/static/none.js",
        "/static/index.html",
        "/static/",
        "/static/..%2fpages.py",
        "/static/%2e%2e%2fpages.py",
        "/static/..%5cpages.py",
        "/pages.py",
    ],
)
def test_nothing_else_can_be_had(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_server_without_a_page_has_none(serve, client_of):
    client = client_of(serve(page=False))
    assert client.get("/").status_code == client.get("/static/script.js").status_code == 404


def test_only_kinds_of_files_that_a_page_has_are_read(tmp_path):
    from vlrt.server.pages import read_pages

    for name in ("a.css", "b.py", "c.svg~", ".d"):
        (tmp_path / name).write_text("x")
    assert set(read_pages(tmp_path)) == {"a.css"}


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(client, scheme):
    blocks = re.findall(r":root \{(.*?)\}", text_of(client, "/static/style.css"), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[scheme]))
    assert len(blocks) == 2

    def luminance(name):
        parts = [int(colours[name][at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    def contrast(one, other):
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    texts = [(ink, behind) for ink in ("ink", "soft") for behind in ("card", "page", "sunk")]
    texts += [
        ("ink", "tint"),
        ("mark-strong", "tint"),
        ("on-mark", "mark"),
        ("on-mark", "mark-strong"),
    ]
    texts += [("bad", "bad-tint"), ("ink", "bad-tint"), ("mark", "card"), ("soft", "line")]
    assert {pair: contrast(*pair) for pair in texts if contrast(*pair) < 4.5} == {}
    assert min(contrast("edge", "card"), contrast("mark", "sunk")) >= 3


# What it shows


@needs_browser
def test_objects_are_drawn_where_the_library_finds_them(page, library):
    page.show(SCENE)
    page.at("labels").send_keys(f"{LABELS[0]}, {LABELS[1]},{LABELS[2]}{Keys.ENTER}{LABELS[3]}")
    page.run()
    owl = library["owlvit-demo"]
    assert_drawn(page, owl.detect(SCENE, LABELS, threshold=0.1, **MERGED))
    assert len(page.boxes()) == len(page.all("#found tbody tr"))
    assert page.text("summary").startswith(f"{len(page.boxes())} objects")

    # On the screen, too, they lie on their pixels of the picture.
    image, box, x, y, natural = page.js(
        """const image = document.getElementById("image");
        const box = document.querySelector('.box:first-child, [data-number="0"] .box');
        return [image.getBoundingClientRect(), box.getBoundingClientRect(),
                box.x.baseVal.value, box.y.baseVal.value, image.naturalWidth]"""
    )
    scale = image["width"] / natural
    assert box["x"] == pytest.approx(image["x"] + x * scale, abs=1)
    assert box["y"] == pytest.approx(image["y"] + y * scale, abs=1)

    # The slider asks nothing anew.
    page.network()
    page.js(
        """const slider = arguments[0]; slider.value = 0.5;
        slider.dispatchEvent(new Event("input", {bubbles: true}))""",
        page.at("threshold"),
    )
    page.until(lambda: page.text("threshold-shown") == "0.50")
    assert_drawn(page, owl.detect(SCENE, LABELS, threshold=0.5, **MERGED))
    assert page.network() == []


@needs_browser
def test_overlapping_boxes_are_kept_where_the_reader_wants_them(page, library):
    page.show(SCENE)
    page.at("labels").send_keys("a pink heart, a purple star,")
    page.all("details summary")[0].click()
    page.at("merge").click()
    page.at("template").send_keys("see {}")
    page.run()
    found = library["owlvit-demo"].detect(
        SCENE, ["a pink heart", "a purple star"], threshold=0.1, templates=["see {}"]
    )
    assert_drawn(page, found)


@needs_browser
@pytest.mark.parametrize(
    ("orientation", "transpose"),
    [
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
        (3, Image.Transpose.ROTATE_180),
    ],
)
def test_a_picture_that_its_exif_turns(page, library, tmp_path, orientation, transpose):
    path = turned(Path(shutil.copy(SCENE, tmp_path / "turned.jpg")), orientation, transpose)
    page.show(path)
    assert "480 \u00d7 360" in page.text("file-about")
    page.at("labels").send_keys(", ".join(LABELS))
    page.run()
    found = library["owlvit-demo"].detect(path, LABELS, threshold=0.1, **MERGED)
    assert found.size_hw == (360, 480)
    assert_drawn(page, found)
    best = dict(reversed(page.boxes()))["a yellow circle"]
    np.testing.assert_allclose(best, [58.2, 90.5, 151.4, 183.8], atol=12)  # where it was drawn


@needs_browser
def test_a_picture_that_the_browser_cannot_show(page, library, tmp_path):
    path = tmp_path / "scene.tiff"
    with Image.open(SCENE) as image:
        image.save(path)
    page.at("file").send_keys(str(path))
    page.until(lambda: page.shown("unseen"))
    page.at("labels").send_keys("a purple star,")
    page.run()
    assert_drawn(page, library["owlvit-demo"].detect(path, ["a purple star"], **MERGED))
    view = page.js("return document.getElementById('overlay').getAttribute('viewBox')")
    assert view == "0 0 480 360"


def assert_like(page, library, region):
    x, y, width, height = region
    owl = library["owlvit-demo"]
    box = [x, y, x + width, y + height]
    command = page.at("curl").get_property("textContent")  # made of what was sent
    assert json.dumps(box, separators=(",", ":")) in command
    example = owl.encode_examples([SCENE], names=["like the example"], boxes=[box])
    assert_drawn(page, owl.detect_like(SCENE, example, threshold=0.5))


@needs_browser
def test_an_example_chosen_with_keys(page, library):
    page.show(SCENE)
    page.by("example")
    overlay = page.at("overlay")
    assert overlay.aria_role == "application"
    assert page.region() == [-1] * 4
    page.js("arguments[0].focus()", overlay)
    overlay.send_keys(Keys.ARROW_LEFT)
    assert page.region() == [160, 120, 160, 120]
    keys = Keys.ARROW_RIGHT * 12 + Keys.ARROW_DOWN * 16
    overlay.send_keys(keys, Keys.SHIFT, Keys.ARROW_RIGHT * 2 + Keys.ARROW_DOWN * 15, Keys.NULL)
    region = page.region()
    assert region == [208, 184, 168, 176]  # 4 pixels a step, no further than the edge
    page.until(
        lambda: "left 208, top 184, 168 wide" in page.at("announce").get_property("textContent")
    )
    page.run()
    assert_like(page, library, region)
    overlay.send_keys(Keys.DELETE)
    assert page.region() == [-1] * 4
    assert page.boxes() == []
    assert not page.shown("results")


@needs_browser
@pytest.mark.parametrize("kind", ["mouse", "touch", "pen"])
def test_an_example_drawn_with_a_pointer(page, library, kind):
    page.show(SCENE)
    page.by("example")
    frame = page.js("return document.getElementById('overlay').getBoundingClientRect()")
    scale = frame["width"] / 480

    def drag(start, end):
        actions = ActionBuilder(page.browser, mouse=PointerInput(kind, kind))
        pointer = actions.pointer_action
        for at, act in ((start, pointer.pointer_down), (end, pointer.pointer_up)):
            pointer.move_to_location(
                *(round(frame[s] + v * scale) for s, v in zip("xy", at, strict=True))
            )
            act()
        actions.perform()

    drag((345, 120), (408, 206))
    np.testing.assert_allclose(page.region(), [345, 120, 63, 86], atol=1.5)
    drag((376, 163), (377, 164))  # moves it
    np.testing.assert_allclose(page.region(), [346, 121, 63, 86], atol=2.5)
    drag((409, 207), (414, 211))  # takes a corner
    region = page.region()
    np.testing.assert_allclose(region, [346, 121, 68, 90], atol=3.5)
    page.run()
    assert_like(page, library, region)


@needs_browser
def test_an_example_typed_in_numbers(page, library):
    page.show(SCENE)
    page.by("example")
    page.js("arguments[0].focus()", page.at("overlay"))
    page.at("overlay").send_keys(Keys.ARROW_UP)
    for side, value in {"y": 120, "x": 345, "w": 66, "h": 9999}.items():
        page.at(f"region-{side}").clear()
        page.at(f"region-{side}").send_keys(str(value) + Keys.TAB)
    assert page.region() == [345, 120, 66, 240]  # cut at the edge
    page.at("region-h").clear()
    page.at("region-h").send_keys("88" + Keys.TAB)
    page.run()
    assert_like(page, library, [345, 120, 66, 88])


@needs_browser
def test_a_question_is_answered_as_the_library_answers_it(page, library):
    page.show(SCENE)
    page.tab("ask")
    question = "what colour is the heart?"
    page.at("question").send_keys(question + Keys.ENTER)
    page.until(lambda: page.shown("results"))
    answers = library["vilt-demo"].ask(SCENE, question)
    wanted = zip(answers.answers, answers.scores.tolist(), strict=True)
    assert page.rows() == [(answer, f"{score * 100:.1f} %") for answer, score in wanted]
    assert page.text("summary").startswith("pink")


@needs_browser
@pytest.mark.parametrize("template", ["", "a picture of {}"])
def test_labels_are_scored_as_the_library_scores_them(page, library, template):
    page.show(SHAPE)
    page.tab("classify")
    page.at("labels").send_keys("a red star, a green heart, a green ring, a green heart,")
    if template:
        page.all("details summary")[0].click()
        page.at("template").send_keys(template)
    page.run()
    labels = ["a red star", "a green heart", "a green ring"]
    templates = [template] if template else None
    found = library["clip-demo"].classify(SHAPE, labels, templates=templates)
    assert page.rows() == [(label, f"{score * 100:.1f} %") for label, score in found.top()]
    stages = page.text("timing-parts").split()
    assert {"waiting", "preparing", "running", "finishing", "ms"} <= set(stages)
    assert re.fullmatch(r"\d+(\.\d)? ms", page.text("total"))


CANNED = """
const canned = {
  models: {data: ["one", "two"].map((id) => ({id, methods: ["match"], precision: "fp32"}))},
  match: {results: [{texts: [{text: "a dog", logit: 3.25}, {text: "a cat", logit: -1.5}]}]},
};
window.sent = [];
window.fetch = async (url, {body}) => {
  if (body) window.sent.push(["model", "texts"].map((name) => body.get(name)));
  return new Response(JSON.stringify(canned[url.split("/").pop()]));
};
"""


@needs_browser
def test_texts_are_matched_by_the_model_that_was_chosen(page):
    script = page.cdp("Page.addScriptToEvaluateOnNewDocument", source=CANNED)
    try:
        page.open()
    finally:
        page.cdp("Page.removeScriptToEvaluateOnNewDocument", **script)
    assert [tab.text for tab in page.all("[role=tab]")] == ["Match"]
    page.show(SCENE)
    page.at("texts").send_keys("a cat\n\n  a dog ")
    page.at("model").send_keys("two")
    page.run()
    assert page.js("return window.sent") == [["two", '["a cat","a dog"]']]
    assert page.rows() == [("a dog", "3.25"), ("a cat", "-1.50")]


@needs_browser
def test_tabs_are_those_that_are_served_and_arrows_go_through_them(page, serve):
    assert [tab.text for tab in page.all("[role=tab]")] == ["Find", "Classify", "Ask"]
    first = page.at("tab-detect")
    first.send_keys(Keys.ARROW_LEFT)
    assert page.browser.switch_to.active_element.text == "Ask"
    assert page.shown("question")
    assert not page.shown("labels")
    page.browser.switch_to.active_element.send_keys(Keys.HOME)
    assert first.get_attribute("aria-selected") == "true"
    assert [tab.get_attribute("tabindex") for tab in page.all("[role=tab]")] == ["0", "-1", "-1"]
    alone = serve(models=[{"name": "v", "source": str(ROOT / "bundles" / "vilt")}])
    page.url = alone.url
    page.network()
    page.open()
    assert [tab.text for tab in page.all("[role=tab]")] == ["Ask"]


@needs_browser
def test_a_row_and_its_box_light_up_together(page):
    page.show(SCENE)
    page.at("labels").send_keys(", ".join(LABELS))
    page.run()

    def lit(selector):
        return page.js(
            """return [...document.querySelectorAll(arguments[0])]
                .map((one) => one.classList.contains("lit"))""",
            selector,
        )

    webdriver.ActionChains(page.browser).move_to_element(page.at("served")).perform()
    page.js("arguments[0].focus()", page.all("#found .row")[1])
    assert lit("#found tbody tr").index(True) == 1
    assert page.all(".object.lit")[0].get_attribute("data-number") == "1"
    page.all(".object[data-number='2'] text")[0].click()
    assert lit("#found tbody tr").index(True) == 2
    assert page.browser.switch_to.active_element == page.all("#found .row")[2]


@needs_browser
def test_a_long_table_is_unfolded_and_labels_are_taken_back(page):
    page.show(SCENE)
    page.at("labels").send_keys(", ".join([*LABELS, "a red ring"]) + ",")
    page.at("labels").send_keys(Keys.BACKSPACE)
    page.all("[aria-label='Remove a purple diamond']")[0].click()
    assert [chip.text for chip in page.all(".chip .name")] == LABELS[1:]
    page.run()
    page.js(
        """const slider = arguments[0]; slider.value = 0.01;
        slider.dispatchEvent(new Event("input", {bubbles: true}))""",
        page.at("threshold"),
    )
    page.until(lambda: len(page.boxes()) > 8)
    rows = page.all("#found tbody tr")
    assert [row.is_displayed() for row in rows].count(True) == 8
    page.all("#found .rest")[0].click()
    assert all(row.is_displayed() for row in rows)
    assert page.browser.switch_to.active_element == rows[8].find_element("class name", "row")


@needs_browser
@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page, way):
    page.js(
        """const [way, data] = arguments;
        const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
        const given = new DataTransfer();
        given.items.add(new File([bytes], "given.jpg", {type: "image/jpeg"}));
        const passing = {bubbles: true, cancelable: true};
        document.body.dispatchEvent(way === "drop"
          ? new DragEvent("drop", {dataTransfer: given, ...passing})
          : new ClipboardEvent("paste", {clipboardData: given, ...passing}));""",
        way,
        base64.b64encode(SCENE.read_bytes()).decode(),
    )
    page.until(lambda: page.shown("stage"))
    assert "given.jpg, 480 \u00d7 360" in page.text("file-about")


@needs_browser
def test_a_picture_from_the_camera(page):
    page.all("[data-open=camera]")[0].click()
    page.until(lambda: page.shown("camera-take"))
    page.at("camera-take").click()
    page.until(lambda: page.shown("stage"))
    assert page.text("file-about").startswith("camera.jpg")
    assert not page.shown("camera")
    page.until(lambda: page.js("return document.getElementById('video').srcObject") is None)
    page.at("labels").send_keys("a red star,")
    page.run()


@needs_browser
def test_the_command_does_the_same(page, tmp_path):
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    path = tmp_path / 'it\'s; a "scene",1.jpg'
    shutil.copy(SCENE, path)
    page.show(path)
    page.at("labels").send_keys("a pink heart, it's @ a 'star';type=x, <none>,")
    page.run()
    command = page.at("curl").get_property("textContent")
    done = subprocess.run(
        ["/bin/sh", "-c", f"{command} -s"], cwd=tmp_path, capture_output=True, check=True
    )
    found = json.loads(done.stdout)["results"][0]["detections"]
    assert [one["label"] for one in found] == [label for label, _ in page.boxes()]
    assert len(found) >= 1


# What goes wrong


@needs_browser
def test_what_is_missing_is_asked_for(page):
    page.at("run").click()
    assert page.text("alert") == "Choose a picture first."
    page.show(SCENE)
    assert not page.shown("alert")
    page.at("run").click()
    assert page.text("alert") == "Type a label first."
    assert page.browser.switch_to.active_element == page.at("labels")
    page.by("example")
    page.at("run").click()
    assert page.text("alert") == "Draw a box around one object first."
    assert page.browser.switch_to.active_element == page.at("overlay")
    assert page.at("alert").aria_role == "alert"


@needs_browser
def test_the_servers_own_words_about_what_is_wrong(page, client, tmp_path):
    path = tmp_path / "words.jpg"
    path.write_bytes(b"this is not a picture")
    page.at("file").send_keys(str(path))
    page.until(lambda: page.shown("unseen"))
    page.at("labels").send_keys("a red star,")
    page.expected.append("422")
    page.at("run").click()
    page.until(lambda: page.shown("alert"))
    problem = client.post(
        "/v1/detect", files={"image": path.read_bytes()}, data={"labels": '["a red star"]'}
    ).json()
    assert problem["detail"] in page.text("alert")
    assert not page.shown("results")
    assert page.text("run") == "Find"


@needs_browser
def test_a_key_is_asked_for_and_kept_by_the_tab_alone(page, serve):
    page.expected.append("401")
    page.url = serve(api_keys=[KEY]).url
    page.network()
    page.open()
    assert page.shown("key")

    def give(key):
        page.at("key-value").send_keys(key + Keys.ENTER)

    give("another-key-of-some-length")
    page.until(lambda: "did not accept" in page.text("key-note"))
    give(KEY)
    page.until(lambda: page.shown("form") and not page.shown("key"))
    assert not page.shown("alert")
    page.open()  # the tab still has it
    page.until(lambda: page.shown("form"))
    page.show(SHAPE)
    page.tab("classify")
    page.at("labels").send_keys("a red star, a green heart,")
    page.run()
    assert page.text("summary").startswith("a green heart")
    command = page.at("curl").get_property("textContent")
    assert "$VLRT_API_KEY" in command
    assert KEY not in command
    assert page.js("return [localStorage.length, document.cookie, sessionStorage.length]") == [
        0,
        "",
        1,
    ]


@needs_browser
def test_a_busy_server_is_asked_again_once_the_reader_wants_it(page, server, monkeypatch):
    run_all, refused = server.context.jobs.run_all, []

    async def busy(model, works):
        if refused:
            return await run_all(model, works)
        refused.append(model)
        raise OverloadError("owlvit-demo is full; retry", 1.0)

    monkeypatch.setattr(server.context.jobs, "run_all", busy)
    page.expected.append("503")
    page.show(SCENE)
    page.at("labels").send_keys("a purple star,")
    page.at("run").click()
    page.until(lambda: page.shown("alert"))
    assert page.text("alert").startswith("The server is busy. Try again in 1 second.")
    assert "owlvit-demo is full" in page.text("alert")
    assert len(refused) == 1
    page.all("#alert button")[0].click()
    page.until(lambda: page.shown("results"))
    assert not page.shown("alert")
    assert len(page.boxes()) >= 1


@needs_browser
def test_a_request_is_stopped(page, server, monkeypatch):
    run_all, reached, left = server.context.jobs.run_all, threading.Event(), threading.Event()

    async def endless(model, works):
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    page.show(SCENE)
    page.at("labels").send_keys("a purple star,")
    page.run()  # so that the labels, which requests share, are there
    monkeypatch.setattr(server.context.jobs, "run_all", endless)
    page.at("run").click()
    assert reached.wait(30)
    assert page.text("run") == "Stop"
    page.at("run").click()
    page.until(lambda: page.text("run") == "Find")
    assert left.wait(30)  # the server has stopped, too
    assert not page.shown("alert")
    assert not page.shown("progress")
    monkeypatch.setattr(server.context.jobs, "run_all", run_all)
    page.run()
    assert len(page.boxes()) >= 1


@needs_browser
def test_a_server_that_has_gone(page, serve):
    gone = serve()
    page.expected.append("Failed to load resource")
    page.url = gone.url
    page.network()
    page.open()
    page.show(SCENE)
    page.cdp("Network.enable")
    page.cdp(
        "Network.emulateNetworkConditions",
        offline=True,
        latency=0,
        downloadThroughput=-1,
        uploadThroughput=-1,
    )
    try:
        page.at("labels").send_keys("a purple star,")
        page.at("run").click()
        page.until(lambda: page.shown("alert"))
    finally:
        page.cdp(
            "Network.emulateNetworkConditions",
            offline=False,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )
    assert "cannot be reached" in page.text("alert")


# For everyone


def every_state(page):
    """Go through the page: empty, each task with its result, an error. Yields the state's name."""
    yield "empty"
    page.show(SCENE)
    page.at("labels").send_keys(", ".join([*LABELS, "a label that is very very very long"]))
    page.run()
    for summary in page.all("details summary"):
        if summary.is_displayed():
            page.js("arguments[0].click()", summary)
    yield "find"
    page.by("example")
    page.js("arguments[0].focus()", page.at("overlay"))
    page.at("overlay").send_keys(Keys.ARROW_UP)
    page.run()
    yield "example"
    page.tab("classify")
    page.run()
    yield "classify"
    page.tab("ask")
    page.at("question").send_keys("what colour is the heart?")
    page.run()
    yield "ask"
    page.at("question").clear()
    page.at("run").click()
    assert page.shown("alert")
    yield "error"


@needs_browser
def test_a_phone_shows_all_of_it_without_scrolling_sideways(page):
    page.cdp("Emulation.setDeviceMetricsOverride", **PHONE)
    page.cdp("Emulation.setTouchEmulationEnabled", enabled=True)
    page.open()
    assert page.js("return matchMedia('(pointer: coarse)').matches")
    for state in every_state(page):
        widths = page.js("return [document.documentElement.scrollWidth, innerWidth]")
        assert widths == [360, 360], state
        small = page.js(
            """const seen = (one) => one.checkVisibility() && one.tabIndex >= 0;
            const target = (one) => one.closest("label") ?? one;
            return [...document.querySelectorAll("button, select, summary, input:not(.hidden)")]
              .filter(seen).map((one) => [one.outerHTML, target(one).getBoundingClientRect()])
              .filter(([, box]) => box.height < 43.9 || box.width < 43.9).map(([html]) => html)"""
        )
        assert small == [], state


@needs_browser
def test_every_control_has_a_name(page):
    roles = {
        "button", "textbox", "slider", "checkbox", "radio", "tab", "combobox", "spinbutton", "link",
        "tablist", "tabpanel", "image", "radiogroup", "application", "table", "dialog", "region",
        "searchbox", "DisclosureTriangle", "group",
    }  # fmt: skip
    for state in every_state(page):
        nodes = [
            node for node in page.cdp("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]
        ]
        found = {node["role"]["value"] for node in nodes}
        assert {"button", "tab", "tablist", "tabpanel", "heading"} <= found, state
        named = {
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if node["role"]["value"] in roles
        }
        assert [role for role, name in named if not name.strip() and role != "group"] == [], state


@needs_browser
def test_every_control_is_reached_with_tab(page):
    mark = "return [...document.querySelectorAll('button, input, select, textarea, summary, pre')]"
    for state in every_state(page):
        wanted = page.js(
            mark
            + """.filter((one) => one.checkVisibility() && one.tabIndex >= 0)
            .filter((one) => one.type !== "radio" || one.checked)
            .map((one) => { one.dataset.wanted = "1"; return one.outerHTML; })"""
        )
        page.js("document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0)")
        page.js("document.querySelector('.skip').focus()")
        reached = []
        for _ in range(len(wanted) + 12):
            page.browser.switch_to.active_element.send_keys(Keys.TAB)
            one, ring = page.js(
                """const one = document.activeElement;
                const ringed = one.matches("#labels, .switch input") ? one.parentNode : one;
                return [one.dataset.wanted ? one.outerHTML : null,
                        getComputedStyle(ringed).outlineStyle]"""
            )
            if one:
                reached.append(one)
                assert ring == "solid" or "radio" in one, one  # where the focus is, is seen
        assert [one for one in wanted if one not in reached] == [], state


PASTE = """const given = new DataTransfer();
given.setData("text/plain", arguments[0].join("\\n"));
document.getElementById("labels").dispatchEvent(new ClipboardEvent(
    "paste", {clipboardData: given, bubbles: true, cancelable: true}));"""


@needs_browser
def test_a_thousand_labels_leave_the_button_in_reach(page):
    page.js(PASTE, [f"thing {number}" for number in range(1000)])
    assert len(page.all(".chip")) == 1000
    box, typing, button = (
        page.js("return arguments[0].getBoundingClientRect().toJSON()", page.at(name))
        for name in ("labels-box", "labels", "run")
    )
    assert button["bottom"] <= page.js("return innerHeight")
    assert box["top"] <= typing["top"] <= typing["bottom"] <= box["bottom"]


@needs_browser
def test_labels_of_either_direction_keep_their_marks_at_their_end(page):
    labels = ["\u05d7\u05ea\u05d5\u05dc!", "a red circle!"]
    page.show(SHAPE)
    page.tab("classify")
    page.js(PASTE, labels)
    page.run()
    found = page.js(
        """return ["#labels-list .name", "#found li bdi", "#summary bdi"].map((selector) =>
            [...document.querySelectorAll(selector)].map((one) => {
                const text = one.firstChild, left = (from, to) => {
                    const range = document.createRange();
                    range.setStart(text, from);
                    range.setEnd(text, to);
                    return range.getBoundingClientRect().left;
                };
                const last = text.data.length - 1;
                return [text.data, left(last, last + 1) < left(0, 1)];
            }))"""
    )
    for shown in found:
        assert shown
        assert all(leftwards == (label == labels[0]) for label, leftwards in shown)
    assert {label for label, _ in found[0]} == {label for label, _ in found[1]} == set(labels)
    for tab, name in (("ask", "question"), ("classify", "labels")):
        page.tab(tab)
        page.at(name).send_keys(labels[0])
        assert page.js("return getComputedStyle(arguments[0]).direction", page.at(name)) == "rtl"
