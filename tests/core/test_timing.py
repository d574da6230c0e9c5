"""When an image prompt acts: the window over sigma, and the curve of its weight."""

import itertools
import math

import pytest
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.ipadapter_core.timing import SigmaWindow, factor_at, parse_curve, timing

SIGMA_MAX, SIGMA_MIN = 14.6146, 0.0292


def percent_to_sigma(percent: float) -> float:
    """Falls with percent, and has the host's end values."""
    if percent <= 0:
        return 999999999.9
    return 0.0 if percent >= 1 else SIGMA_MAX * (SIGMA_MIN / SIGMA_MAX) ** percent


def karras(steps: int) -> list[float]:
    ramp = [n / max(1, steps - 1) for n in range(steps)]
    low, high = SIGMA_MIN ** (1 / 7), SIGMA_MAX ** (1 / 7)
    return [(high + r * (low - high)) ** 7 for r in ramp]


def on_the_boundaries(steps: int) -> list[float]:
    """Steps whose sigma is exactly that of a fraction people choose."""
    return [percent_to_sigma(n / steps) if n else SIGMA_MAX for n in range(steps)]


def window_of(start_at: float, end_at: float) -> SigmaWindow | None:
    made = timing(start_at, end_at)
    return made and made.window(percent_to_sigma)


def acting(window: SigmaWindow | None, schedule: list[float]) -> list[int]:
    return [n for n, sigma in enumerate(schedule) if window is None or sigma in window]


@pytest.mark.parametrize("schedule", [karras, on_the_boundaries], ids=lambda make: make.__name__)
@pytest.mark.parametrize("steps", [1, 4, 10, 20, 50])
def test_two_windows_that_meet_cover_each_step_once(schedule, steps: int):
    sigmas = schedule(steps)
    for n in range(101):
        a = n / 100
        first, second = (window_of(*ends) for ends in ((0.0, a), (a, 1.0)))
        assert sorted(acting(first, sigmas) + acting(second, sigmas)) == list(range(steps)), a


def test_three_windows_in_a_row_cover_each_step_once():
    ends = [0.0, 0.25, 0.6, 1.0]
    windows = [window_of(*pair) for pair in itertools.pairwise(ends)]
    found = [n for window in windows for n in acting(window, on_the_boundaries(20))]
    assert found == list(range(20))


def test_the_first_and_the_last_step_belong_to_the_ends():
    sigmas = karras(10)
    assert acting(window_of(0.0, 0.01), sigmas) == [0]
    assert acting(window_of(0.99, 1.0), sigmas) == [9]


def test_a_step_at_the_start_acts_and_one_at_the_end_does_not():
    window = window_of(0.2, 0.8)
    assert window is not None
    start, end = percent_to_sigma(0.2), percent_to_sigma(0.8)
    inside = [start, math.nextafter(end, math.inf)]
    outside = [math.nextafter(start, math.inf), end]
    assert [sigma in window for sigma in inside + outside] == [True, True, False, False]


def test_up_to_the_end_means_the_very_end():
    """A step at sigma 0, as some samplers make, belongs to whoever acts until 1."""
    first, second = (window_of(*ends) for ends in ((0.0, 0.5), (0.5, 1.0)))
    assert acting(first, [0.0]) == []
    assert acting(second, [0.0]) == [0]


def test_all_of_sampling_needs_no_window():
    assert timing(0.0, 1.0) is None


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_an_empty_range_never_acts(a: float):
    assert acting(window_of(a, a), karras(30)) == []


@pytest.mark.parametrize(
    ("start", "end"), [(0.6, 0.4), (-0.1, 1.0), (0.0, 1.1), (math.nan, 1.0), (0.0, math.nan)]
)
def test_fractions_that_are_no_range_are_refused(start: float, end: float):
    with pytest.raises(SettingError) as caught:
        window_of(start, end)
    assert f"start_at {start} and end_at {end}" in str(caught.value)


def test_a_closed_window_acts_at_its_end_too():
    """As in the de-facto pack: windows that meet both act on the border."""
    assert 2.0 in SigmaWindow(5.0, 2.0, closed=True)
    assert 2.0 not in SigmaWindow(5.0, 2.0)
    assert not [sigma for sigma in (1.0, 2.0, 3.0) if sigma in SigmaWindow(1.0, 3.0, closed=True)]


# --- the curve ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("", ()),
        (" , ", ()),
        ("0:0.2, 0.3:1, 0.8:0.4", ((0.0, 0.2), (0.3, 1.0), (0.8, 0.4))),
        ("1:0;0 : 2", ((0.0, 2.0), (1.0, 0.0))),
        ("0.5:-1\n", ((0.5, -1.0),)),
    ],
)
def test_a_curve_is_read_as_people_write_it(text: str, points: tuple[tuple[float, float], ...]):
    assert parse_curve(text) == points


@pytest.mark.parametrize(
    "text",
    ["0.5", "a:1", "0:1:2", "1.2:1", "-0.1:1", "0:nan", "nan:1", "0:inf", "0:11", "0:1, 0:2", "0,5:1", ":"],
)
def test_what_is_no_curve_is_a_sentence(text: str):
    with pytest.raises(SettingError, match=r"the weight curve .*0:0\.2, 0\.3:1, 0\.8:0\.4"):
        parse_curve(text)


def test_a_curve_without_end_is_refused():
    with pytest.raises(SettingError, match="more than 64"):
        parse_curve(",".join(f"{n / 1000}:1" for n in range(65)))


def test_between_points_it_is_linear_and_level_outside_of_them():
    points = parse_curve("0.2:1, 0.6:0, 0.7:2")
    assert [factor_at(points, at) for at in (0.0, 0.2, 0.4, 0.6, 0.65, 0.7, 1.0)] == pytest.approx(
        [1, 1, 0.5, 0, 1, 2, 2]
    )


@pytest.mark.parametrize(
    "text", ["0:0.2, 0.3:1, 0.8:0.4", "0:1, 1:0", "0.5:0.3", "0:0, 0.001:1, 0.999:1, 1:0"]
)
def test_in_sigmas_it_is_the_curve_of_the_fraction(text: str):
    made, points = timing(0.0, 1.0, parse_curve(text)), parse_curve(text)
    assert made is not None
    window = made.window(percent_to_sigma)
    for n in range(1, 1000):
        assert window.factor(percent_to_sigma(n / 1000)) == pytest.approx(
            factor_at(points, n / 1000), abs=2e-3
        )
    for at, factor in points:  # at its points exactly
        assert window.factor(percent_to_sigma(at)) == pytest.approx(factor)
    assert window.factor(SIGMA_MAX) == pytest.approx(factor_at(points, 0.0), abs=2e-3)


def test_outside_of_the_window_there_is_no_factor():
    made = timing(0.25, 0.75, parse_curve("0:2"))
    assert made is not None
    window = made.window(percent_to_sigma)
    assert [window.factor(percent_to_sigma(at)) for at in (0.2, 0.25, 0.5, 0.75)] == [0.0, 2.0, 2.0, 0.0]


def test_a_curve_of_ones_is_no_curve():
    assert timing(0.0, 1.0, parse_curve("0:1, 0.5:1")) is None
    assert timing(0.2, 1.0, parse_curve("0:1")) == timing(0.2, 1.0)
