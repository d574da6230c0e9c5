"""Weights of animations: curves, transitions between pictures, inverted weights, prompt schedules."""

import itertools
import json
import math
import random

import pytest
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.nodes.compat.arithmetic.schedules import (
    METHODS,
    TIMINGS,
    combined,
    curve,
    mirrored,
    plan,
    prompt_schedule,
)

CURVES = {
    "linear": lambda x: x,
    "ease_in_out": lambda x: (1 - math.cos(math.pi * x)) / 2,
    "ease_in": lambda x: math.sin(math.pi * x / 2),
    "ease_out": lambda x: 1 - math.cos(math.pi * x / 2),
}


def strategy(weights="1, 0", timing="linear", frames=3, **more):
    return {"weights": weights, "timing": timing, "frames": frames, **more}


# --- curves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timing", CURVES)
def test_a_curve_leads_from_the_first_number_to_the_last(timing):
    made = curve(strategy("0.2, 7, .8", timing, 6))
    assert made == pytest.approx([0.2 + 0.6 * CURVES[timing](n / 5) for n in range(6)])
    assert made[-1] == 0.8


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (strategy("1, .5\n0.25,,\n0", "custom", 9), [1, 0.5, 0.25, 0]),
        (strategy("", "custom"), [0.0]),
        (strategy(" ", "linear", 3), [0, 0.5, 1]),
        (strategy(frames=0), [1, 0]),
        (strategy(frames=1), [1, 0]),
        (strategy(frames=6, start_frame=2, end_frame=4), [1, 1, 1, 0, 0, 0]),
    ],
)
def test_texts_and_bounds(given, expected):
    assert curve(given) == expected
    assert curve(given, exact=True) == expected


@pytest.mark.parametrize("timing", [t for t in TIMINGS if t != "custom"])
def test_whatever_the_bounds_there_are_as_many_weights_as_frames(timing):
    """Corrected by default: a change of one frame, or bounds beyond the end, made it crash or grow."""
    for frames, start, end in itertools.product((0, 1, 2, 5), (0, 1, 4, 5, 9), (0, 1, 3, 9999)):
        made = curve(strategy(timing=timing, frames=frames, start_frame=start, end_frame=end))
        assert len(made) == max(frames, 2), (frames, start, end)
        assert all(0 <= weight <= 1 for weight in made), (frames, start, end)


def test_bounds_beyond_the_end_in_exact_legacy_results():
    assert curve(strategy(frames=6, start_frame=8), exact=True) == [1] * 7 + [0]
    assert curve(strategy(frames=6, start_frame=8)) == [1] * 5 + [0]


def test_a_change_of_one_frame_is_its_end():
    """Corrected: the de-facto pack divided by 0."""
    assert curve(strategy(frames=6, start_frame=5)) == [1] * 5 + [0]
    assert curve(strategy(frames=6, end_frame=0)) == [0] * 6


def test_random_weights_follow_from_the_strategy():
    """Corrected by default: they came from Python's global generator, new each time."""
    before = random.getstate()
    made = curve(strategy("0.3, 0.6", "random", 50))
    assert random.getstate() == before
    assert made == curve(strategy("0.3, 0.6", "random", 50))
    assert len(set(made)) == 50
    assert min(made) >= 0.3
    assert max(made) <= 0.6
    random.seed(1)
    first = curve(strategy(timing="random"), exact=True)
    assert first != curve(strategy(timing="random"), exact=True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (strategy("1, a"), "'1.0, 0.5'"),
        (strategy(timing="bounce"), "ease_in_out"),
        (strategy(method="mix"), "shift batches"),
    ],
)
def test_mistakes_get_a_sentence(given, words):
    with pytest.raises(SettingError, match=words):
        plan(given, 2)


# --- pictures ----------------------------------------------------------------------------------------------------

W = [1.0, 0.5, 0.0]
V = W[::-1]


def each(*pictures):
    return [picture for picture in pictures for _ in W]


@pytest.mark.parametrize(
    ("method", "pictures", "weights", "first", "second"),
    [
        ("full batch", 1, W, each(0), None),
        ("full batch", 3, W * 3, each(0, 1, 2), None),
        ("shift batches", 2, W, each(0), each(1)),
        ("shift batches", 4, W * 3, each(0, 1, 2), each(1, 2, 3)),
        ("alternate batches", 2, W, each(0), each(1)),
        ("alternate batches", 3, W + V, each(0, 2), each(1, 1)),
        ("alternate batches", 4, W + V + W, each(0, 2, 2), each(1, 1, 3)),
        ("alternate batches", 5, W + V + W + V, each(0, 2, 2, 4), each(1, 1, 3, 3)),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_how_pictures_follow_each_other(method, pictures, weights, first, second, exact):
    made = plan(strategy(method=method), pictures, exact)
    assert (made.weights, made.first, made.second) == (weights, first, second)


def test_without_pictures_there_are_weights_alone():
    made = plan(strategy(add_starting_frames=2, add_ending_frames=1))
    assert (made.weights, made.first, made.second) == (W, None, None)


@pytest.mark.parametrize("method", METHODS[1:])
def test_one_picture_fades_to_itself(method):
    """Corrected by default: there was no step between pictures, so the lists were empty and the next node crashed."""
    made = plan(strategy(method=method), 1)
    assert (made.weights, made.first, made.second) == (W, each(0), each(0))
    assert plan(strategy(method=method), 1, exact=True).weights == []


def test_ends_are_held():
    made = plan(strategy(method="alternate batches", add_starting_frames=2, add_ending_frames=1), 3)
    assert made.weights == [1, 1, *W, *V, 1]
    assert made.first == [0, 0, *each(0, 2), 2]
    assert made.second == [0, 0, *each(1, 1), 2]


# --- inverted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "pictures"),
    [
        (strategy(), 0),
        (strategy(timing="ease_in_out", frames=7), 3),
        (strategy(method="shift batches"), 4),
        (strategy(method="alternate batches"), 4),
    ],
)
def test_the_mirror_is_the_list_backwards_where_that_was_right(given, pictures):
    made = plan(given, pictures)
    assert made.inverted == pytest.approx(made.weights[::-1], abs=1e-12)
    assert plan(given, pictures, exact=True).inverted == made.weights[::-1]


@pytest.mark.parametrize("timing", TIMINGS)
def test_the_mirror_is_the_complement_frame_by_frame(timing):
    """Corrected by default: the list was given backwards, so odd cross-fades did not fade, and ends shifted it."""
    for method, pictures in itertools.product(METHODS, [2, 3, 5]):
        given = strategy("1, .3, 0", timing, 4, method=method, add_starting_frames=3, add_ending_frames=1)
        made = plan(given, pictures)
        top = max(made.weights) + min(made.weights)
        sums = [a + b for a, b in zip(made.weights, made.inverted, strict=True)]
        assert sums == pytest.approx([top] * len(made.weights)), (method, pictures)


def test_an_odd_cross_fade_does_not_fade_in_exact_legacy_results():
    given = strategy(method="alternate batches")
    exact = plan(given, 3, exact=True)
    assert exact.inverted == exact.weights
    assert plan(given, 3).inverted == V + W


def test_a_mirror_keeps_the_range_and_comes_back():
    weights = [0.2, 0.9, 0.4]
    assert mirrored(weights) == pytest.approx([0.9, 0.2, 0.7])
    assert mirrored(mirrored(weights)) == pytest.approx(weights)


# --- prompts -----------------------------------------------------------------------------------------------------

FOUR = strategy(method="shift batches", frame_count=4, add_starting_frames=2, add_ending_frames=1)


@pytest.mark.parametrize("exact", [False, True])
def test_lines_become_keyframes(exact):
    made = prompt_schedule(FOUR, "a\nb\n\n c \nd\ne", exact)
    assert made == '"0": "a",\n"2": "a",\n"5": "b",\n"8": " c ",\n"11": "d",\n"14": "d",\n'


def test_too_few_lines_repeat_the_last():
    keys = json.loads("{" + prompt_schedule(FOUR, "a\nb").rstrip(",\n") + "}")
    assert keys == {"0": "a", "2": "a", "5": "b", "8": "b", "11": "b", "14": "b"}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("given", "prompt"), [(FOUR, " \n"), (strategy(), "a")])
def test_no_lines_or_no_pictures_make_no_schedule(given, prompt, exact):
    assert prompt_schedule(given, prompt, exact) == ""


def test_keys_follow_the_frames_there_are():
    """Corrected by default: they followed the widget, which custom weights leave at 0."""
    given = strategy("1, .5, 0", "custom", 0, frame_count=2)
    assert prompt_schedule(given, "a\nb") == '"0": "a",\n"3": "b",\n'
    assert prompt_schedule(given, "a\nb", exact=True) == '"0": "a",\n"0": "b",\n'


def test_quotes_and_backslashes_are_escaped():
    """Corrected by default: the schedule node after it could not read them."""
    given, text = strategy(frame_count=1), 'say "hi" \\ é'
    assert json.loads("{" + prompt_schedule(given, text).rstrip(",\n") + "}") == {"0": text}
    assert prompt_schedule(given, text, exact=True) == f'"0": "{text}",\n'


def test_numbers_and_lists_join():
    assert combined([0.1, 0.2], 0.5) == [0.1, 0.2, 0.5]
    assert combined(1, 2) == [1, 2]
