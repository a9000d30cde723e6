"""What `predict` and `test` make of the spread of samples: corrected, mapped, scored."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_mbir.cli import main
from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.errors import InputError
from lightning_mbir.methods.spread import Correction
from lightning_mbir.reconstruction import ReconstructionModule
from tests.helpers import demo, smooth_volume
from tests.methods.test_samples import array, run
from tests.reconstruction.test_comparison import compare
from tests.reconstruction.test_measured import GEOMETRY, scan
from tests.reconstruction.test_module import predict, trainer

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("bundled", "quick_phantoms")]


@pytest.fixture
def quick_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lightning_mbir.data.volumes.datamodule.chest_phantom", lambda shape, seed: smooth_volume(shape, scale=0.02)
    )


@pytest.fixture
def doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A factor of 2 for everything."""
    found = Correction(2.0, "times 2, found on somebody", {"patient": "somebody"})
    monkeypatch.setattr("lightning_mbir.reconstruction.spread.correction", lambda *_, **__: found)


def test_without_a_factor_the_spread_is_that_of_the_samples(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lightning_mbir")
    _, metrics = run(tmp_path, 3)
    assert metrics["spread"]["factor"] == 1 and metrics["spread"]["found_with"] is None
    told = "spread as the samples have it, which is no error bar"
    assert metrics["spread"]["why"].startswith(told) and told in caplog.text
    assert "of_the_samples" not in metrics["calibration"]


@pytest.mark.parametrize("task", ["cs_mri", "sv_ct"])
@pytest.mark.usefixtures("doubled")
def test_a_factor_goes_into_map_and_scores_and_can_be_taken_out(
    task: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lightning_mbir")
    folder, metrics = run(tmp_path, 3, task)
    assert "times 2, found on somebody" in caplog.text
    stack = np.stack([array(folder / f"samples/sample_{k:02d}.nii.gz") for k in range(3)])
    std = array(folder / "std.nii.gz")
    np.testing.assert_allclose(std / metrics["spread"]["factor"], stack.std(0, ddof=1), rtol=1e-3, atol=2e-3)
    assert metrics["spread"]["found_with"] == {"patient": "somebody"}
    known, raw = metrics["calibration"], metrics["calibration"]["of_the_samples"]
    assert raw["ratio"] == pytest.approx(2 * known["ratio"]) and raw["within_90"] <= known["within_90"]
    assert known["crps"] > 0 and raw["crps"] != known["crps"]


@pytest.mark.parametrize(("task", "amount"), [("cs_mri", 0.05), ("sv_ct", 50.0)])
def test_how_likely_a_voxel_is_off_is_mapped(task: str, amount: float, tmp_path: Path) -> None:
    folder, metrics = run(tmp_path, 3, task, off_by=amount)
    off, std = array(folder / "off_by.nii.gz"), array(folder / "std.nii.gz")
    assert off.shape == std.shape and off.min() >= 0 and off.max() <= 1
    order = np.argsort(std.ravel())
    assert (np.diff(off.ravel()[order]) >= -1e-6).all()  # the wider, the likelier
    known = metrics["off_by"]
    assert known["amount"] == amount and ("HU" in known["unit"]) == (task == "sv_ct")
    assert known["predicted"] == pytest.approx(off.mean(), rel=1e-4)
    recon = array(folder / "recon.nii.gz")
    truth = demo("ct" if task == "sv_ct" else "mri").scan(0).data
    if task == "cs_mri":
        wrong = np.abs(recon - truth.numpy()) > amount * magnitude_percentile(
            demo("mri").scan(0).data.new_tensor(recon)
        )
        assert known["observed"] == pytest.approx(wrong.mean(), abs=1e-3)
    assert "off_by.nii.gz" in metrics["files"]
    kept = (folder / "samples/running.npz").read_bytes()
    folder, again = run(tmp_path, 3, task, off_by=2 * amount)  # of the same samples
    assert again["off_by"]["predicted"] < known["predicted"]
    assert (folder / "samples/running.npz").read_bytes() == kept
    folder, none = run(tmp_path, 3, task)
    assert "off_by" not in none and not (folder / "off_by.nii.gz").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"task": "sv_ct", "off_by": 50.0}, "--off_by 50: how likely that is is told by samples; give --samples 8 too"),
        ({"task": "sv_ct", "off_by": 0.05, "samples": 2}, "--off_by 0.05: of CT give HU, 1 to 10000, such as 50"),
        ({"task": "cs_mri", "off_by": 50.0, "samples": 2}, "--off_by 50: of MRI give a share of the peak, above 0"),
        ({"task": "sv_ct", "off_by": float("nan"), "samples": 2}, "--off_by nan: of CT give HU"),
        ({"task": "cs_mri", "off_by": float("nan"), "samples": 2}, "--off_by nan: of MRI give a share"),
    ],
)
def test_amounts_that_are_none_are_refused(flags: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ReconstructionModule(output_dir=tmp_path / "out", **flags)
    assert words in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["-3", "0", "much", "nan"])
def test_amounts_of_the_command_line_are_refused_in_one_line(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--task", "sv_ct", "--samples", "4", f"--off_by={value}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"--off_by {value}: give a" in line


def test_what_test_does_not_write_is_refused_there(tmp_path: Path) -> None:
    module = ReconstructionModule(task="cs_mri", samples=2, steps=2, off_by=0.05, output_dir=tmp_path / "out")
    with pytest.raises(InputError, match=r"--off_by .*: of use to `predict` alone"):
        trainer(tmp_path).test(module, datamodule=demo("mri"), verbose=False)


def test_projections_without_lengths_have_no_hu(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", measurement=scan().y.numpy(), **GEOMETRY, pixel_size=1.0)
    data = VolumeDataModule(measurement=tmp_path / "scan.npz", modality="ct")
    data._measurement = replace(data._measurement, calibrated=False)  # type: ignore[type-var]
    out = tmp_path / "out"
    module = ReconstructionModule(task="sv_ct", method="dds", samples=2, steps=2, off_by=50.0, output_dir=out)
    with pytest.raises(InputError, match="--off_by 50: in HU, which lengths that are not in mm do not give"):
        predict(module, data, tmp_path)
    assert not (out / "sv_ct/scan").exists()


@pytest.mark.usefixtures("doubled")
def test_a_comparison_scores_the_spread_too(tmp_path: Path) -> None:
    options = {"dds": {"steps": 3}, "pula": {"steps": 3}}
    dds, pula, fbp = compare(tmp_path, "dds,pula,fbp", samples=3, method_options=options)
    for row in (dds, pula):
        assert {"ratio", "within_90", "crps", "of_the_samples"} <= set(row["calibration"])
        assert row["spread"]["factor"] == 2
    assert "calibration" not in fbp
    text = (tmp_path / "sv_ct/comparison/results.md").read_text()
    table = next(block.splitlines() for block in text.split("\n\n") if block.startswith("|"))
    head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    cells = [dict(zip(head, line, strict=True)) for line in lines]
    assert cells[0]["error / spread"] == f"{dds['calibration']['ratio']:.2f}" and cells[0]["spread times"] == "2"
    assert cells[1]["within 90 %"] == f"{pula['calibration']['within_90']:.3f}"
    assert cells[1]["CRPS"] == f"{pula['calibration']['crps']:.5f}" and cells[2]["CRPS"] == ""
    assert "error / spread is 1" in text
    assert json.loads((tmp_path / "sv_ct/comparison/results.json").read_text())[0]["calibration"] == dds["calibration"]


def test_test_scores_the_spread_of_one_method(tmp_path: Path) -> None:
    module = ReconstructionModule(task="cs_mri", samples=2, steps=2, output_dir=tmp_path)
    (scores,) = trainer(tmp_path).test(module, datamodule=demo("mri"), verbose=False)
    assert scores["cs_mri/calibration/ratio"] > 0 and 0 <= scores["cs_mri/calibration/within_90"] <= 1
