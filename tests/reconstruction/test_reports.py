"""``report.html`` of predictions and comparisons: there unless it is left out, and with what was kept."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lightning_mbir.errors import InputError
from lightning_mbir.reconstruction import ReconstructionModule
from tests.helpers import demo, smooth_volume
from tests.reconstruction.test_module import predict, trainer

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("bundled", "quick_phantoms")]


@pytest.fixture
def quick_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lightning_mbir.data.volumes.datamodule.chest_phantom",
        lambda shape, seed: smooth_volume(shape, scale=0.02 + 1e-3 * (seed % 7)),
    )


def panels(path: Path) -> list[str]:
    found = re.search(r'id="data">(.*?)</script>', path.read_text())
    assert found
    return [panel["name"] for panel in json.loads(found[1])["panels"]]


def compare(folder: Path, methods: str, **flags: Any) -> Path:
    module = ReconstructionModule(task="sv_ct", methods=methods, output_dir=folder, **flags)
    trainer(folder).test(module, datamodule=demo("ct"), verbose=False)
    return folder / "sv_ct/comparison"


def test_a_prediction_has_a_page_with_its_numbers_and_where_it_comes_from(tmp_path: Path) -> None:
    module = ReconstructionModule(task="sv_ct", steps=2, samples=2, output_dir=tmp_path)
    module.config_yaml = "model:\n  task: sv_ct\n"
    predict(module, demo("ct"), tmp_path)
    folder = tmp_path / "sv_ct/demo_chest_0"
    metrics, text = json.loads((folder / "metrics.json").read_text()), (folder / "report.html").read_text()
    assert panels(folder / "report.html") == ["ground truth", "FBP", "dds", "error of dds", "deviation of samples"]
    assert "demo_chest_0: sv_ct, views 8, angle_range 180" in text and "dds, 2 steps, 2 samples, prior ct" in text
    assert metrics["input"]["sha256"] in text and metrics["key"] in text
    assert f'data-value="{metrics["axial"]["psnr"]!r}"' in text
    assert "predict --config predict_config.yaml" in text and "task: sv_ct" in text


def test_the_direct_inversion_is_there_once(tmp_path: Path) -> None:
    predict(ReconstructionModule(task="sv_ct", method="fbp", output_dir=tmp_path), demo("ct"), tmp_path)
    assert panels(tmp_path / "sv_ct/demo_chest_0/report.html") == ["ground truth", "fbp", "error of fbp"]


def test_it_can_be_left_out_and_that_is_said_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given: dict[str, Any] = {"task": "sv_ct", "method": "fbp", "output_dir": tmp_path}
    predict(ReconstructionModule(report=False, **given), demo("ct"), tmp_path)
    folder = tmp_path / "sv_ct/demo_chest_0"
    assert not (folder / "report.html").exists() and (folder / "montage.png").is_file()
    capsys.readouterr()
    predict(ReconstructionModule(**given), demo("ct"), tmp_path)
    assert "but has no report.html; --overwrite true does it again" in capsys.readouterr().out
    predict(ReconstructionModule(overwrite=True, **given), demo("ct"), tmp_path)
    assert (folder / "report.html").is_file()


def test_a_comparison_shows_all_methods_and_keeps_their_volumes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = compare(tmp_path, "fbp,cgls")
    path = folder / "report_demo_chest_0.html"
    assert panels(path) == ["ground truth", "fbp", "cgls"]
    assert len(list((folder / "rows").glob("*.nii.gz"))) == 2
    text = path.read_text()
    assert 'class="sortable"' in text and "test --config" not in text  # no command line has run it
    first = {line for line in text.splitlines() if 'id="v' in line}
    compare(tmp_path, "fbp,cgls")  # from what was kept, to the same volumes
    assert {line for line in path.read_text().splitlines() if 'id="v' in line} == first
    next((folder / "rows").glob("*cgls*.nii.gz")).unlink()
    compare(tmp_path, "fbp,cgls")
    assert panels(path) == ["ground truth", "fbp"]
    assert "cgls: scored before, without its volume" in caplog.text
    assert "Not shown, since scored before without their volumes: cgls." in path.read_text()
    next((folder / "rows").glob("*fbp*.nii.gz")).write_bytes(b"damaged")
    with pytest.raises(InputError, match="no volume of steps"):
        compare(tmp_path, "fbp,cgls")


def test_a_comparison_without_it_keeps_no_volumes(tmp_path: Path) -> None:
    folder = compare(tmp_path, "fbp", report=False)
    assert not list(folder.rglob("*.html")) and not list(folder.rglob("*.nii.gz"))
    assert (folder / "comparison_demo_chest_0.png").is_file()
