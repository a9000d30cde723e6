"""Options, methods and priors that the measurement chooses itself."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.errors import InputError
from lightning_mbir.methods.candidates import Budget, Candidate, Choice
from lightning_mbir.methods.method import method as as_method
from lightning_mbir.methods.plans import Setting, Wanted
from lightning_mbir.methods.priors import load_task_prior
from lightning_mbir.methods.problem import Problem
from lightning_mbir.methods.run import run_method
from lightning_mbir.methods.trials import Trial, Tuning
from lightning_mbir.methods.tuning import _without_rival, tune
from lightning_mbir.physics import (
    FourierSampling,
    LinearOperator,
    MultiCoilFourier,
    ParallelBeam,
    complex_gaussian,
    loop_coil_maps,
    make_mask,
)
from lightning_mbir.prior import SliceDenoiser, Unit
from lightning_mbir.reconstruction import METHODS, TASKS, reconstruct
from lightning_mbir.reconstruction.case import simulate
from lightning_mbir.report.choice import choice_figure
from lightning_mbir.report.tables import to_json
from tests.helpers import GaussianPrior, smooth_volume

CT = ParallelBeam(24, [i * 30.0 for i in range(6)], pixel_size=6.0)
KEYS = {"modality": "ct", "seed": 0, "volume": "v"}
QUICK = Budget(evaluations=6, levels=4)


def anatomy(seed: int) -> Tensor:
    """Slices ``(24, 24)`` of blocks, in the prior's unit."""
    blocks = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(blocks, scale_factor=4)[0, 0]


def drawn(seed: int) -> Tensor:
    """A volume of the Gaussian prior of the anatomy 1."""
    noise = torch.randn(6, 24, 24, generator=torch.Generator().manual_seed(seed))
    return (anatomy(1) + 0.05 * noise) * Unit.of("ct").scale


def prior(of: int) -> SliceDenoiser:
    """The exact one of slices ``N(anatomy, 0.05^2)``."""
    return SliceDenoiser(GaussianPrior(anatomy(of), 0.05), Unit.of("ct"), "ct", 16)


def chosen(
    y: Tensor, candidates: tuple[Candidate, ...], operator: LinearOperator = CT, search: bool = False, **more: Any
) -> Tuning:
    priors = {None: prior(1), "wrong": prior(2), "right": prior(1)}
    return tune(y, operator, Choice(candidates, QUICK, search), priors.__getitem__, **{**KEYS, **more})


DDS = {"steps": 8, "lam": 0.0, "sigma_max": 1.0, "sigma_min": 0.01, "cg_iterations": 8}


def test_a_prior_that_is_wrong_is_found_out() -> None:
    right, wrong = Candidate("dds", DDS, "right"), Candidate("dds", DDS, "wrong")
    for seed in range(3):
        y = CT(drawn(seed))
        assert chosen(y, (wrong, right)).candidate.prior == "right"
        assert chosen(y, (right, wrong)).candidate.prior == "right"


def test_the_user_is_warned_of_a_prior_that_does_not_know_the_object() -> None:
    y = CT(drawn(0))
    tv = Candidate("admm_tv", {"lam": 1e-4, "rho": 0.01, "steps": 40}, reference=True)
    tuning = chosen(y, (Candidate("dds", DDS, "wrong"), tv))
    assert tuning.candidate.method == "dds"  # a reference is never taken
    warning = tuning.warning("of the run")
    assert warning is not None
    assert warning.startswith("this object is not what prior wrong knows: admm_tv predicts views")
    tuning = chosen(CT(drawn(1)), (Candidate("dds", DDS, "right"), tv))
    assert tuning.warning("of the run") is None


def test_over_an_arc_nothing_is_said_of_a_prior_but_that_it_cannot_be_told() -> None:
    arc = ParallelBeam(24, [i * 5.0 for i in range(12)], pixel_size=6.0)
    tv = Candidate("admm_tv", {"lam": 1e-4, "rho": 0.01, "steps": 40}, reference=True)
    for name in ("wrong", "right"):
        warning = chosen(arc(drawn(0)), (Candidate("dds", DDS, name), tv), arc).warning("of the run")
        assert warning is not None
        assert warning.startswith("views leave a wedge out")
    alone = chosen(arc(drawn(0)), (replace(tv, reference=False),), arc)
    assert alone.warning("of the run") is None


def test_over_an_arc_the_prior_that_finds_the_object_more_probable_decides() -> None:
    """Held-out views do not tell; what total variation makes of the object does, to the denoisers of two priors."""
    arc = ParallelBeam(24, [i * 5.0 for i in range(12)], pixel_size=6.0)
    dds, tv = Candidate("dds", DDS), Candidate("admm_tv", {"lam": 1e-4, "rho": 0.01, "steps": 40})
    for own, rival, method in ((1, 2, "dds"), (2, 1, "admm_tv")):
        priors = {None: prior(own), "rival": prior(rival)}
        choice = Choice((dds, tv, replace(dds, prior="rival")), QUICK, search=False, rival="rival")
        tuning = tune(arc(drawn(0)), arc, choice, priors.__getitem__, **KEYS)
        assert tuning.candidate.method == method
        assert tuning.candidate.prior is None
        assert tuning.evidence is not None
        assert (tuning.evidence > 0) == (method == "dds")
        assert tuning.lines[2].startswith("the prior of the run finds the object")
        assert tuning.lines[2].endswith("which decides over an arc")
        assert len(tuning.trials) == 1  # what is not taken is not tried
        assert tuning.data["evidence"] == {"over": "rival", "nats_a_pixel": tuning.evidence}
        assert tuning.warning("of the run") is None
        given = Choice((dds, replace(tv, reference=True)), QUICK, search=False, rival="rival")
        tuning = tune(arc(drawn(0)), arc, given, priors.__getitem__, **KEYS)
        assert tuning.candidate.method == "dds"  # as the user wants it
        warning = tuning.warning("of the run") or ""
        assert warning.startswith("this object is not what prior of the run knows: prior rival finds it") == (own == 2)


def test_evidence_does_not_depend_on_the_units_of_the_priors() -> None:
    arc, unit = ParallelBeam(24, [i * 5.0 for i in range(12)], pixel_size=6.0), Unit.of("ct")
    dds, tv = Candidate("dds", DDS), Candidate("admm_tv", {"lam": 1e-4, "rho": 0.01, "steps": 40})
    other = Unit(unit.scale / 2, unit.scale / 4)  # what is x there is 2 x - 0.5
    same = SliceDenoiser(GaussianPrior(2 * anatomy(2) - 0.5, 0.1), other, "ct", 16)
    found = []
    for rival in (prior(2), same):
        priors = {None: prior(1), "rival": rival}
        choice = Choice((dds, tv), QUICK, search=False, rival="rival")
        found.append(tune(arc(drawn(0)), arc, choice, priors.__getitem__, **KEYS).evidence)
    assert found[0] is not None
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_of_two_priors_the_rival_has_to_be_more_probable_and_to_predict_better() -> None:
    dds, tv = Candidate("dds", DDS), Candidate("admm_tv", {"lam": 1e-4, "rho": 0.01, "steps": 40})
    for own, rival, taken in ((1, 2, None), (2, 1, "rival")):
        priors = {None: prior(own), "rival": prior(rival)}
        choice = Choice((dds, tv, replace(dds, prior="rival")), QUICK, search=False, rival="rival")
        tuning = tune(CT(drawn(0)), CT, choice, priors.__getitem__, **KEYS)
        assert {trial.candidate for trial in tuning.trials} == {0, 1, 2}
        assert (tuning.candidate.method, tuning.candidate.prior) == ("dds", taken)
        assert tuning.evidence is not None
        assert (tuning.evidence > 0) == (taken is None)
        assert len(choice_figure(tuning, "v").axes) >= 1


def test_options_are_searched_of_one_of_two_priors_alone() -> None:
    dds, tv = Candidate("dds", DDS), Candidate("admm_tv", {"steps": 40})
    choice = Choice((dds, tv, replace(dds, prior="rival")), QUICK, rival="rival")
    for rival_errors, evidence, kept in (
        ((0.5, 0.6), -0.1, {1, 2}),
        ((0.5, 0.6), None, {1, 2}),
        ((0.5, 0.6), 0.1, {0, 1}),
        ((0.2, 0.2), 0.1, {1, 2}),
        ((0.5, 1.8), -0.1, {0, 1}),
        ((1.5, 1.6), -0.1, {0, 1}),
    ):
        missed = {0: (1.0, 1.1), 1: (3.0, 3.0), 2: rival_errors}
        shipped = {k: Trial(k, {}, (errors,), 1.0) for k, errors in missed.items()}
        assert set(_without_rival(choice, shipped, evidence)) == kept  # better in one part alone is chance
        del shipped[0]
        assert set(_without_rival(choice, shipped, evidence)) == {1, 2}


@pytest.mark.parametrize("snr", [None, 15.0])
def test_an_eighth_of_k_space_does_not_make_a_brain_one_of_dead_leaves(shared: Path, snr: float | None) -> None:
    """What total variation makes of it does: by that the prior of brains was set aside, and 2 dB lost."""
    brain = shared / "data/mri/train/openms_p20_T1W.nii.gz"
    module = VolumeDataModule(brain, modality="mri", image_size=64, slices="19:21")
    case = simulate(module.scan(0), TASKS["cs_mri"], TASKS["cs_mri"].settings(snr=snr), 0, has_phase=False)
    budget = Budget(4, slices=2, levels=12)
    choice = Wanted(TASKS["cs_mri"], "auto", budget=budget).plans(Setting(snr is not None, generic=True))[0].choice
    assert choice is not None
    tuning = tune(
        case.y, case.operator(False), choice, lambda name: load_task_prior(name, "mri"), modality="mri",
        noise_std=case.noise_std, seed=0, volume="p20",
    )  # fmt: skip
    assert tuning.evidence is not None
    assert tuning.evidence > 0.02
    assert (tuning.candidate.method, tuning.candidate.prior) == ("dds", None)


def test_options_are_found_that_predict_better_and_are_kept_where_nothing_does() -> None:
    y = CT(0.02 * smooth_volume((6, 24, 24)))
    bad = Candidate("admm_tv", {"lam": 0.03, "rho": 0.01, "steps": 30, "isotropic": False})
    budget = Budget(evaluations=20)
    tuning = tune(y, CT, Choice((bad,), budget), lambda _: None, **KEYS)
    assert tuning.candidate.settings["lam"] < 0.01
    assert tuning.changes.keys() >= {"lam"}
    assert tuning.chosen.error < 0.5 * tuning.trials[0].error
    good = Candidate("admm_tv", tuning.candidate.settings)
    assert tune(y, CT, Choice((good,), Budget(evaluations=8)), lambda _: None, **KEYS).trials[0].error <= min(
        trial.error for trial in tuning.trials if trial.whole
    ) * (1 + 1e-5)


def test_what_is_set_stays_as_it_is() -> None:
    y = CT(0.02 * smooth_volume((6, 24, 24)))
    fixed = Candidate("admm_tv", {"lam": 0.02, "steps": 10}, fixed=("lam", "steps"))
    tuning = tune(y, CT, Choice((fixed,), QUICK), lambda _: None, **KEYS)
    assert {trial.settings["lam"] for trial in tuning.trials} == {0.02}
    assert len({trial.settings["rho"] for trial in tuning.trials}) > 1


def test_the_budget_is_kept_and_shared() -> None:
    y = CT(0.02 * smooth_volume((6, 24, 24)))
    candidates = (Candidate("admm_tv", {"steps": 5}), Candidate("sirt", {"steps": 40}))
    tuning = tune(y, CT, Choice(candidates, Budget(evaluations=9)), lambda _: None, **KEYS)
    assert len(tuning.trials) == 9
    counts = [sum(trial.candidate == k for trial in tuning.trials) for k in range(2)]
    assert min(counts) >= 4
    tuning = tune(y, CT, Choice(candidates, Budget(evaluations=9, minutes=1e-9)), lambda _: None, **KEYS)
    assert len(tuning.trials) == 2  # as they are


def test_trials_that_were_made_are_not_made_again() -> None:
    y = CT(0.02 * smooth_volume((6, 24, 24)))
    choice = Choice((Candidate("admm_tv", {"steps": 5}),), Budget(evaluations=7))
    told: list[Trial] = []
    whole = tune(y, CT, choice, lambda _: None, report=told.append, **KEYS)
    assert tuple(told) == whole.trials
    plain = json.loads(to_json([asdict(trial) for trial in whole.trials[:4]]))
    told.clear()
    again = tune(
        y, CT, choice, lambda _: None, known=[Trial.read(trial) for trial in plain], report=told.append, **KEYS
    )
    assert len(told) == 3
    assert [trial.settings for trial in again.trials] == [trial.settings for trial in whole.trials]
    assert again.chosen.missed == whole.chosen.missed


def test_the_unit_is_that_of_the_whole_and_not_of_the_slices_that_are_tried() -> None:
    """A volume that is bright at both ends, of MRI, whose unit is the measurement's."""
    seen: list[float] = []

    @as_method(modalities=("mri",))
    def watching(p: Problem) -> Tensor:
        """Notes how bright the measurement is to the prior."""
        seen.append(float(p.measured.abs().max()))
        return p.operator.adjoint(p.y)

    x = smooth_volume((20, 24, 24)).to(torch.complex64)
    x[0] = x[-1] = 3 * x[10]
    operator = FourierSampling(make_mask("gaussian1d", (24, 24), 2))
    y = operator(x)
    tune(y, operator, Choice((Candidate(watching),), Budget(), search=False), lambda _: None, modality="mri")
    within, folds = seen[0], len(seen)
    run_method(y[8:13], operator, None, watching)
    assert folds >= 2
    assert seen[-1] > 2 * within


def test_slices_that_are_tried_lie_in_the_middle_of_what_was_measured() -> None:
    depths: list[int] = []

    @as_method()
    def watching(p: Problem) -> Tensor:
        """Notes how many slices there are."""
        depths.append(len(p.y))
        return p.physical.adjoint(p.measured)

    x = torch.zeros(30, 24, 24)
    x[12:18] = 0.02
    tuning = tune(CT(x), CT, Choice((Candidate(watching),), Budget(slices=4), search=False), lambda _: None, **KEYS)
    assert set(depths) == {4}
    assert math.isfinite(tuning.chosen.error)  # not of air


def test_weights_and_coils_are_held_out_alike() -> None:
    operator = MultiCoilFourier(make_mask("gaussian1d", (24, 24), 2), loop_coil_maps(6, 24))
    x = smooth_volume((6, 24, 24)).to(torch.complex64)
    y = complex_gaussian(operator(x), 70.0, torch.Generator().manual_seed(0))
    candidates = (
        Candidate("sense", {"lam": 1.0}),
        Candidate("sense", {"lam": 1e-3}),
        Candidate("admm_tv", {"steps": 9}),
    )
    tuning = tune(y, operator, Choice(candidates, Budget(), search=False), lambda _: None, modality="mri")
    assert tuning.chosen.candidate != 0
    weights = torch.ones(6, *CT.range_shape)
    weights[:, ::3] = 0.1
    scores = [
        tune(CT(drawn(0)), CT, Choice((Candidate("admm_tv", {"steps": 9}),), Budget(), search=False), lambda _: None,
             weights=w, **KEYS).chosen.error
        for w in (weights, None)
    ]  # fmt: skip
    assert scores[0] != pytest.approx(scores[1])


def test_what_diverges_is_never_taken() -> None:
    @as_method()
    def diverging(p: Problem) -> Tensor:
        """Is wrong."""
        return p.physical.adjoint(p.measured) * math.nan

    tv = Candidate("admm_tv", {"steps": 5})
    tuning = tune(CT(drawn(0)), CT, Choice((Candidate(diverging), tv), Budget(evaluations=4)), lambda _: None, **KEYS)
    assert tuning.candidate.method == "admm_tv"
    with pytest.raises(InputError, match="can reconstruct part of this measurement"):
        tune(CT(drawn(0)), CT, Choice((Candidate(diverging),), QUICK), lambda _: None, **KEYS)


def test_what_is_told() -> None:
    y = CT(drawn(2))
    tv = Candidate("admm_tv", {"steps": 5})
    tuning = chosen(y, (Candidate("dds", DDS, "right"), tv), search=True)
    first, second = tuning.lines
    assert first.startswith("chosen: dds with prior right, ")
    assert "views held out" in second and "against admm_tv 0." in second
    data = json.loads(to_json(tuning.data))
    assert data["chosen"]["method"] == "dds"
    assert data["held_out"]["what"] == "views"
    assert len(data["trials"]) == len(tuning.trials)
    assert "same" not in tuning.blind
    assert len(choice_figure(tuning, "v").axes) >= 2


def test_what_is_told_of_a_method_that_was_given() -> None:
    """Nothing was chosen, and its error need not be the least."""
    y, tv = CT(drawn(2)), Candidate("admm_tv", {"steps": 5}, reference=True)
    for name, better in (("right", True), ("wrong", False)):
        tuning = chosen(y, (Candidate("dds", DDS, name), tv))
        first, second = tuning.lines
        assert first == f"given: dds with prior {name}, options as they were"
        assert second.startswith("its error on ") and "against admm_tv 0." in second
        assert (tuning.warning("of the run") is None) == better


@pytest.mark.parametrize("title", ["v", "the_second_measurement_of_a_patient_with_a_long_name"])
def test_the_title_of_the_figure_ends_within_it(title: str) -> None:
    tuning = chosen(CT(drawn(2)), (Candidate("admm_tv", {"steps": 5}),))
    figure = choice_figure(tuning, title)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.draw(renderer)
    (told,) = figure.texts
    box = told.get_window_extent(renderer)
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and "(lower is" in told.get_text()


def test_a_wedge_that_was_not_measured_cannot_be_judged() -> None:
    arc = ParallelBeam(24, [i * 3.0 for i in range(20)], pixel_size=6.0)
    candidates = (Candidate("admm_tv", {"steps": 3}), Candidate("sirt", {"steps": 9}))
    tuning = tune(arc(drawn(0)), arc, Choice(candidates, QUICK), lambda _: None, **KEYS)
    assert tuning.blind.startswith("what lies in the directions that were not measured")
    assert "leave a wedge out" in tuning.lines[0]
    assert len(tuning.trials) == 2  # compared, but not searched
    insisted = tune(arc(drawn(0)), arc, Choice(candidates, QUICK, insists=True), lambda _: None, **KEYS)
    assert len(insisted.trials) == QUICK.evaluations


def test_in_one_call() -> None:
    x = 0.02 * smooth_volume((6, 24, 24))
    y = CT(x)
    plain = reconstruct(y, CT, method="admm_tv", steps=20, lam=0.03)
    assert plain.tuning is None
    tuned = reconstruct(y, CT, method="admm_tv", steps=20, tune=Budget(evaluations=12))
    assert tuned.tuning is not None
    assert tuned.tuning.candidate.settings["steps"] == 20
    assert (tuned.volume - x).norm() < (plain.volume - x).norm()
    best = reconstruct(y, CT, prior(2), method="auto", tune=Budget(evaluations=6))
    assert best.tuning is not None
    assert best.tuning.candidate.name in ("admm_tv", "dds with prior generic")  # and not the prior that is wrong


@pytest.mark.parametrize(
    ("budget", "words"),
    [({"evaluations": 0}, "--tune_evaluations 0"), ({"minutes": 0.0}, "--tune_minutes 0")],
)
def test_a_budget_of_nothing_is_refused(budget: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Budget(**budget)


def test_a_budget_for_less_than_the_candidates_is_refused() -> None:
    with pytest.raises(InputError, match="dds, admm_tv take one each; give 2 or more"):
        Choice((Candidate("dds"), Candidate("admm_tv")), Budget(evaluations=1))


def test_every_option_that_is_searched_is_an_option() -> None:
    for name in METHODS:
        for option in METHODS[name].signature.values():
            search = option.search
            if search is not None and option.plain is not bool:
                assert 0 <= search.least < search.most
                assert search.linear or search.least > 0
