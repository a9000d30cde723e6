"""The figure of a choice: how well what was tried predicts what was held out."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from lightning_mbir.methods.trials import Trial, Tuning
from lightning_mbir.report.sheet import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 6
"""Options that are drawn."""
COLOURS = ("#4fc3f7", "#ffb74d", "#81c784", "#ba68c8", "#e57373")


def choice_figure(tuning: Tuning, title: str) -> Figure:
    """The error of each candidate's best settings, and that of all trials over each option that was searched.

    Args:
        tuning: what was tried.
        title: what was measured.
    """
    searched = _searched(tuning)
    panels = 1 + len(searched)
    columns = min(panels, 4)
    rows = math.ceil(panels / columns)
    told = f"{title}: error on {tuning.what} held out (lower is better)"
    lines = textwrap.wrap(told, int(3.2 * columns * 10))
    figure = new_figure((3.2 * columns, 0.5 + 0.2 * len(lines) + 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    _candidates(axes[0], tuning)
    for ax, name in zip(axes[1:], searched, strict=False):
        _option(ax, tuning, name)
    for ax in axes[panels:]:
        ax.set_visible(False)
    figure.suptitle("\n".join(lines), color="white", fontsize=11)
    return figure


def _searched(tuning: Tuning) -> list[str]:
    """Options of the chosen candidate that took more than one value."""
    own = [trial.settings for trial in tuning.trials if trial.candidate == tuning.chosen.candidate]
    varied = [name for name in own[0] if len({repr(settings[name]) for settings in own}) > 1]
    return varied[:MOST]


def _candidates(ax: Axes, tuning: Tuning) -> None:
    """One row a candidate: all folds of its best settings, and before that as it was."""
    _dark(ax)
    names = []
    for k, candidate in enumerate(tuning.candidates):
        best, first = tuning.best(k), tuning.shipped(k)
        names.append(candidate.name.replace(" with prior ", "\n"))
        if best is None or first is None or not math.isfinite(first.error):
            continue
        colour = COLOURS[k % len(COLOURS)]
        ax.plot(best.errors, [k] * len(best.errors), "|", color=colour, markersize=10)
        ax.plot([first.error], [k], "o", color=colour, fillstyle="none", markersize=7)
        ax.plot([best.error], [k], "o", color=colour, markersize=7)
    ax.plot([tuning.chosen.error], [tuning.chosen.candidate], "o", color="white", fillstyle="none", markersize=12)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_title("filled: best settings, open: as shipped, bars: folds", color="0.7", fontsize=7)


def _option(ax: Axes, tuning: Tuning, name: str) -> None:
    _dark(ax)
    own = [trial for trial in tuning.trials if trial.candidate == tuning.chosen.candidate]
    whole = [trial for trial in own if trial.whole and math.isfinite(trial.error)]
    colour = COLOURS[tuning.chosen.candidate % len(COLOURS)]
    ax.plot([_value(trial, name) for trial in whole], [trial.error for trial in whole], ".", color=colour)
    ax.plot([_value(tuning.chosen, name)], [tuning.chosen.error], "o", color="white", fillstyle="none", markersize=11)
    values = [_value(trial, name) for trial in whole]
    if all(isinstance(value, float | int) and not isinstance(value, bool) and value >= 0 for value in values):
        positive = [value for value in values if value > 0]
        if positive and max(positive) > 3 * min(positive):
            ax.set_xscale("symlog" if 0 in values else "log", **({"linthresh": min(positive)} if 0 in values else {}))
            ticks = sorted(set(values))
            ticks = [ticks[0], tuning.chosen.settings[name], ticks[-1]]
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.minorticks_off()
    ax.set_title(name, color="white", fontsize=9)


def _value(trial: Trial, name: str) -> Any:
    value = trial.settings[name]
    return str(value) if isinstance(value, bool) else value


def _dark(ax: Axes) -> None:
    ax.set_facecolor("black")
    ax.tick_params(colors="0.8", labelsize=7)
    for spine in ax.spines.values():
        spine.set_color("0.4")
