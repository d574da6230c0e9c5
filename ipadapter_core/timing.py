"""When: the part of sampling in which a prompt acts, and how its weight changes over it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from .errors import SettingError

Point = tuple[float, float]  # fraction of sampling, factor on the weight
MOST_POINTS = 64
_STEPS = 512  # at so many fractions a model's sigmas are looked up, once for each run
_FIRST = 1e-6  # hosts give a sigma beyond all models for a fraction of exactly 0
_EXPECTED = "Give pairs of a fraction of sampling and a factor on the weight, such as '0:0.2, 0.3:1, 0.8:0.4'"


def parse_curve(text: str) -> tuple[Point, ...]:
    """'0:0.2, 0.3:1, 0.8:0.4' as points in order of their fractions; none of an empty text.

    Raises SettingError: fractions lie in 0..1, each once; factors are finite numbers from -10 to 10.
    """
    points = [_point(part) for part in text.replace(";", ",").replace("\n", ",").split(",") if part.strip()]
    fractions = [fraction for fraction, _ in points]
    if len({*fractions}) < len(points):
        raise SettingError(f"the weight curve names the fraction {_twice(fractions):g} twice. {_EXPECTED}.")
    if len(points) > MOST_POINTS:
        raise SettingError(
            f"the weight curve has {len(points)} points, more than {MOST_POINTS}. Leave some out."
        )
    return tuple(sorted(points))


def _point(part: str) -> Point:
    try:
        fraction, factor = (float(number) for number in part.split(":"))
    except ValueError:
        raise SettingError(
            f"the weight curve has '{part.strip()[:40]}'. {_EXPECTED}, or leave it empty."
        ) from None
    if not (0 <= fraction <= 1 and -10 <= factor <= 10):
        raise SettingError(
            f"the weight curve has '{part.strip()[:40]}': fractions lie in 0..1, factors in -10..10. {_EXPECTED}."
        )
    return fraction, factor


def _twice(fractions: Sequence[float]) -> float:
    return next(fraction for fraction in fractions if fractions.count(fraction) > 1)


def factor_at(points: Sequence[Point], fraction: float) -> float:
    """Linear between points; before the first and after the last as there. points: one or more, in order."""
    after = bisect_right([at for at, _ in points], fraction)
    if after == 0 or after == len(points):
        return points[min(after, len(points) - 1)][1]
    (left, low), (right, high) = points[after - 1], points[after]
    return low + (high - low) * (fraction - left) / (right - left)


@dataclass(frozen=True)
class SigmaWindow:
    """The part of sampling in which a prompt acts: sigma_start >= sigma > sigma_end.

    Half open, so that [0, a] and [a, 1] together cover every step once; sigma_end 0 stands for 'to the very end'.
    closed: at sigma_end too, as in the de-facto pack. curve: sigmas, falling, and the factor on the weight at each.
    """

    sigma_start: float
    sigma_end: float
    closed: bool = False
    curve: tuple[tuple[float, float], ...] = ()

    def __contains__(self, sigma: float) -> bool:
        if sigma > self.sigma_start:
            return False
        return sigma > self.sigma_end or self.sigma_end <= 0 or (self.closed and sigma == self.sigma_end)

    def factor(self, sigma: float) -> float:
        """What the weight is multiplied by at this sigma; 0 outside of the window."""
        if sigma not in self:
            return 0.0
        return factor_at(self._rising, -sigma) if self.curve else 1.0

    @cached_property
    def _rising(self) -> tuple[tuple[float, float], ...]:
        return tuple((-sigma, factor) for sigma, factor in self.curve)


@dataclass(frozen=True)
class Timing:
    """Two fractions of sampling between which a prompt acts, and the curve of its weight over all of sampling.

    closed: at the end too, as in the de-facto pack. curve: points in order of their fractions; none for an even weight.
    ramp: (first, last, steps): instead, factors by step, from the first step in the window on, over so many steps.
    """

    start_at: float
    end_at: float
    closed: bool = False
    curve: tuple[Point, ...] = ()
    ramp: tuple[float, float, int] | None = None

    def window(
        self, percent_to_sigma: Callable[[float], float], schedule: Sequence[float] = ()
    ) -> SigmaWindow:
        """In the sigmas of the model that samples. schedule: those of the run's steps, falling, where they are known."""
        start = float(percent_to_sigma(self.start_at))
        end = float(percent_to_sigma(self.end_at)) if self.closed or self.end_at < 1 else 0.0
        window = SigmaWindow(start, end, self.closed)
        if self.ramp is not None:
            return replace(window, curve=_by_step(self.ramp, [s for s in schedule if s in window], start))
        return replace(window, curve=self._in_sigmas(percent_to_sigma)) if self.curve else window

    def _in_sigmas(self, percent_to_sigma: Callable[[float], float]) -> tuple[tuple[float, float], ...]:
        fractions = {at for at, _ in self.curve} | {step / _STEPS for step in range(_STEPS + 1)}
        by_sigma = {
            float(percent_to_sigma(max(at, _FIRST))): factor_at(self.curve, at) for at in sorted(fractions)
        }
        return tuple(sorted(by_sigma.items(), reverse=True))


def _by_step(
    ramp: tuple[float, float, int], sigmas: Sequence[float], start: float
) -> tuple[tuple[float, float], ...]:
    """The factor at each sigma of a run's steps. One step, and a run whose steps are not known, have the last."""
    first, last, steps = ramp
    if steps < 2 or not sigmas:
        return ((start, last),)
    return tuple((sigma, first + (last - first) * min(n / (steps - 1), 1)) for n, sigma in enumerate(sigmas))


def timing(start_at: float, end_at: float, curve: tuple[Point, ...] = ()) -> Timing | None:
    """None for an even weight in all of sampling, so that no sigma need be read. Raises SettingError if it is no part of
    0..1."""
    if not 0 <= start_at <= end_at <= 1:
        raise SettingError(
            f"start_at {start_at} and end_at {end_at}: both lie in 0..1, and start_at may not exceed end_at."
        )
    even = all(factor == 1 for _, factor in curve)
    return (
        None
        if (start_at, end_at) == (0, 1) and even
        else Timing(start_at, end_at, curve=() if even else curve)
    )
