"""Summaries, ratios with intervals, and verdicts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="intervals need the extra bench")

from vlrt.errors import BenchmarkError
from vlrt_benchmarks import stats
from vlrt_benchmarks.stats import Estimate

SECONDS = st.floats(1e-4, 10)
ROUNDS = st.lists(st.lists(SECONDS, min_size=1, max_size=4), min_size=3, max_size=5)
NO_NOISE = Estimate(1, 1, 1)


# --- summaries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [[], [[]], [[], []]])
def test_no_runs_have_no_summary(rounds):
    with pytest.raises(BenchmarkError, match="no runs"):
        stats.summary(rounds)


def test_a_summary_is_over_all_runs_of_all_rounds():
    found = stats.summary([[0.1, 0.2], [0.3]], items=4)
    assert found == pytest.approx(
        {"p50_ms": 200, "p90_ms": 280, "p99_ms": 298, "mean_ms": 200, "per_second": 20, "runs": 3}
    )


# --- ratios ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "paired", "message"),
    [
        ([], [], True, "0 and 0 rounds .* 3 or more, as many of each"),
        ([[1.0]] * 2, [[1.0]] * 2, True, "2 and 2"),
        ([[1.0]] * 3, [[1.0]] * 4, True, "3 and 4"),
        ([[1.0]] * 3, [[1.0]] * 2, False, "3 and 2 .* 3 or more$"),
    ],
)
def test_too_few_rounds_are_no_ratio(ours, theirs, paired, message):
    with pytest.raises(BenchmarkError, match=message):
        stats.times_as_fast(ours, theirs, paired=paired)


@settings(max_examples=20, deadline=None)
@given(ROUNDS)
def test_who_takes_half_of_the_time_is_twice_as_fast_in_every_round(rounds):
    halves = [[seconds / 2 for seconds in one] for one in rounds]
    found = stats.times_as_fast(halves, rounds)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))


@settings(max_examples=20, deadline=None)
@given(ROUNDS, ROUNDS)
def test_a_ratio_lies_in_its_interval_or_at_its_edge(ours, theirs):
    found = stats.times_as_fast(ours, theirs, paired=False)
    lowest = min(map(min, theirs)) / max(map(max, ours))
    highest = max(map(max, theirs)) / min(map(min, ours))
    assert found.low <= found.high
    assert lowest * 0.999 <= found.low
    assert found.high <= highest * 1.001
    assert found == stats.times_as_fast(ours, theirs, paired=False)  # from a fixed seed


def test_a_mood_that_both_share_cancels_only_in_pairs():
    moods = [1.0, 1.5, 2.0, 3.0, 5.0]
    ours, theirs = [[mood] * 3 for mood in moods], [[2 * mood] * 3 for mood in moods]
    paired, apart = (stats.times_as_fast(ours, theirs, paired=p) for p in (True, False))
    assert (paired.low, paired.high) == pytest.approx((2, 2))
    assert apart.low < 1.5
    assert apart.high > 2.5


# --- means ----------------------------------------------------------------------------------------


def test_means_of_nothing_and_of_other_items_are_refused():
    with pytest.raises(BenchmarkError, match="nothing"):
        stats.mean([])
    with pytest.raises(BenchmarkError, match="2 items and 1"):
        stats.mean_difference([1, 2], [1])


def test_one_item_says_nothing_about_the_next():
    assert stats.mean([1]) == Estimate(1, -math.inf, math.inf)


def test_the_interval_of_a_mean_is_as_wide_as_the_normal_one():
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = stats.mean(values)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.2)


def test_a_difference_is_taken_item_by_item():
    theirs = np.random.default_rng(0).normal(0, 100, 200)
    found = stats.mean_difference(theirs + 1, theirs)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30))
@settings(max_examples=20, deadline=None)
def test_clusters_of_one_item_are_items(values):
    assert stats.mean(values, [f"picture {i:02}" for i in range(len(values))]) == stats.mean(values)


def test_items_that_share_a_cluster_say_no_more_than_it():
    rng = np.random.default_rng(0)
    of_pictures = rng.normal(0, 1, 200)
    repeated, pictures = np.repeat(of_pictures, 9), np.repeat(np.arange(200), 9)
    once, alone = stats.mean(of_pictures), stats.mean(repeated)
    together = stats.mean(repeated, pictures)
    assert (together.low, together.high) == pytest.approx((once.low, once.high))
    assert together.value == pytest.approx(once.value)
    assert alone.high - alone.low < 0.5 * (once.high - once.low)
    change = stats.mean_difference(repeated + 1, np.zeros(len(repeated)), pictures)
    assert change.low == pytest.approx(1 + together.low)


def test_of_one_cluster_nothing_is_known_and_each_item_needs_one():
    assert stats.mean([0, 1], ["a", "a"]) == Estimate(0.5, -math.inf, math.inf)
    with pytest.raises(BenchmarkError, match="2 items have 1 clusters"):
        stats.mean([0, 1], ["a"])


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "noise", "word"),
    [
        ((1, 1, 1), NO_NOISE, "level"),
        ((2, 1.9, 2.1), NO_NOISE, "faster"),
        ((0.5, 0.4, 0.6), NO_NOISE, "slower"),
        ((1.05, 0.98, 1.12), NO_NOISE, "level"),
        ((1.3, 0.9, 1.8), NO_NOISE, "too noisy"),
        ((1.05, 1.03, 1.07), Estimate(1, 0.9, 1.1), "level"),  # it differs as much from itself
        ((1.05, 1.03, 1.07), Estimate(1.1, 0.7, 1.3), "too noisy"),
        ((1.18, 1.1, 1.3), Estimate(1, 0.95, 1.2), "too noisy"),  # it may be more than noise
        ((7, 5, 9), Estimate(1.1, 0.7, 1.3), "faster"),  # wide, and beyond all noise
    ],
)
def test_a_verdict_is_beyond_the_noise(ratio, noise, word):
    assert stats.verdict(Estimate(*ratio), noise) == word
