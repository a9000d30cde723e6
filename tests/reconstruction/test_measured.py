"""Measurements that were really made: parts of them, their unit, and what becomes of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.measurements.measurement import Measurement, read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.volumes.volume import mu_to_hu
from lightning_mbir.errors import InputError
from lightning_mbir.methods.units import estimated_scale
from lightning_mbir.physics import MultiCoilFourier, ParallelBeam, loop_coil_maps, make_mask
from lightning_mbir.reconstruction import TASKS, ReconstructionModule, reconstruct
from lightning_mbir.reconstruction.case import measured
from lightning_mbir.reconstruction.job import UNMEASURED, UNPLACED
from lightning_mbir.reconstruction.measured import measured_operator, part_of
from tests.helpers import gaussian_prior, smooth_volume
from tests.reconstruction.test_module import predict, trainer

GEOMETRY = {"image_size": 32, "angles": [3.0 * i + 10 for i in range(60)], "n_detectors": 46}


def scan(calibrated: bool = True) -> Measurement:
    y = ParallelBeam(**GEOMETRY)(smooth_volume(scale=0.02))
    return Measurement(y, {"beam": "parallel", **GEOMETRY}, np.eye(4), "scan", "ct", calibrated)


def test_fewer_views_are_spread_evenly_over_those_that_were_measured() -> None:
    whole = scan()
    part = part_of(whole, views=12)
    assert part.geometry["angles"] == [15.0 * i + 10 for i in range(12)]
    torch.testing.assert_close(part.y, whole.y[:, ::5])
    assert part.notes == ("12 of 60 views",) and part_of(whole) is whole
    half = part_of(whole, angle_range=90.0)
    assert half.geometry["angles"] == GEOMETRY["angles"][:30]
    both = part_of(whole, angle_range=90.0, views=10)
    assert both.geometry["angles"] == GEOMETRY["angles"][:30:3]
    for flags in ({"views": 61}, {"views": 31, "angle_range": 90.0}):
        with pytest.raises(InputError, match=r"--views .*: scan has"):
            part_of(whole, **flags)


def test_parts_are_those_of_the_angles_not_of_their_order() -> None:
    """Past 360 and shuffled: the same views as of the scan in order."""
    whole = scan()
    angles = np.array(GEOMETRY["angles"]) + 250  # to 437
    order = np.random.default_rng(0).permutation(60)
    wrapped = replace(whole, geometry={**whole.geometry, "angles": (angles % 360).tolist()})
    shuffled = replace(
        whole, y=whole.y[:, order], geometry={**whole.geometry, "angles": (angles % 360)[order].tolist()}
    )
    for flags, views in (({"views": 12}, range(0, 60, 5)), ({"angle_range": 90.0, "views": 10}, range(0, 30, 3))):
        for one in (wrapped, shuffled):
            part = part_of(one, **flags)
            sort = np.argsort((np.array(part.geometry["angles"]) - 260) % 360)
            np.testing.assert_allclose((np.array(part.geometry["angles"])[sort] - 260) % 360, 3.0 * np.array(views))
            torch.testing.assert_close(part.y[:, sort], whole.y[:, list(views)])


def test_views_of_a_full_turn_are_spread_by_what_they_see() -> None:
    """Of a parallel beam no two are mirror images; of a fan they go all around."""
    angles = [float(k) for k in range(360)]
    y = torch.arange(360.0).expand(2, 360)[..., None].expand(2, 360, 46)
    parallel = Measurement(y, {"beam": "parallel", "angles": angles}, np.eye(4), "scan", "ct")
    part = part_of(parallel, views=36)
    np.testing.assert_array_equal(np.sort(np.array(part.geometry["angles"]) % 180), np.arange(0, 180, 5))
    np.testing.assert_array_equal(part.y[0, :, 0], part.geometry["angles"])
    part = part_of(replace(parallel, geometry={"beam": "fan", "angles": angles}), views=36)
    np.testing.assert_array_equal(part.geometry["angles"], np.arange(0, 360, 10))


def test_slices_of_a_measurement_are_reconstructed_as_they_are_in_the_whole(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", measurement=scan().y.numpy(), **GEOMETRY, pixel_size=1.0)
    volumes = []
    for slices in (None, "2:4"):
        data = VolumeDataModule(measurement=tmp_path / "scan.npz", modality="ct", slices=slices)
        out = tmp_path / f"{slices}".replace(":", "_")
        predict(ReconstructionModule(task="sv_ct", method="fbp", output_dir=out), data, tmp_path)
        volumes.append(nib.load(out / "sv_ct/scan/recon.nii.gz"))
    whole, part = volumes
    np.testing.assert_allclose(part.get_fdata(), whole.get_fdata()[..., 2:4], atol=0.1)  # type: ignore[attr-defined]
    places = [volume.header.get_sform() for volume in volumes]  # type: ignore[attr-defined]
    np.testing.assert_allclose(places[1] @ [0, 0, 0, 1], places[0] @ [0, 0, 2, 1])


def test_k_space_is_undersampled_once() -> None:
    y = torch.randn(2, 3, 16, 32, dtype=torch.complex64)
    whole = Measurement(y, {"mask": torch.ones(16, 32)}, np.eye(4), "raw", "mri")
    part = part_of(whole, seed=5, acc=4.0, mask="uniform1d")
    mask = make_mask("uniform1d", (16, 32), 4, seed=5)
    torch.testing.assert_close(part.geometry["mask"], mask)
    torch.testing.assert_close(part.y, y * mask)
    with pytest.raises(InputError, match="--acc: raw is undersampled 4-fold already"):
        part_of(part, acc=8.0)
    margins = torch.ones(16, 32)  # as scanners pad: what was never measured
    margins[:, :3] = margins[:, 30:] = 0
    side = torch.ones(16, 32)  # partial Fourier, mirrored: the first frequency is its own mirror image
    side[:, 1:10] = 0
    for padded in (margins, side):
        whole = Measurement(y * padded, {"mask": padded}, np.eye(4), "raw", "mri")
        part = part_of(whole, seed=5, acc=4.0, mask="uniform1d")
        torch.testing.assert_close(part.geometry["mask"], mask * padded)
        torch.testing.assert_close(part.y, y * mask * padded)
        whole.geometry["partial_fourier"] = "pocs"
        with pytest.raises(InputError, match=r"partial_fourier pocs: .*undersampled within .* leave it at zero"):
            part_of(whole, seed=5, acc=4.0, mask="uniform1d")


def test_the_unit_of_projections_without_a_length_is_estimated() -> None:
    """Whatever the length of a bin, the volume comes out in proportion to it, and as with the right unit."""
    operator, y = ParallelBeam(**GEOMETRY), scan().y
    scale = estimated_scale(y, operator)
    assert scale == pytest.approx(0.02 * 0.95, rel=0.1)  # the volume's peak is 0.02
    prior = gaussian_prior("ct")
    volumes = [
        reconstruct(y * f, operator, prior, "dds", steps=5, calibrated=False).volume / f for f in (1.0, 1e-3, 30.0)
    ]
    for volume in volumes[1:]:
        torch.testing.assert_close(volume, volumes[0], rtol=1e-3, atol=1e-6)
    with pytest.raises(InputError, match="the measurement is zero"):
        reconstruct(torch.zeros_like(y), operator, prior, "dds", steps=5, calibrated=False)


@pytest.mark.usefixtures("bundled")
def test_a_scan_without_a_length_is_written_as_attenuation(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", measurement=scan().y.numpy(), **GEOMETRY, pixel_size=1.0)
    data = VolumeDataModule(measurement=tmp_path / "scan.npz", modality="ct")
    data._measurement = replace(data._measurement, calibrated=False)
    predict(ReconstructionModule(task="sv_ct", method="admm_tv", views=20, output_dir=tmp_path), data, tmp_path)
    folder = tmp_path / "sv_ct/scan"
    back = nib.load(folder / "recon.nii.gz").get_fdata().transpose(2, 1, 0)  # type: ignore[attr-defined]
    assert np.abs(back - smooth_volume(scale=0.02).numpy()).mean() < 0.001
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["settings"] == {"measured": ["20 of 60 views"], "views": 20}
    with pytest.raises(InputError, match="--views 61"):
        predict(ReconstructionModule(task="sv_ct", method="fbp", views=61, output_dir=tmp_path), data, tmp_path)


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize(("views", "told"), [(None, True), (20, True), (12, False)])
def test_options_of_many_views_are_those_of_a_scan_that_has_them(tmp_path: Path, views: int | None, told: bool) -> None:
    """Of all its views too, whose number no flag tells."""
    np.savez(tmp_path / "scan.npz", measurement=scan().y[:2].numpy(), **GEOMETRY, pixel_size=1.0)
    data = VolumeDataModule(measurement=tmp_path / "scan.npz", modality="ct")
    module = ReconstructionModule(
        task="sv_ct", method="dds", steps=1, views=views, tune=False, output_dir=tmp_path
    )  # fmt: skip
    predict(module, data, tmp_path)
    assert (TASKS["sv_ct"].many["dds"].items() <= module.plans[0].options.items()) == told


def coil_scan(folder: Path) -> tuple[Path, torch.Tensor]:
    """Fully sampled k-space of four coils, and the magnitude that their combination has."""
    magnitude = smooth_volume((3, 32, 32))
    axis = torch.linspace(-1, 1, 32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    corners = [(-1.2, -1.2), (-1.2, 1.2), (1.2, -1.2), (1.2, 1.2)]
    maps = torch.stack([torch.polar(torch.exp(-((y - a) ** 2 + (x - b) ** 2) / 4), a * y + b * x) for a, b in corners])
    kspace = MultiCoilFourier(torch.ones(32, 32), maps)(torch.polar(magnitude, 0.5 * y * x))
    np.savez(folder / "coils.npz", kspace=kspace.numpy())
    return folder / "coils.npz", magnitude * maps.abs().square().sum(0).sqrt()


def test_one_measured_coil_is_none_for_sense(tmp_path: Path) -> None:
    """Said before anything is written."""
    np.savez(tmp_path / "one.npz", kspace=np.ones((3, 32, 32), np.complex64))
    data = VolumeDataModule(measurement=tmp_path / "one.npz", modality="mri", axes="slice y x")
    module = ReconstructionModule(task="cs_mri", method="sense", output_dir=tmp_path / "out")
    with pytest.raises(InputError, match="--method sense needs k-space of several coils"):
        predict(module, data, tmp_path)
    assert not (tmp_path / "out" / "cs_mri").exists()


def test_measured_coils_are_combined_by_maps_that_are_estimated(tmp_path: Path) -> None:
    file, magnitude = coil_scan(tmp_path)
    for acc, error in ((None, 0.05), (2.0, 0.08)):  # some of it by options for noise, of which there is none here
        data = VolumeDataModule(measurement=file, modality="mri", axes="slice coil y x")
        module = ReconstructionModule(task="cs_mri", method="admm_tv", acc=acc, output_dir=tmp_path)
        predict(module, data, tmp_path)
        assert module.plans[0].options == TASKS["cs_mri"].tuned("admm_tv", noisy=True)  # what is measured has noise
        folder = tmp_path / "cs_mri/coils"
        back = nib.load(folder / "recon.nii.gz").get_fdata().transpose(2, 1, 0)  # type: ignore[attr-defined]
        assert np.linalg.norm(back - magnitude.numpy()) < error * np.linalg.norm(magnitude.numpy())
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["acceleration"] == (acc or 1)
    for flags, words in (({"phase": True}, "--phase"), ({"snr": 30.0}, "--snr")):
        module = ReconstructionModule(task="cs_mri", method="zero_filled", output_dir=tmp_path, **flags)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=words):
            predict(module, data, tmp_path)


def coil_file(folder: Path, **more: Any) -> tuple[Path, Tensor, Tensor]:
    """K-space of 6 coils, whose noise is nearly the same in all, in a file; the volume, and the covariance."""
    x, maps = smooth_volume((4, 64, 64)).to(torch.complex64), loop_coil_maps(6, 64)
    generator = torch.Generator().manual_seed(5)
    mix = torch.eye(6, dtype=torch.complex64) + 2 * torch.randn(6, 1, dtype=torch.complex64, generator=generator)
    noise = 0.02 * torch.randn(4, 6, 64, 64, dtype=torch.complex64, generator=generator)
    y = MultiCoilFourier(torch.ones(64, 64), maps)(x) + torch.einsum("dc,zcyx->zdyx", mix, noise)
    given = {"measurement": y.numpy(), "coil_maps": maps.numpy(), "mask": np.ones(64), **more}
    np.savez(folder / "coils.npz", **given)
    return folder / "coils.npz", x, 0.02**2 * mix @ mix.mH


def test_the_noise_of_coils_is_whitened_by_the_corners_of_k_space(tmp_path: Path) -> None:
    path, x, covariance = coil_file(tmp_path, noise_std=3.0)
    plain = read_measurement(path, "mri")
    asked = read_measurement(path, "mri", MeasurementOptions(whiten="corners"))
    white = part_of(asked, acc=2.0, mask="equispaced")
    assert white.noise_std == 0.5**0.5 and "6 coils whitened by its covariance, from the corners" in str(white.notes)
    whole = part_of(asked)
    left = (whole.y - measured_operator(whole)(x)).movedim(1, 0).flatten(1)
    identity = left @ left.mH / left.shape[1]
    torch.testing.assert_close(identity, torch.eye(6, dtype=torch.complex64), rtol=0, atol=0.15)
    assert float(covariance[0, 1].abs()) > 0.3 * float(covariance.diagonal().real.mean())  # far from white before
    errors = [
        float((reconstruct(part.y, measured_operator(part), method="sense", lam=0.0).volume - x).norm() / x.norm())
        for part in (white, part_of(plain, acc=2.0, mask="equispaced"))
    ]
    assert errors[0] < 0.3 * errors[1]  # 0.19 against 0.89
    case = measured(white)
    assert case.misfit(float((white.y - measured_operator(white)(x)).norm() / white.y.norm())) == pytest.approx(
        1, rel=0.1
    )


def test_whitening_that_cannot_be_is_refused(tmp_path: Path) -> None:
    options = MeasurementOptions(whiten="corners")
    with pytest.raises(InputError, match=r"--data.whiten is not done yet; take part_of\(measurement\) first"):
        measured_operator(read_measurement(coil_file(tmp_path)[0], "mri", options))
    padded = np.zeros((2, 3, 64, 64), complex)
    padded[..., 16:48, 16:48] = np.random.default_rng(0).standard_normal((2, 3, 32, 32))
    for name, kspace, words in (
        ("one", np.ones((2, 64, 64), complex), r"--data.whiten corners: one has one coil; leave it out"),
        (
            "padded",
            padded,
            r"padded: the corners of k-space have 0 samples for 3 coils; .* leave --data.whiten corners",
        ),
    ):
        np.savez(tmp_path / f"{name}.npz", measurement=kspace, mask=np.ones(64))
        with pytest.raises(InputError, match=words):
            part_of(read_measurement(tmp_path / f"{name}.npz", "mri", options))
    np.savez(tmp_path / "ct.npz", measurement=np.ones((2, 5, 30)), angles=np.arange(5.0), image_size=20, pixel_size=2.0)
    with pytest.raises(InputError, match=r"--data.whiten: is for k-space"):
        read_measurement(tmp_path / "ct.npz", "ct", options)


@pytest.mark.parametrize("known", [False, True])
def test_what_a_measurement_does_not_tell_its_results_do_not_claim(
    known: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither sides nor lengths; and volumes that are kept lie as they were reconstructed, not mirrored."""
    lengths: dict[str, Any] = {"pixel_size": 1.0, "spacing": [2.0, 1.0, 1.0]} if known else {"pixel_size": 1.0}
    np.savez(tmp_path / "scan.npz", measurement=scan().y.numpy(), **GEOMETRY, **lengths)
    data = VolumeDataModule(measurement=tmp_path / "scan.npz", modality="ct")
    module = ReconstructionModule(task="sv_ct", method="fbp", output_dir=tmp_path, keep_volumes=True)
    with caplog.at_level("INFO", "lightning_mbir"):
        (record,) = trainer(tmp_path).predict(module, datamodule=data)  # type: ignore[misc]
    image: Any = nib.load(record.files["recon.nii.gz"])
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (0, 0)
    assert image.header.get_xyzt_units()[0] == ("mm" if known else "unknown")
    np.testing.assert_allclose(image.header.get_sform(), data._measurement.affine)
    np.testing.assert_allclose(mu_to_hu(record.volume.data), image.get_fdata().transpose(2, 1, 0), atol=0.01)
    np.testing.assert_allclose(record.volume.affine, data._measurement.affine)
    assert not record.volume.sided and record.volume.sized == known
    for where in (caplog.text, record.files["report.html"].read_text()):
        assert UNPLACED in where and (UNMEASURED in where) != known
