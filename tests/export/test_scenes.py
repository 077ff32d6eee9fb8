"""The scene generator: exact boxes, bounded overlap, held-out pairs, true captions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlrt_export.demo.backgrounds import BACKGROUNDS, paint_background, plan_background
from vlrt_export.demo.batches import Recipe, make_batch
from vlrt_export.demo.captions import (
    Caption,
    Phrase,
    alter,
    describe,
    is_true,
    label,
    open_to_held_out,
    truth_table,
    word_caption,
)
from vlrt_export.demo.evaluate import pair_accuracy
from vlrt_export.demo.scenes import (
    ALL_PAIRS,
    COLOURS,
    HELD_OUT_PAIRS,
    MIN_VISIBLE,
    OTHER_COLOUR,
    SEEN_PAIRS,
    SIZES,
    Object,
    Scene,
    draw_plan,
    draw_scene,
    plan_scene,
    recolour,
    visible_fractions,
)
from vlrt_export.demo.shapes import SHAPES, outline

SEEDS = st.integers(0, 2**32 - 1)
PICTURE_SIZES = st.tuples(st.integers(64, 200), st.integers(64, 200))


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(scene.image).astype(int)


def drawn_alone(scene: Scene, at: int) -> np.ndarray:
    """Where one object of a scene would show without the others: bool [height, width]."""
    plan = replace(scene.plan, sprites=scene.plan.sprites[at : at + 1])
    alone = draw_plan(plan, scene.image.size)
    empty = np.asarray(paint_background(plan.background, scene.image.size)).astype(int)
    return np.abs(pixels(alone) - empty).max(axis=2) > 0


def test_pairs_are_split_along_a_diagonal() -> None:
    assert len(SHAPES) == len(COLOURS) == len(HELD_OUT_PAIRS) == 8
    assert {colour for colour, _ in HELD_OUT_PAIRS} == set(COLOURS)
    assert {shape for _, shape in HELD_OUT_PAIRS} == set(SHAPES)
    assert len(SEEN_PAIRS) == 56
    assert set(SEEN_PAIRS) | set(HELD_OUT_PAIRS) == set(ALL_PAIRS)


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_fill_the_unit_box(shape: str) -> None:
    points = outline(shape)
    assert np.ptp(points, axis=0).max() == pytest.approx(1)
    assert points.min(axis=0) == pytest.approx(-points.max(axis=0))


def test_unknown_names_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="circle"):
        outline("blob")
    with pytest.raises(ValueError, match="stripes"):
        plan_background(rng, "tartan")
    with pytest.raises(ValueError, match="n_objects"):
        draw_scene(rng, n_objects=6)
    with pytest.raises(ValueError, match="empty"):
        draw_scene(rng, pairs=[])
    with pytest.raises(ValueError, match="aspect"):
        draw_plan(plan_scene(rng), (200, 100))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_seed_gives_one_scene(seed: int) -> None:
    first, second = (
        draw_scene(np.random.default_rng(seed), size_wh=(96, 64), n_objects=(1, 5))
        for _ in range(2)
    )
    assert first.plan == second.plan
    assert first.objects == second.objects
    assert np.array_equal(pixels(first), pixels(second))


@settings(max_examples=25, deadline=None)
@given(SEEDS, PICTURE_SIZES)
def test_boxes_are_tight_and_inside(seed: int, size_wh: tuple[int, int]) -> None:
    scene = draw_scene(np.random.default_rng(seed), size_wh=size_wh, n_objects=(1, 5))
    assert scene.image.size == size_wh
    for at, thing in enumerate(scene.objects):
        x0, y0, x1, y1 = thing.box
        assert 0 <= x0 < x1 <= size_wh[0]
        assert 0 <= y0 < y1 <= size_wh[1]
        rows, columns = np.nonzero(drawn_alone(scene, at))
        shown = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        # The tip of a star covers too little of its last pixel to show there.
        assert np.abs(np.array(shown) - thing.box).max() < 1.6


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 5))
def test_objects_are_counted_and_mostly_visible(seed: int, count: int) -> None:
    scene = draw_scene(np.random.default_rng(seed), size_wh=(160, 120), n_objects=count)
    assert len(scene.objects) == count
    masks = [drawn_alone(scene, at) for at in range(count)]
    assert min(visible_fractions(masks)) >= MIN_VISIBLE


def test_every_count_kind_size_and_pair_occurs() -> None:
    rng = np.random.default_rng(0)
    plans = [plan_scene(rng, n_objects=(1, 5)) for _ in range(250)]
    sprites = [sprite for plan in plans for sprite in plan.sprites]
    assert {len(plan.sprites) for plan in plans} == {1, 2, 3, 4, 5}
    assert {plan.background.kind for plan in plans} == set(BACKGROUNDS)
    assert {sprite.size for sprite in sprites} == set(SIZES)
    assert {(sprite.colour, sprite.shape) for sprite in sprites} == set(ALL_PAIRS)


def test_later_objects_lie_over_earlier_ones() -> None:
    masks = [np.array([[True, True, False]]), np.array([[False, True, True]])]
    assert visible_fractions(masks) == [0.5, 1.0]
    assert visible_fractions([]) == []


def test_one_plan_is_drawn_alike_at_every_size() -> None:
    plan = plan_scene(np.random.default_rng(3), size_wh=(3, 2), n_objects=3)
    small, big = draw_plan(plan, (96, 64)), draw_plan(plan, (480, 320))
    for one, other in zip(small.objects, big.objects, strict=True):
        assert np.array(one.box) * 5 == pytest.approx(np.array(other.box))
    shrunk = np.asarray(big.image.reduce(5)).astype(int)
    assert np.abs(shrunk - pixels(small)).mean() < 4


def test_sizes_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    longest: dict[str, list[float]] = {}
    for size in SIZES:
        scenes = [
            draw_scene(rng, size_wh=(100, 150), sizes=[size], pairs=[("red", shape)])
            for shape in ("circle", "ring")
            for _ in range(20)
        ]
        boxes = [np.array(scene.objects[0].box) for scene in scenes]
        longest[size] = [float((box[2:] - box[:2]).max()) for box in boxes]
    assert max(longest["small"]) < min(longest["medium"])
    assert max(longest["medium"]) < min(longest["large"])
    for size, share in SIZES.items():
        assert np.mean(longest[size]) == pytest.approx(100 * share, rel=0.05)


@pytest.mark.parametrize("pair", ALL_PAIRS, ids=label)
def test_every_pair_stands_out_from_every_background(pair: tuple[str, str]) -> None:
    for at, kind in enumerate(BACKGROUNDS):
        rng = np.random.default_rng((at, ALL_PAIRS.index(pair)))
        scene = draw_scene(rng, size_wh=(64, 64), pairs=[pair], backgrounds=[kind])
        behind = np.asarray(paint_background(scene.plan.background, (64, 64))).astype(int)
        inside = drawn_alone(scene, 0)
        colour = np.array(scene.plan.sprites[0].rgb)
        distance = np.linalg.norm(behind[inside] - colour, axis=-1)
        assert distance.min() > 60


def test_held_out_pairs_never_reach_training() -> None:
    held_out = {f"{colour} {shape}" for colour, shape in HELD_OUT_PAIRS}
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = draw_scene(rng, size_wh=(64, 64), n_objects=(1, 5), pairs=SEEN_PAIRS)
        assert not {thing.label for thing in scene.objects} & held_out
        phrases = describe(rng, scene.objects[:3], (0.3, 0.9, 0.9))
        texts = [word_caption(rng, p).text for p in (phrases, alter(rng, phrases))]
        assert not any(pair in text for pair in held_out for text in texts)
    recipe = Recipe(seed=0, steps=10, pictures=40)
    texts = make_batch(recipe, 9).texts
    assert not any(pair in text for pair in held_out for text in texts)


RED_CIRCLE = Object("circle", "red", "small", (0, 0, 1, 1))
BLUE_STAR = Object("star", "blue", "large", (0, 0, 1, 1))
RED_STAR = Object("star", "red", "large", (0, 0, 1, 1))


@pytest.mark.parametrize(
    ("phrases", "objects", "expected"),
    [
        ([], [], True),
        ([], [RED_CIRCLE], True),
        ([Phrase()], [], False),
        ([Phrase(colour="red")], [RED_CIRCLE], True),
        ([Phrase(colour="blue")], [RED_CIRCLE], False),
        ([Phrase(shape="circle")], [BLUE_STAR, RED_CIRCLE], True),
        ([Phrase("large", "red", "circle")], [RED_CIRCLE], False),
        # Attributes of two objects do not make a third.
        ([Phrase(None, "blue", "circle")], [RED_CIRCLE, BLUE_STAR], False),
        # Two phrases need two objects.
        ([Phrase(colour="red"), Phrase(shape="circle")], [RED_CIRCLE], False),
        ([Phrase(colour="red"), Phrase(shape="circle")], [RED_CIRCLE, BLUE_STAR], False),
        ([Phrase(colour="red"), Phrase(shape="circle")], [RED_CIRCLE, RED_STAR], True),
        ([Phrase(colour="red"), Phrase(shape="star")], [RED_STAR, RED_CIRCLE], True),
        ([Phrase(shape="star")] * 2, [RED_STAR, BLUE_STAR], True),
        ([Phrase(shape="star")] * 3, [RED_STAR, BLUE_STAR, RED_CIRCLE], False),
    ],
)
def test_is_true(phrases: list[Phrase], objects: list[Object], expected: bool) -> None:
    assert is_true(phrases, objects) is expected


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_captions_are_true_of_their_scene_and_tables_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [draw_scene(rng, size_wh=(64, 64), n_objects=(1, 4)) for _ in range(6)]
    captions = [word_caption(rng, describe(rng, s.objects[:3], (0.2, 0.6, 0.6))) for s in scenes]
    table = truth_table([*captions, Caption((), "")], scenes)
    assert table.diagonal().all()
    for row, scene in enumerate(scenes):
        assert table[row].tolist() == [*(is_true(c.phrases, scene.objects) for c in captions), True]


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_altered_captions_differ_in_one_attribute(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, size_wh=(64, 64), pairs=SEEN_PAIRS)
    phrases = describe(rng, scene.objects, (0.5, 0.8, 0.8))
    assert is_true(phrases, scene.objects)
    assert not is_true(alter(rng, phrases), scene.objects)


def test_a_held_out_pair_is_no_evidence_against_its_attributes() -> None:
    colour, shape = HELD_OUT_PAIRS[0]
    other_colour, other_shape = HELD_OUT_PAIRS[1]
    rng = np.random.default_rng(0)
    scenes = [
        draw_scene(rng, size_wh=(64, 64), pairs=[pair])
        for pair in ((colour, other_shape), (other_colour, shape))
    ]
    phrases = [
        Phrase(shape=shape),
        Phrase(colour=colour),
        Phrase(colour=other_colour),
        Phrase(None, other_colour, other_shape),
    ]
    captions = [Caption((phrase,), "") for phrase in phrases]
    assert open_to_held_out(captions, scenes).tolist() == [
        [True, False, True, True],
        [False, True, False, True],
    ]


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_recoloured_objects_resemble_no_named_colour(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plan = plan_scene(rng, n_objects=2)
    changed = recolour(rng, plan)
    for old, new in zip(plan.sprites, changed.sprites, strict=True):
        assert replace(new, colour=old.colour, rgb=old.rgb) == old
        assert new.colour == OTHER_COLOUR
        distances = [np.linalg.norm(np.subtract(new.rgb, rgb)) for rgb in COLOURS.values()]
        assert min(distances) > 60


def test_wording() -> None:
    assert label(("red", "circle")) == "a red circle"
    assert label(("orange", "star")) == "an orange star"
    rng = np.random.default_rng(0)
    phrases = [Phrase(None, "red", "circle")]
    texts = {word_caption(rng, phrases).text for _ in range(200)}
    assert {"a red circle", "a picture of a red circle"} <= texts


def test_batches_depend_on_seed_and_step_alone() -> None:
    recipe = Recipe(seed=0, steps=10, pictures=6)
    first, again, other = (make_batch(recipe, step) for step in (9, 9, 8))
    assert first.pixels.shape == (6, 64, 64, 3)
    assert np.array_equal(first.pixels, again.pixels)
    assert first.texts == again.texts
    assert not np.array_equal(first.pixels, other.pixels)
    assert first.own.shape == first.negative.shape == (6, len(first.texts))
    assert first.own.any(axis=1).all()
    assert first.negative.any(axis=1).all()
    assert not (first.own & first.negative).any()


def test_accuracy_of_encoders_that_see_no_shapes() -> None:
    """Encoders that know colours perfectly and guess no shape well."""
    rgb = {name: np.array(value, dtype=float) for name, value in COLOURS.items()}

    def nearest(colour: np.ndarray) -> np.ndarray:
        distances = [np.linalg.norm(colour - value) for value in rgb.values()]
        return np.eye(8)[int(np.argmin(distances))]

    def encode_images(images: list) -> np.ndarray:
        rows = []
        for image in images:
            array = np.asarray(image).reshape(-1, 3).astype(float)
            nearness = np.stack([np.linalg.norm(array - v, axis=1) for v in rgb.values()])
            rows.append(nearest(array[nearness.min(axis=0).argmin()]))
        return np.stack(rows)

    def encode_texts(texts: list[str]) -> np.ndarray:
        words = [set(text.split()) for text in texts]
        return np.array([[float(c in w) + 1e-6 for c in COLOURS] for w in words])

    table = pair_accuracy(encode_images, encode_texts, per_pair=1, size_wh=(64, 64))
    assert table["seen"]["colour"] > 0.95
    assert table["seen"]["pair"] < 0.4
    assert table["held_out"]["colour"] > 0.85
