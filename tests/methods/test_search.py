"""The search over options."""

import math
from typing import Any

import pytest

from lightning_mbir.methods.catalog import METHODS
from lightning_mbir.methods.method import Limits
from lightning_mbir.methods.search import moved_option, pattern_search, searched

DDS = searched(METHODS["dds"], {})
START = {"sigma_max": 0.4, "rho": 0.05, "lam": 4e-4, "sigma_y": 0.0, "cg_iterations": 5, "eta": 0.55}


def minimise(error: Any, start: dict[str, Any], options: Any, most: int = 200) -> tuple[dict[str, Any], int]:
    search = pattern_search(start, options)
    trial, best, tried = next(search), start, 1
    try:
        while tried < most:
            if error(trial) < error(best):
                best = trial
            trial = search.send(error(trial))
            tried += 1
    except StopIteration:
        pass
    return best, tried


def test_it_finds_the_least_of_a_bowl_from_afar() -> None:
    def bowl(s: dict[str, Any]) -> float:
        return float(
            math.log(s["rho"] / 0.9) ** 2
            + math.log(s["sigma_max"] / 2) ** 2
            + (s["eta"] - 0.2) ** 2
            + math.log(max(s["sigma_y"], 1e-4) / 0.01) ** 2
            + 0.1 * math.log(s["cg_iterations"] / 20) ** 2
        )

    best, tried = minimise(bowl, START, DDS)
    assert bowl(best) < 0.15
    assert best["lam"] == START["lam"]  # which changes nothing
    assert tried < 80


def test_options_that_change_nothing_are_tried_once() -> None:
    seen: list[dict[str, Any]] = []

    def flat(s: dict[str, Any]) -> float:
        seen.append(s)
        return math.log(s["rho"]) ** 2

    minimise(flat, START, DDS)
    assert len({s["eta"] for s in seen}) == 2
    assert len({s["lam"] for s in seen}) == 2


def test_what_the_user_has_set_is_not_searched() -> None:
    assert "rho" not in searched(METHODS["dds"], {"rho": 0.1})


@pytest.mark.parametrize("name", list(METHODS))
def test_every_value_that_a_search_can_reach_is_one_that_the_method_takes(name: str) -> None:
    method = METHODS[name]
    for key, option in searched(method, {}).items():
        value = option.default
        for step in (1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0.25, 0.25):
            value = moved_option(option, value, step)
            method.check({key: value} if key != "steps" else {}, value if key == "steps" else None)
            limits = next((limit for limit in option.limits if isinstance(limit, Limits)), Limits())
            assert isinstance(value, bool) or limits.wrong(value) is None, (key, value)


def test_zero_is_left_and_reached() -> None:
    sigma_y, rho, steps = DDS["sigma_y"], DDS["rho"], DDS["cg_iterations"]
    assert moved_option(sigma_y, 0.0, 1) == 0.01
    assert moved_option(sigma_y, 0.0, -1) == 0
    assert moved_option(sigma_y, 0.001, -1) == 0
    assert moved_option(rho, 1e-5, -1) == 1e-5  # has to be positive
    assert moved_option(steps, 2, -1) == 2
    assert moved_option(steps, 3, 0.1) == 4  # whole numbers move by one at least


def test_defaults_outside_of_the_range_are_gone_from() -> None:
    option = searched(METHODS["diffusion_mbir"], {})["sigma_max"]
    assert option.default == 378.0
    assert moved_option(option, 378.0, -1) == 63.0
    assert moved_option(option, 378.0, 1) == 378.0
