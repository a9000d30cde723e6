"""A search over the options of a method, one evaluation at a time."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

from lightning_mbir.methods.method import Method, Option

FACTOR = 6.0
"""By which an option on a logarithmic scale is first multiplied or divided."""
SHARE = 0.3
"""Of its range, by which an option on a linear scale is first moved."""
FINEST = 0.2
"""Steps, relative to the first, at which a search ends."""

Settings = dict[str, Any]


def searched(method: Method, fixed: Settings) -> dict[str, Option]:
    """The options of a method that are worth searching, without those that a user has set."""
    return {
        name: option for name, option in method.signature.items() if option.search is not None and name not in fixed
    }


def pattern_search(start: Settings, options: dict[str, Option]) -> Generator[Settings, float]:
    """Pattern search (Hooke and Jeeves, J. ACM 8, 1961): yields settings and is sent their errors.

    One option at a time goes up, or else down, and stays where the error is smaller; where no option does any more, the
    steps halve on their scale, down to ``FINEST``. An option that changes nothing at all is left alone from then on,
    such as what couples slices where there is one.

    Args:
        start: the settings to begin with, which are the first that are yielded.
        options: those that are moved.
    """
    best, least = start, (yield start)
    forward = dict.fromkeys(options, 1)
    reach, inert = 1.0, set()
    while reach > FINEST:
        moved = False
        for name, option in options.items():
            if name in inert:
                continue
            for sign in (forward[name], -forward[name]):
                value = moved_option(option, best[name], sign * reach)
                if value == best[name]:
                    continue
                trial = {**best, name: value}
                error = yield trial
                if error == least:
                    inert.add(name)
                    break
                if error < least:
                    best, least, forward[name], moved = trial, error, sign, True
                    break
        if not moved:
            reach /= 2


def moved_option(option: Option, value: Any, step: float) -> Any:
    """An option's value a step farther, within the range in which it is searched.

    On a logarithmic scale a step down from the least is 0, where that is allowed, and one up from 0 the middle.
    """
    search = option.search
    assert search is not None
    if isinstance(value, bool):
        return not value
    if search.linear:
        moved = value + step * SHARE * (search.most - search.least)
    elif value == 0:
        moved = math.sqrt(search.least * search.most) if step > 0 else 0.0
    else:
        moved = value * FACTOR**step
        may_be_zero = not option.whole and not option.bounds.positive
        if may_be_zero and moved < search.least and value <= search.least:
            return 0.0
    if option.whole and round(moved) == value:
        moved = value + math.copysign(1, step)
    least, most = (min(search.least, value), max(search.most, value))  # a default may lie outside
    return value if value == 0 == moved else _rounded(min(max(moved, least), most), option)


def _rounded(value: float, option: Option) -> float | int:
    """To whole numbers, or three digits, so that settings can be read."""
    return round(value) if option.whole else float(f"{value:.3g}")
