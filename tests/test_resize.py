"""The resize in bands and strips against Pillow's own resize and crop, bit for bit."""

import concurrent.futures
import gc
import os
import subprocess
import sys
import threading
import weakref
from unittest.mock import patch

import numpy as np
import PIL
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pictures import picture
from PIL import Image

from vlrt import resize

FILTERS = sorted(filter_.value for filter_ in Image.Resampling)


def resized(image, size_hw, resample, *, crop_hw=None, threads=1):
    """What `resize.resize` hands over, put together; every column is there once."""
    height, width = crop_hw or size_hw
    whole, seen = Image.new(image.mode, (width, height)), []

    def use(strip, left):
        assert strip.height == height
        seen.extend(range(left, left + strip.width))
        whole.paste(strip, (left, 0))

    resize.resize(image, size_hw, resample, use, crop_hw=crop_hw, threads=threads)
    assert sorted(seen) == list(range(width))
    return whole


def pillows(image, size_hw, resample, crop_hw):
    """What transformers does: the whole resize, then the centre."""
    height, width = size_hw
    crop_h, crop_w = crop_hw or size_hw
    whole = image.resize((width, height), Image.Resampling(resample))
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    return whole.crop((left, top, left + crop_w, top + crop_h))


def same(found, expected):
    return found.size == expected.size and np.array_equal(
        np.asarray(found)[..., :3], np.asarray(expected)
    )


def test_this_pillow_is_known():
    """A newer one is served, without bands, until someone has looked at its order of passes."""
    assert tuple(map(int, PIL.__version__.split(".")[:2])) <= resize.KNOWN_PILLOW


@pytest.mark.parametrize(
    ("version", "known"),
    [("10.3.0", True), ("13.0.0", True), ("13.0.9", True), ("13.1.0", False), ("14.0.0", False)],
)
def test_a_pillow_that_nobody_looked_at_resizes_on_its_own(monkeypatch, version, known):
    monkeypatch.setattr(PIL, "__version__", version)
    assert resize._rows_first((60, 45), (23, 17)) == known


sides = st.integers(1, 60)


@given(
    size_wh=st.tuples(sides, sides),
    size_hw=st.tuples(sides, sides),
    crop_hw=st.none() | st.tuples(sides, sides),
    resample=st.sampled_from(FILTERS),
    band=st.integers(0, 400),
    threads=st.sampled_from([1, 2, 3, 7]),
    seed=st.integers(0, 9),
)
@example((60, 45), (17, 23), (17, 17), 3, 0, 1, 0)  # what CLIP does of a landscape
@example((45, 60), (23, 17), (17, 17), 3, 0, 1, 0)  # and of a portrait
@example((60, 20), (32, 32), None, 3, 0, 3, 0)  # what OWL-ViT does
@example((20, 30), (32, 32), None, 3, 0, 3, 0)  # and of a picture that is smaller than its input
@example((60, 20), (9, 30), (40, 40), 3, 0, 3, 0)  # a crop that pads
@example((1, 60), (50, 1), (1, 1), 1, 0, 1, 0)
def test_any_resize_and_crop_is_pillows(size_wh, size_hw, crop_hw, resample, band, threads, seed):
    image = picture("RGB", size_wh, seed)
    with patch.object(resize, "_BAND", band), patch.object(resize, "_SHARED", 0):
        found = resized(image, size_hw, resample, crop_hw=crop_hw, threads=threads)
    assert same(found, pillows(image, size_hw, resample, crop_hw))


@given(
    st.integers(1, 3),
    st.integers(1, 400),
    st.integers(1, 5),
    st.integers(1, 400),
    st.sampled_from(FILTERS),
    st.sampled_from([1, 2]),
)
@example(1, 101, 1, 100, 3, 2)  # Pillow's order of passes changes about here, by its version
@example(2, 300, 1, 298, 3, 2)
@example(2, 300, 1, 297, 3, 2)
def test_elongated_pictures_are_resized_in_pillows_order(
    width, height, to_w, to_h, resample, threads
):
    image = picture("RGB", (width, height))
    with patch.object(resize, "_BAND", 0), patch.object(resize, "_SHARED", 0):
        found = resized(image, (to_h, to_w), resample, threads=threads)
    assert same(found, pillows(image, (to_h, to_w), resample, None))


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize(
    ("size_wh", "size_hw", "crop_hw"),
    [((1200, 900), (224, 298), (224, 224)), ((900, 1200), (298, 224), (224, 224)),
     ((1280, 720), (768, 768), None), ((1280, 720), (352, 608), None),
     ((640, 480), (224, 298), (224, 224)), ((640, 480), (768, 768), None),
     ((640, 480), (384, 512), None)],
)  # fmt: skip
def test_the_models_sizes(resample, size_wh, size_hw, crop_hw):
    image = picture("RGB", size_wh)
    expected = pillows(image, size_hw, resample, crop_hw)
    for threads in (1, 2):
        assert same(resized(image, size_hw, resample, crop_hw=crop_hw, threads=threads), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fourth_byte_changes_nothing(threads):
    image = picture("RGB", (60, 40))
    padded = image.convert("RGBX")
    with patch.object(resize, "_BAND", 0), patch.object(resize, "_SHARED", 0):
        found = resized(padded, (20, 30), 3, crop_hw=(40, 20), threads=threads)
    assert found.mode == "RGBX"
    assert same(found, pillows(image, (20, 30), 3, (40, 20)))


def test_what_the_crop_throws_away_is_left_out():
    passes = []
    resize_ = Image.Image.resize

    def spy(image, size, *arguments, **options):
        passes.append((image.size, size))
        return resize_(image, size, *arguments, **options)

    image = picture("RGB", (60, 400))
    with patch.object(resize, "_BAND", 0), patch.object(Image.Image, "resize", spy):
        resized(image, (380, 50), 3, crop_hw=(40, 30))
    *bands, strip = passes
    assert {before[0] for before, _ in bands} == {60}
    assert 42 <= sum(before[1] for before, _ in bands) < 60
    assert strip == ((30, 400), (30, 380))


@pytest.fixture
def small_pictures_are_shared(monkeypatch):
    """The threads of this test are its own."""
    monkeypatch.setattr(resize, "_SHARED", 0)
    resize._helpers.cache_clear()
    yield
    resize._helpers.cache_clear()


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.usefixtures("small_pictures_are_shared")
def test_threads_are_as_many_as_allowed_and_stay(threads):
    """Each waits for the others, so that none does the work of another."""
    barrier, names = threading.Barrier(threads), []

    def use(strip, left):
        assert (strip.width, left % strip.width) == (80 // threads, 0)
        barrier.wait(60)
        names.append(threading.current_thread().name)

    for _ in range(2):
        resize.resize(
            picture("RGB", (100, 40)), (20, 80), 3, use, crop_hw=(19, 80), threads=threads
        )
    assert sorted(names[:threads]) == sorted(names[threads:])
    assert names.count("MainThread") == 2
    assert len(set(names)) == threads


@pytest.mark.usefixtures("small_pictures_are_shared")
def test_nobody_waits_for_a_thread_that_is_busy_elsewhere():
    let_go, image = threading.Event(), picture("RGB", (60, 40))
    busy = resize._helpers(1, os.getpid()).submit(let_go.wait, 60)
    assert same(resized(image, (20, 30), 3, threads=2), pillows(image, (20, 30), 3, None))
    assert not busy.done()
    let_go.set()
    assert busy.result()


@pytest.mark.usefixtures("small_pictures_are_shared")
def test_a_fork_has_threads_of_its_own(monkeypatch):
    image = picture("RGB", (60, 40))
    resized(image, (20, 30), 3, threads=2)
    parents = resize._helpers(1, os.getpid())
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert same(resized(image, (20, 30), 3, threads=2), pillows(image, (20, 30), 3, None))
    assert resize._helpers(1, -1) is not parents


@pytest.mark.parametrize("threads", [1, 2])
def test_a_small_picture_is_no_work_for_threads(threads):
    image = picture("RGB", (320, 240))
    with patch.object(resize, "_helpers") as helpers:
        resized(image, (224, 298), 3, crop_hw=(224, 224), threads=threads)
    assert not helpers.called


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("failing", range(4))
@pytest.mark.usefixtures("small_pictures_are_shared")
def test_an_error_of_any_thread_is_raised_when_no_other_is_at_work(threads, failing):
    at_work = []

    def work(item):
        at_work.append(item)
        try:
            if item == failing:
                raise MemoryError("no room")
        finally:
            at_work.remove(item)

    with pytest.raises(MemoryError, match="no room"):
        resize._for_each(work, range(4), threads)
    assert not at_work


class Refusing:
    """An executor as it is where no thread can be started: some of what it refuses, it has kept.

    Attributes:
        accepted: how many calls it takes before it refuses.
        begins: whether a thread of it is at once at work on what it kept.
    """

    def __init__(self, accepted, *, begins):
        self.accepted, self.begins, self.kept = accepted, begins, []

    def submit(self, *call):
        self.kept.append(call)
        if self.begins:
            self.run_kept()
        if self.accepted == 0:
            raise RuntimeError("can't start new thread")
        self.accepted -= 1

    def run_kept(self):
        while self.kept:
            do, *arguments = self.kept.pop()
            do(*arguments)


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("accepted", range(4))
@pytest.mark.usefixtures("small_pictures_are_shared")
def test_what_threads_refuse_the_caller_does(monkeypatch, accepted, begins):
    """Every item once, even where a thread comes to what was refused or taken back."""
    pool, done = Refusing(accepted, begins=begins), []
    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", lambda *_, **__: pool)
    resize._for_each(done.append, range(4), 3)
    assert sorted(done) == list(range(4))
    pool.run_kept()
    assert len(done) == 4


@pytest.mark.usefixtures("small_pictures_are_shared")
def test_pictures_are_not_kept_where_no_thread_can_be_started(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    def work(item):
        done.append(item)

    done, kept = [], weakref.ref(work)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        resize._for_each(work, range(3), 2)
    assert sorted(done) == [0, 1, 2]
    del work
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("before", [False, True])
def test_a_thread_that_outlives_the_main_one_still_resizes(before):
    """The interpreter lets nobody start threads then, nor even import what would."""
    program = """
import sys, threading
from PIL import Image
from vlrt import resize

resize._SHARED = 0

def resized():
    strips = []
    image = Image.new("RGB", (60, 40), (9, 8, 7))
    resize.resize(image, (20, 30), 3, lambda *strip: strips.append(strip), threads=2)
    return sum(strip.width for strip, _ in strips)

def serve():
    main.join()
    print(resized())

main = threading.main_thread()
if sys.argv[1] == "True":
    resized()
threading.Thread(target=serve).start()
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(before)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "30\n", "")
