"""The factor of a spread: taken with all that it was found with, and told where it is not."""

from typing import Any

import pytest
import yaml

from lightning_mbir.methods import spread
from lightning_mbir.methods.catalog import check_method
from lightning_mbir.methods.plans import Setting, Wanted
from lightning_mbir.methods.spread import correction, spread_file
from lightning_mbir.methods.tasks import TASKS, get_task
from lightning_mbir.prior.checkpoints.checkpoint import bundled_sums

TASK = TASKS["sv_ct"]
PRIOR = {"name": "ct", "sha256": "0123456789abcdef"}


def plan(noisy: bool = False, samples: int = 8, **wanted: Any) -> dict[str, Any]:
    return Wanted(TASK, samples=samples, **wanted).plans(Setting(noisy))[0].identity


@pytest.fixture(autouse=True)
def factors(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(noisy: bool, **flags: Any) -> dict[str, Any]:
        identity = {
            key: value for key, value in plan(noisy).items() if key in ("method", "options", "steps", "samples")
        }
        own = {"patient": "somebody", "settings": TASK.settings(**flags), "image_size": 128, "prior": PRIOR}
        return {"factor": 3.0 if noisy else 2.0, **own, **identity}

    known = {"sv_ct": {"clean": found(False), "noisy": found(True, photons=1e5)}}
    monkeypatch.setattr(spread, "_factors", lambda: known)


def test_a_factor_is_taken_where_all_is_as_it_was_found() -> None:
    known = correction(TASK, TASK.settings(), plan(), PRIOR, image_size=128)
    assert known.factor == 2 and known.found is not None and known.found["patient"] == "somebody"
    assert known.line == (
        "spread of the samples times 2, found on somebody, whom the prior had not seen; divide by that for their own"
    )
    assert correction(TASK, TASK.settings(), plan(method="dds"), PRIOR).factor == 2  # the same by its name


def test_with_noise_it_is_another_and_what_differs_is_told() -> None:
    known = correction(TASK, TASK.settings(photons=1e4), plan(True, 4), PRIOR, image_size=256)
    assert known.factor == 3
    assert "(with photons 100000, samples 8, image_size 128)" in known.line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": TASK.settings(views=20)}, "for views 8"),
        ({"settings": TASK.settings(angle_range=90.0)}, "for angle_range 180"),
        ({"plan": plan(steps=20)}, "with 50 steps"),
        ({"plan": plan(options={"eta": 1.0})}, f"with eta {TASK.options['dds']['eta']}"),
        ({"plan": plan(method="pula")}, "for dds"),
        ({"prior": {**PRIOR, "sha256": "f" * 16}}, "for the prior ct of 0123456789ab"),
        ({"prior": {**PRIOR, "name": "mine.ckpt"}}, "for the prior ct"),
        ({"prior": None}, "for the prior ct"),
        ({"measured": True}, "of simulated measurements alone"),
        ({"task": TASKS["la_ct"], "settings": TASKS["la_ct"].settings()}, "none has been found for this task"),
        (
            {"task": get_task("sv_ct", "lightning_mbir.physics.ParallelBeam")},
            "none is known for lightning_mbir.physics.ParallelBeam",
        ),
    ],
)
def test_none_is_taken_elsewhere_and_a_line_says_why(changes: dict[str, Any], words: str) -> None:
    given = {"task": TASK, "settings": TASK.settings(), "plan": plan(), "prior": PRIOR, **changes}
    known = correction(**given)
    assert known.factor == 1 and known.found is None
    assert known.line.startswith("spread as the samples have it, which is no error bar") and words in known.line


def test_the_factors_that_are_shipped_are_of_what_is_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tasks that there are and of the options and priors of today, so that who asks for samples gets them."""
    shipped = yaml.safe_load(spread_file().read_text())
    monkeypatch.setattr(spread, "_factors", lambda: shipped)
    assert set(shipped) <= set(TASKS)
    for task, by_noise in shipped.items():
        for noise, found in by_noise.items():
            own = TASKS[task]
            assert own.settings(**found["settings"]) == found["settings"]
            assert (noise == "noisy") == (not {"photons", "snr"}.isdisjoint(found["settings"]))
            check_method(found["method"], own.modality, found["options"], found["steps"])
            assert 0.2 < found["factor"] < 30 and found["samples"] >= 2 and found["image_size"] > 0
            assert found["prior"]["sha256"] == bundled_sums()[found["prior"]["name"]]
            wanted = Wanted(own, samples=found["samples"]).plans(Setting(noise == "noisy"))
            known = correction(own, found["settings"], wanted[0].identity, found["prior"])
            assert known.factor == found["factor"], known.line
