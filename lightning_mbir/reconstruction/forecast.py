"""What a reconstruction will take, told from one of its levels, and what a smaller size would save."""

from __future__ import annotations

from dataclasses import dataclass

LONG, TOO_LONG = 60.0, 600.0
"""Seconds from which on a run's time is told before it is waited for, and those from which on it is told what fewer
levels would save too."""


@dataclass(frozen=True)
class Forecast:
    """The size of a reconstruction.

    Attributes:
        size: pixels along the side of a slice.
        pixel: mm.
        resizable: whether ``--data.image_size`` changes it, which it does not of measured k-space.
        levels: whether ``--steps`` changes the number of levels.
        runs: how many follow each other, of several samples.
    """

    size: int
    pixel: float
    resizable: bool = True
    levels: bool = False
    runs: int = 1

    def told(self, level: float, levels: int) -> str | None:
        """A line on the time in all, where that is long.

        Args:
            level: seconds of one level.
            levels: how many there are in a run.
        """
        seconds = level * levels * self.runs
        if seconds < LONG:
            return None
        line = f"about {duration(seconds)} at {self.size} x {self.size} ({duration(level)} a level)"
        ways = []
        if self.levels and seconds >= TOO_LONG and levels >= 4:
            ways.append(f"--steps {levels // 2} takes half of that")
        half = self.size // 2
        if self.resizable and half >= 64:
            of_that = "a quarter" if ways else "a quarter of that"
            ways.append(
                f"--data.image_size {half} {'' if ways else 'takes '}{of_that}, with pixels of {2 * self.pixel:.2g} mm "
                f"instead of {self.pixel:.2g}"
            )
        return "; ".join([line, ", ".join(ways)]) if ways else line


def beyond(size: int, seen: int | None, name: str) -> str | None:
    """A line where slices are larger than those that a prior was trained on."""
    if seen is None or size <= seen:
        return None
    return (
        f"slices of {size} x {size} are larger than prior {name} has seen ({seen} x {seen}), which may not suit them; "
        f"--data.image_size {seen} keeps to that"
    )


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as one would say."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
