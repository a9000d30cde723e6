"""The supervised baseline: pairs, training, files, and what is refused."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import nibabel as nib
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from lightning_mbir.cli import main
from lightning_mbir.data.units import CT_SCALE
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.methods.fbp_unet import CorrectionUNet, FBPUNet, direct_inversion, geometry_of, read_unet
from lightning_mbir.methods.units import mri_scale
from lightning_mbir.physics import CartesianFourier3D, FanBeam, FourierSampling, ParallelBeam, RealDomain, make_mask
from lightning_mbir.prior import save_prior
from lightning_mbir.prior.networks.build import build_network
from lightning_mbir.reconstruction import TASKS, ReconstructionModule, reconstruct
from lightning_mbir.reconstruction.unet_training import FBPUNetModule, PairDataModule
from tests.helpers import demo, smooth_volume, unet_file

TINY: dict[str, Any] = {"channels": [8, 16], "attention": False}
N = 32


def scans(folder: Path, patients: int = 2) -> Path:
    """A folder of small CT volumes of soft tissue with bones: random boxes, another set for each patient."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(patients):
        rng = np.random.default_rng(number)
        hu = np.full((N, N, 6), -1000, np.int16)
        hu[4:28, 6:26] = 40
        for _ in range(5):
            x, y = rng.integers(6, 22, 2)
            hu[x : x + 4, y : y + 3] = rng.integers(-800, 900)
        nib.save(nib.Nifti1Image(hu, np.diag([2.5, 2.5, 4.0, 1.0])), folder / f"p{number}_chest.nii.gz")
    return folder


def module(**options: Any) -> FBPUNetModule:
    return FBPUNetModule(**{"network_options": TINY, "warmup_steps": 1, "views": 6, **options})


def data(folder: Path, **options: Any) -> PairDataModule:
    return PairDataModule(folder, image_size=N, batch_size=4, variants=2, slices_per_epoch=16, **options)


def fit(
    folder: Path, pairs: PairDataModule, steps: int, *callbacks: L.Callback, resume: Path | None = None, **options: Any
) -> FBPUNetModule:
    trained = module(**options)
    checkpoint = L.pytorch.callbacks.ModelCheckpoint(folder, "best-{step}", monitor="val/loss")
    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, callbacks=[checkpoint, *callbacks], default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, gradient_clip_val=1.0,
    )  # fmt: skip
    trainer.fit(trained, pairs, ckpt_path=None if resume is None else str(resume), weights_only=True)
    return trained


def volume(truth: Tensor, spacing: float = 2.0) -> Volume:
    modality = "ct" if float(truth.max()) < 1 else "mri"
    return Volume(truth, np.diag([spacing, spacing, 3.0, 1.0]), "v", modality)  # type: ignore[arg-type]


def test_pairs_are_what_reconstruct_sees() -> None:
    """CT: FBP at the true pixel size and the truth over 0.0384 1/mm. MRI: both over the scale of the measurement."""
    truth = smooth_volume(scale=0.02)
    pairs = module().pairs(volume(truth)).float()
    operator = TASKS["sv_ct"].build_operator(N, 2.0, views=6)
    torch.testing.assert_close(pairs[:, 1, 0], truth / CT_SCALE, rtol=1e-3, atol=1e-3)
    direct = direct_inversion(operator(truth), operator)
    torch.testing.assert_close(pairs[:, 0, 0], direct / CT_SCALE, rtol=1e-3, atol=1e-3)

    truth = smooth_volume(scale=300.0)
    for phase in (False, True):
        pairs = module(task="cs_mri", views=None, acc=2.0, phase=phase, seed=3).pairs(volume(truth)).float()
        assert pairs.shape == (12, 2, 1 + phase, N, N)
        sampling = TASKS["cs_mri"].build_operator(N, acc=2.0, seed=3, complex=phase)
        target = torch.complex(pairs[:, 1, 0], pairs[:, 1, 1]) if phase else pairs[:, 1, 0]
        y = sampling(target)
        scale = mri_scale(y, sampling)
        assert scale == pytest.approx(1, abs=0.01)  # what is 1 is estimated from the measurement
        found = torch.complex(pairs[:, 0, 0], pairs[:, 0, 1]) if phase else pairs[:, 0, 0]
        torch.testing.assert_close(found, direct_inversion(y, sampling), rtol=0, atol=2e-3)


def test_variants_are_varied_before_they_are_measured() -> None:
    """The direct inversion of a variant is that of its own truth: limited-angle streaks do not turn with the object."""
    trained = module(task="la_ct", views=30)
    truth = smooth_volume(scale=0.02)
    truth[:, 4:9, 3:20] = 0.03
    pairs = trained.pairs(volume(truth), variant=3).float()
    assert torch.equal(pairs.half(), trained.pairs(volume(truth), variant=3))
    operator = TASKS["la_ct"].build_operator(N, 2.0, views=30)
    expected = direct_inversion(operator(pairs[:, 1, 0]), operator)
    assert float((pairs[:, 1, 0] - truth / CT_SCALE).abs().max()) > 0.1
    torch.testing.assert_close(pairs[:, 0, 0], expected, rtol=0, atol=5e-3)


def test_long_volumes_are_spread_over_their_variants() -> None:
    """100 slices make three variants of every third slice, each starting at another one."""
    truth = torch.linspace(0.01, 0.02, 100)[:, None, None] * torch.ones(100, N, N)
    pairs = module().pairs(volume(truth)).float()
    assert len(pairs) == 34
    torch.testing.assert_close(pairs[:, 1, 0, 0, 0] * CT_SCALE, truth[::3, 0, 0], rtol=1e-3, atol=0)
    assert [len(module().pairs(volume(truth), variant)) for variant in (1, 2, 3)] == [33, 33, 34]
    middle = module().pairs(volume(truth), 2)[:, 1, 0, N // 2, N // 2].float() * CT_SCALE
    torch.testing.assert_close(middle, truth[2::3, 0, 0], rtol=2e-2, atol=0)


def test_a_network_starts_at_the_direct_inversion() -> None:
    x = torch.randn(2, 1, N, N)
    torch.testing.assert_close(CorrectionUNet(**TINY)(x), x)


def test_training_lowers_the_loss_and_the_file_does_what_was_trained(tmp_path: Path) -> None:
    pairs = data(scans(tmp_path / "scans"), held_out="p1")
    fit(tmp_path / "out", pairs, 60, learning_rate=3e-3)
    unet = read_unet(tmp_path / "out" / "unet.safetensors")
    assert unet.config["task"] == "sv_ct" and unet.config["settings"] == {"views": 6, "angle_range": 180.0}
    assert unet.config["seed"] == 0 and unet.config["geometry"]["image_size"] == N
    (best,) = (tmp_path / "out").glob("best-*.ckpt")
    state = torch.load(best, weights_only=True)["state_dict"]
    assert all(torch.equal(state[f"network.{key}"], value) for key, value in unet.network.state_dict().items())
    # The file has the best weights by held-out loss; held-out slices come out better than they went in.
    direct, truth = (torch.stack([pair for pair, _ in pairs._validation]).float()[:, i, 0] for i in (0, 1))
    before, after = ((x - truth).square().mean() for x in (direct, unet(direct)))
    assert float(after) < 0.5 * float(before)
    torch.testing.assert_close(unet(direct, slice_batch=1), unet(direct, slice_batch=5), rtol=1e-4, atol=1e-5)

    operator = TASKS["sv_ct"].build_operator(N, 2.5, views=6)
    physical = truth * CT_SCALE
    y = operator(physical)
    results = [reconstruct(y, operator, method="fbp_unet", network=unet.path, slice_batch=n).volume for n in (1, 8)]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)
    error = float((results[0] - physical).square().mean()) / CT_SCALE**2
    assert error == pytest.approx(float(after), rel=0.05)


class SaveAt(L.pytorch.callbacks.Callback):
    """Leaves a checkpoint in the middle of a training."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def test_the_last_step_is_validated_within_an_epoch_too(tmp_path: Path) -> None:
    fit(tmp_path / "out", data(scans(tmp_path / "scans")), 6, learning_rate=1e-4)  # an epoch is 4 steps
    assert [file.name for file in (tmp_path / "out").glob("best-*")] == ["best-step=6.ckpt"]


def test_a_training_that_diverges_says_so_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    class Break(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
            if trainer.global_step == 7:
                with torch.no_grad():
                    next(pl_module.parameters()).fill_(float("nan"))

    last = L.pytorch.callbacks.ModelCheckpoint(tmp_path / "out", "last", enable_version_counter=False)
    with pytest.raises(InputError, match=r"diverged at step 8.*learning_rate"):
        fit(tmp_path / "out", data(scans(tmp_path / "scans")), 12, Break(), last)
    assert torch.load(tmp_path / "out/last.ckpt", weights_only=True)["global_step"] == 4


def test_a_resumed_training_is_an_unbroken_one(tmp_path: Path) -> None:
    folder, half = scans(tmp_path / "scans"), tmp_path / "half.ckpt"
    whole = fit(tmp_path / "whole", data(folder), 8, SaveAt(4, half)).state_dict()
    rest = fit(tmp_path / "rest", data(folder), 8, resume=half).state_dict()
    assert torch.load(half, weights_only=True)["global_step"] == 4
    assert all(torch.equal(rest[name], value) for name, value in whole.items())
    with pytest.raises(InputError, match=r"'views': 6.*not for.*'views': 7"):
        fit(tmp_path / "other", data(folder), 8, resume=half, views=7)


def test_more_steps_than_before_are_taken_at_the_rates_of_the_longer_schedule(tmp_path: Path) -> None:
    class Rates(L.Callback):
        def on_before_optimizer_step(self, trainer: L.Trainer, *_: Any) -> None:
            seen[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    folder, last = scans(tmp_path / "scans"), tmp_path / "last.ckpt"
    seen: dict[int, float] = {}
    fit(tmp_path / "short", data(folder), 4, SaveAt(4, last))
    fit(tmp_path / "more", data(folder), 8, Rates(), resume=last, learning_rate=2e-3)
    assert seen == pytest.approx({step: 1e-3 * (1 + np.cos(np.pi * step / 8)) for step in range(4, 8)})


def test_other_geometries_are_refused_by_name(tmp_path: Path) -> None:
    operator = TASKS["sv_ct"].build_operator(N, 2.0, views=6)
    path = unet_file(tmp_path, operator, settings={"views": 6})
    unet = read_unet(path)
    unet.check_geometry(TASKS["sv_ct"].build_operator(N, 3.5, views=6))  # the pixel size is no matter
    truth = smooth_volume(scale=0.02)
    others: list[tuple[Any, str]] = [
        (TASKS["sv_ct"].build_operator(N, views=8), "8 views"),
        (TASKS["sv_ct"].build_operator(N, views=6, angle_range=90), "from 0 to 75 degrees"),
        (TASKS["sv_ct"].build_operator(16, views=6), "16 x 16"),
        (ParallelBeam(N, [i * 30.0 for i in range(6)], n_detectors=40), "40 bins"),
        (RealDomain(FourierSampling(make_mask("uniform1d", (N, N), 2))), "mask"),
    ]
    for other, words in others:
        y = other(truth[:, : other.domain_shape[0], : other.domain_shape[1]])
        with pytest.raises(InputError, match=words) as caught:
            reconstruct(y, other, method="fbp_unet", network=path)
        assert str(path) in str(caught.value) and "6 views from 0 to 150 degrees" in str(caught.value)
    for foreign in (
        FanBeam(N, [0.0, 40.0], source_distance=80.0, detector_distance=40.0),
        CartesianFourier3D(torch.ones(4, N), (4, N, N)),
    ):
        with pytest.raises(InputError, match="fbp_unet is for ParallelBeam and Cartesian k-space"):
            unet.check_geometry(foreign)
    masks = [TASKS["cs_mri"].build_operator(N, acc=4.0, seed=seed) for seed in (0, 0, 1)]
    same, again, other = (geometry_of(mask) for mask in masks)
    assert same == again and same != other
    assert same != geometry_of(TASKS["cs_mri"].build_operator(N, acc=4.0, seed=0, complex=True))
    coils = [TASKS["cs_mri"].build_operator(N, acc=4.0, seed=0, coils=count) for count in (4, 4, 5)]
    same, again, other = (geometry_of(one) for one in coils)
    assert same == again and same != other


def damaged(folder: Path, good: Path) -> dict[str, str]:
    """Files by name, and what is said of them."""
    content = good.read_bytes()
    (folder / "cut").write_bytes(content[: len(content) // 2])
    (folder / "text").write_text("no network")
    save_prior(folder / "prior.safetensors", build_network("light", TINY), {
        "network": "light", "network_options": TINY, "modality": "ct",
    })  # fmt: skip
    tensors = safetensors.torch.load_file(good)
    with safetensors.safe_open(good, framework="pt") as file:
        metadata = file.metadata()
    checksum = metadata.pop("sum")
    config = json.loads(metadata["config"])
    wider = {**metadata, "config": json.dumps({**config, "network_options": {"channels": [16, 16]}})}
    lacking = {**metadata, "config": json.dumps({k: v for k, v in config.items() if k != "geometry"})}
    safetensors.torch.save_file(tensors, folder / "wider", wider)
    safetensors.torch.save_file(tensors, folder / "lacking", lacking)
    safetensors.torch.save_file({k: v * float("nan") for k, v in tensors.items()}, folder / "nan", metadata)
    safetensors.torch.save_file(tensors, folder / "other", {**lacking, "sum": checksum})
    return {
        "cut": "not a whole safetensors file",
        "other": "damaged, its checksum is another",
        "text": "not a whole safetensors file",
        "prior.safetensors": "its format is lightning_mbir.prior.1",
        "wider": "damaged, or of another version",
        "lacking": "lacks geometry",
        "nan": "NaN",
        "gone": "no such file",
    }


def test_damaged_and_other_files_are_refused(tmp_path: Path) -> None:
    good = unet_file(tmp_path, TASKS["sv_ct"].build_operator(N, views=6))
    assert isinstance(read_unet(good), FBPUNet)
    for name, words in damaged(tmp_path, good).items():
        with pytest.raises(InputError, match=words) as caught:
            read_unet(tmp_path / name)
        assert name in str(caught.value)


def test_predict_looks_at_the_network_before_the_work(tmp_path: Path) -> None:
    path = unet_file(tmp_path, TASKS["sv_ct"].build_operator(N, views=6))
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    out = tmp_path / "out"
    wrong = ReconstructionModule("sv_ct", "fbp_unet", views=8, network=path, output_dir=out)
    with pytest.raises(InputError, match=r"6 views .* 8 views"):
        trainer.predict(wrong, demo("ct"))
    assert not list(out.rglob("*.*"))
    (tmp_path / "text").write_text("no network")
    with pytest.raises(InputError, match="safetensors"):
        ReconstructionModule("sv_ct", "fbp_unet", network=tmp_path / "text", output_dir=out)
    right = ReconstructionModule("sv_ct", "fbp_unet", views=6, network=path, output_dir=out)
    trainer.predict(right, demo("ct"), return_predictions=False)
    assert json.loads(next(out.rglob("metrics.json")).read_text())["nfe"] == 1


def test_the_command_line_trains_and_uses_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = str(scans(tmp_path / "scans"))
    scans(tmp_path / "alone", patients=1)
    (tmp_path / "empty").mkdir()
    train = [
        "fit_unet",
        "--views",
        "6",
        "--data.image_size",
        "32",
        "--data.variants",
        "1",
        "--trainer.accelerator",
        "cpu",
    ]
    train += ["--model.network_options", json.dumps(TINY), "--trainer.precision", "32-true", "--steps", "4"]
    given = [*train, "--data.path", folder]
    errors = {
        "holds no volume": [*train, "--data.path", "empty"],
        "one patient only": [*train, "--data.path", "alone"],
        "--data.path: give a folder": train,
        "no such patient": [*given, "--data.held_out", "p7"],
        "not for task cs_mri": [*given, "--task", "cs_mri"],
        "--views 0": [*given, "--views", "0"],
        "did you mean --views": [*given, "--view", "8"],
        "multiples of 4": [*given, "--data.image_size", "30"],
        "no such file": [*given, "--ckpt_path", "gone.ckpt"],
        "give --network FILE": ["predict", "--task", "sv_ct", "--method", "fbp_unet"],
        "--network gone: no such file": ["predict", "--task", "sv_ct", "--method", "fbp_unet", "--network", "gone"],
    }
    for words, args in errors.items():
        assert main(args) == 2, words
        lines = capfd.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and words in lines[0], lines
    assert not list(Path("outputs").rglob("*.*"))

    assert main([*given, "--output_dir", "unet"]) == 0
    shown = capfd.readouterr()
    assert "step 4/4" in shown.err and "unet/unet.safetensors" in shown.out
    assert list(Path("unet").rglob("events.out*")) and list(Path("unet").rglob("config.yaml"))
    (last,) = Path("unet").rglob("last.ckpt")
    assert main([*given, "--steps", "6", "--output_dir", "more", "--ckpt_path", str(last)]) == 0
    assert torch.load(next(Path("more").rglob("last.ckpt")), weights_only=True)["global_step"] == 6
    assert "BestCheckpoint" in next(Path("more").rglob("config.yaml")).read_text()
    predict = ["predict", "--task", "sv_ct", "--method", "fbp_unet", "--network", "more/unet.safetensors"]
    predict += ["--data.path", f"{folder}/p1_chest.nii.gz", "--data.image_size", "32", "--output_dir", "out"]
    assert main([*predict, "--views", "6"]) == 0
    assert next(Path("out").rglob("recon.nii.gz")).is_file()
    assert main([*predict, "--views", "8"]) == 2
    assert "8 views" in capfd.readouterr().err.splitlines()[-1]
