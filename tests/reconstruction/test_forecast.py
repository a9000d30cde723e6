"""What a run will take is told as soon as a level was measured."""

from __future__ import annotations

import io
import re
from functools import partial

import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from lightning_mbir.reconstruction import progress
from lightning_mbir.reconstruction.forecast import Forecast, beyond, duration
from lightning_mbir.reconstruction.progress import LevelProgress
from lightning_mbir.samplers import SamplerState


def test_a_long_run_says_what_half_the_size_takes() -> None:
    told = Forecast(512, 0.7).told(17.0, 50)
    assert told == (
        "about 14 min at 512 x 512 (17 s a level); --data.image_size 256 takes a quarter of that, with pixels of "
        "1.4 mm instead of 0.7"
    )
    assert Forecast(512, 0.7, runs=8).told(17.0, 50) == told.replace("14 min", "1.9 h")
    assert "image_size" not in str(Forecast(512, 0.7, resizable=False).told(17.0, 50))
    assert Forecast(512, 0.7).told(1.0, 50) is None  # not worth a line


def test_a_run_of_over_ten_minutes_says_what_half_the_levels_take() -> None:
    assert Forecast(512, 0.7, levels=True).told(17.0, 50) == (
        "about 14 min at 512 x 512 (17 s a level); --steps 25 takes half of that, --data.image_size 256 a quarter, "
        "with pixels of 1.4 mm instead of 0.7"
    )
    assert Forecast(512, 0.7, resizable=False, levels=True).told(17.0, 50) == (
        "about 14 min at 512 x 512 (17 s a level); --steps 25 takes half of that"
    )
    assert "--steps" not in str(Forecast(512, 0.7, levels=True).told(5.0, 50))  # four minutes


def test_a_prior_is_compared_with_the_size_it_has_seen() -> None:
    assert beyond(256, 256, "ct") is None and beyond(512, None, "mine") is None
    assert "larger than prior ct has seen (256 x 256)" in str(beyond(512, 256, "ct"))


@pytest.mark.parametrize(("seconds", "text"), [(0.31, "0.3 s"), (40, "40 s"), (600, "10 min"), (7200, "2.0 h")])
def test_times_are_told_as_one_would_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("columns", [52, 60, 80, 120])
def test_on_a_narrow_terminal_names_are_cut_short_and_not_numbers(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(file=io.StringIO(), width=columns, force_terminal=True, color_system=None)
    monkeypatch.setattr(progress, "console", lambda: screen)
    with LevelProgress("the_second_scan_of_a_patient_with_a_long_name dds") as bar:
        bar(SamplerState(step=9, n_steps=12, sigma=0.0887, volume=torch.zeros(1, 2, 2), nfe=9))
        bar.progress.refresh()
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r" 9/12 0:00:\d\d left (\d:\d\d:\d\d|-:--:--) sigma 0\.0887", shown)


def test_preparations_are_not_taken_for_a_level(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress, "Progress", partial(Progress, get_time=lambda: clock[0]))
    with LevelProgress("scan dds", forecast=Forecast(256, 1.5)) as bar:
        for seconds, step in ((100.0, 1), (10.0, 2), (10.0, 3)):  # ninety of preparations
            clock[0] += seconds
            bar(SamplerState(step=step, n_steps=20, sigma=1.0, volume=torch.zeros(1, 2, 2), nfe=step))
        clock[0] += 5000
        bar(SamplerState(step=4, n_steps=20, sigma=0.5, volume=torch.zeros(1, 2, 2), nfe=4))
    told = " ".join(capfd.readouterr().err.split())
    assert "scan dds: 4/20 sigma 0.5 (85 min, 5.7 h left)" in told
    assert told.count("about") == 1 and "scan dds: about 3 min at 256 x 256 (10 s a level)" in told
