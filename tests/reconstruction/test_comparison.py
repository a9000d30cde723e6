"""The comparison of methods: what its rows say, that nothing is worked out twice, and its tables and figures."""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from torch import Tensor

from lightning_mbir.cli import main
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.errors import InputError
from lightning_mbir.files import write_whole
from lightning_mbir.methods.run import run_method as reconstruct
from lightning_mbir.physics import LinearOperator
from lightning_mbir.reconstruction import METHODS, TASKS, Reconstruction, ReconstructionModule, image_metrics
from lightning_mbir.reconstruction.comparison import scored
from lightning_mbir.reconstruction.provenance import file_sha256
from lightning_mbir.reconstruction.writer import write_figure
from lightning_mbir.report.figures import comparison_figure
from lightning_mbir.report.scale import Scale
from lightning_mbir.report.sheet import Place, middle_planes
from tests.helpers import demo, gaussian_prior, smooth_volume
from tests.reconstruction.test_module import trainer

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("bundled", "quick_phantoms")]

OPTIONS: dict[str, dict[str, Any]] = {"dds": {"steps": 3}, "admm_tv": {"steps": 4, "rho": 0.02}}
Calls = list[tuple[str, Tensor, Tensor]]


@pytest.fixture
def quick_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lightning_mbir.data.volumes.datamodule.chest_phantom",
        lambda shape, seed: smooth_volume(shape, scale=0.02 + 1e-3 * (seed % 7)),
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """Method, measurement and volume of every reconstruction of a comparison."""
    seen: Calls = []

    def counted(y: Tensor, operator: LinearOperator, prior: Any, method: str, **rest: Any) -> Reconstruction:
        result = reconstruct(y, operator, prior, method, **rest)
        seen.append((method, y, result.volume))
        return result

    monkeypatch.setattr("lightning_mbir.reconstruction.runner.run_method", counted)
    yield seen


def compare(folder: Path, methods: str = "dds,admm_tv,fbp", volumes: int = 1, **flags: Any) -> list[dict[str, Any]]:
    """The rows of ``results.json``, with those of CT by default."""
    flags.setdefault("method_options", {name: OPTIONS[name] for name in methods.split(",") if name in OPTIONS})
    module = ReconstructionModule(**{"task": "sv_ct", "methods": methods, "output_dir": folder, **flags})
    trainer(folder).test(module, datamodule=demo(module.task.modality, volumes), verbose=False)
    rows: list[dict[str, Any]] = json.loads((folder / module.task.name / "comparison/results.json").read_text())
    return rows


def test_rows_are_what_the_methods_give_on_one_measurement(tmp_path: Path, calls: Calls) -> None:
    rows = compare(tmp_path, views=6, photons=1e5, seed=3)
    assert [row["method"] for row in rows] == [method for method, _, _ in calls] == ["dds", "admm_tv", "fbp"]
    assert all(y is calls[0][1] for _, y, _ in calls)
    task, scan = TASKS["sv_ct"], demo("ct").scan(0)
    operator = task.build_operator(32, scan.spacing[1], views=6)
    y, weights = task.add_noise(operator(scan.data), (3, scan.name), photons=1e5)
    torch.testing.assert_close(calls[0][1], y)
    for row in rows:
        method = row["method"]
        own = OPTIONS.get(method, {})
        options = {**task.tuned(method, noisy=True, views=6), **own}
        result = reconstruct(
            y, operator, gaussian_prior("ct"), method, seed=3, volume=scan.name,
            weights=weights if METHODS[method].weighted else None, **options,
        )  # fmt: skip
        expected = image_metrics(result.volume, scan.data, task.data_range or 0)
        for name in ("volume_psnr", "volume_ssim", "nrmse", "axial", "coronal", "sagittal"):
            assert row[name] == pytest.approx(expected[name], rel=1e-5), (method, name)
        assert row["residual"] == pytest.approx(result.residual, rel=1e-4)
        assert row["nfe"] == result.nfe and row["seconds"] > 0 and row["peak_mib"] >= 0
        assert row["settings"] == {"views": 6, "angle_range": 180.0, "photons": 1e5} and row["seed"] == 3
    dds, admm_tv, fbp = rows
    assert dds["prior"]["name"] == "ct" and len(dds["prior"]["sha256"]) == 64 and fbp["prior"] is None
    assert dds["steps"] == 3 and fbp["steps"] is None
    assert admm_tv["options"] == {**METHODS["admm_tv"].options, **task.options["admm_tv"], "rho": 0.02}


def test_what_is_scored_is_not_scored_again(tmp_path: Path, calls: Calls) -> None:
    first = compare(tmp_path, volumes=2)
    assert len(calls) == 6
    assert compare(tmp_path, volumes=2) == first and len(calls) == 6
    assert compare(tmp_path, "fbp,dds", volumes=2) == [first[2], first[0], first[5], first[3]] and len(calls) == 6
    rows = tmp_path / "sv_ct/comparison/rows"
    assert len(list(rows.glob("*.json"))) == len(list(rows.iterdir())) / 3 == 6
    for changed in ({"method_options": {"dds": {"steps": 3, "rho": 0.02}}}, {"seed": 1}, {"views": 9}):
        calls.clear()
        compare(tmp_path, "dds", **changed)
        assert len(calls) == 1, changed
    calls.clear()
    damaged = next(rows.glob("*_0_fbp_*.json"))
    damaged.write_text(damaged.read_text()[:100])
    next(rows.glob("*_1_fbp_*.npz")).unlink()
    again = compare(tmp_path, volumes=2)
    assert [method for method, _, _ in calls] == ["fbp", "fbp"]
    assert [row["volume_psnr"] for row in again] == [row["volume_psnr"] for row in first]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".partial")]


def test_tables_agree_with_the_rows(tmp_path: Path) -> None:
    rows = compare(tmp_path, volumes=2)
    folder = tmp_path / "sv_ct/comparison"
    with (folder / "results.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == len(rows) == 6
    for line, row in zip(lines, rows, strict=True):
        assert line["method"] == row["method"] and line["volume.name"] == row["volume"]["name"]
        assert float(line["axial.psnr"]) == row["axial"]["psnr"] and float(line["nrmse"]) == row["nrmse"]
        assert json.loads(line["options"]) == row["options"]
    text = (folder / "results.md").read_text()
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(table) for table in tables] == [5, 5, 5]  # the means, and two volumes
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables[0]]
    assert len({len(line) for line in cells}) == 1
    means = dict(zip(cells[0], cells[2], strict=True))
    psnr, ssim = (sum(row[name] for row in rows[::3]) / 2 for name in ("volume_psnr", "volume_ssim"))
    assert means["method"] == "dds" and means["volume PSNR / SSIM"] == f"{psnr:.2f} / {ssim:.3f}"
    assert rows[0]["prior"]["sha256"] in text and "views 8" in text


def test_a_method_that_fails_is_a_row_with_its_reason_and_is_tried_again(
    tmp_path: Path, calls: Calls, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise InputError("sirt: relaxation is 9; give less")

    monkeypatch.setattr("lightning_mbir.solvers.sirt", fails)
    args = ["test", "--task", "sv_ct", "--methods", "sirt,fbp", "--data.image_size", "32", "--data.slices", "4:20"]
    args += ["--output_dir", str(tmp_path)]
    assert main(args) == 1
    assert "error: failed: sirt on demo_chest_0: sirt: relaxation is 9" in capfd.readouterr().err
    folder = tmp_path / "sv_ct/comparison"
    failed, good = json.loads((folder / "results.json").read_text())
    assert "relaxation" in failed["error"] and "volume_psnr" not in failed and good["volume_psnr"] > 0
    assert "failed: sirt: relaxation is 9" in (folder / "results.md").read_text()
    assert (folder / "comparison_demo_chest_0.png").is_file()
    assert main(args) == 1 and "sirt: relaxation" in capfd.readouterr().err
    assert [method for method, _, _ in calls] == ["fbp"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: no memory")])
def test_a_lack_of_memory_is_a_row_on_every_device(error: RuntimeError, tmp_path: Path) -> None:
    def fails() -> Any:
        raise error

    identity = {"volume": {"name": "a"}, "method": "dds"}
    row, planes, known = scored(tmp_path, identity, fails, {})
    assert row["error"] == f"out of memory: {error}" and planes is None and not known and not list(tmp_path.iterdir())
    error.args = ("sizes do not match",)
    if type(error) is RuntimeError:  # a bug is no row
        with pytest.raises(RuntimeError, match="sizes"):
            scored(tmp_path, identity, fails, {})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"methods": "dds,magic"}, "--method magic: unknown"),
        ({"methods": "dds,zero_filled"}, "not for ct"),
        ({"methods": ","}, "names no method"),
        ({"methods": "fbp,dds,fbp"}, "fbp twice"),
        ({"methods": "fbp", "method": "admm_tv"}, "give one of them"),
        ({"methods": "dds,fbp", "steps": 5}, "give each method its own"),
        ({"methods": "dds,fbp", "method_options": {"rho": 0.1}}, "rho is none of --methods"),
        ({"methods": "dds,fbp", "method_options": {"dds": 3}}, "give a mapping"),
        ({"methods": "dds,fbp", "method_options": {"dds": {"colour": 3}}}, "no option colour"),
        ({"methods": "dds,fbp", "method_options": {"dds": {"steps": 0}}}, "at least 1"),
        ({"methods": "dds,fbp", "method_options": {"fbp": {"steps": 3}}}, "has no steps"),
        ({"methods": "admm_tv,fbp", "samples": 3}, "none of admm_tv, fbp has randomness"),
        ({"methods": "dds", "samples": 0}, "--samples 0"),
        ({"methods": "dds", "lpips": True}, "torchvision"),
    ],
)
def test_what_cannot_be_compared_is_told_before_any_work(
    flags: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_mbir.report.lpips.importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=words):
        ReconstructionModule(task="sv_ct", output_dir=tmp_path / "out", **flags)
    assert not (tmp_path / "out").exists()


def test_predict_does_not_compare(tmp_path: Path) -> None:
    module = ReconstructionModule(task="sv_ct", methods="fbp", output_dir=tmp_path / "out")
    with pytest.raises(InputError, match="compared by `test`"):
        trainer(tmp_path).predict(module, datamodule=demo("ct"), return_predictions=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("methods", "slices"), [(2, 16), (10, 16), (3, 2)])
def test_figures_have_a_place_for_every_method(methods: int, slices: int, tmp_path: Path) -> None:
    truth = smooth_volume((slices, 32, 32), scale=0.02)
    scores = {plane: {"psnr": 30.0, "ssim": 0.9} for plane in ("axial", "coronal", "sagittal")}
    results: list[Any] = [
        ({"method": f"m{i}", **scores}, middle_planes(truth * (1 + 0.05 * i))) for i in range(methods)
    ]
    results[-1] = ({"method": "bad", "error": "diverged"}, None)
    place = Place((slices, 32, 32), (3.0, 2.0, 2.0), "RA")
    figure = comparison_figure("title", truth, results, place, Scale.of("ct", (0.0, 0.04)))
    planes = 3 if slices >= 4 else 1
    assert len(figure.axes) == planes * (1 + 2 * methods - 1) + 1  # no error of what failed; a colour bar
    write_figure(tmp_path / "figure.png", figure)
    height, width, _ = matplotlib.image.imread(tmp_path / "figure.png").shape
    assert abs(width - 110 * figure.get_figwidth()) <= 1 and abs(height - 110 * figure.get_figheight()) <= 1
    assert width < 2600


def test_with_a_phase_every_method_has_the_operator_it_has_alone(tmp_path: Path, calls: Calls) -> None:
    rows = compare(tmp_path, "dds,zero_filled", task="cs_mri", phase=True, acc=3.0)
    assert all(volume.is_complex() for _, _, volume in calls)
    truth = demo("mri").scan(0).data
    expected = image_metrics(calls[1][2].abs(), truth, magnitude_percentile(truth))
    assert rows[1]["volume_psnr"] == pytest.approx(expected["volume_psnr"])


def test_samples_are_of_methods_with_randomness(tmp_path: Path) -> None:
    dds, fbp = compare(tmp_path, "dds,fbp", samples=3)
    assert dds["samples"] == 3 and dds["nfe"] == 9 and dds["calibration"]["ratio"] > 0
    assert fbp["samples"] == 1 and "calibration" not in fbp


def test_a_file_that_has_changed_has_another_checksum(tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    sums = []
    for content in (b"one", b"another", b"another"):
        write_whole(path, content)
        sums.append(file_sha256(path))
    assert sums == [hashlib.sha256(content).hexdigest() for content in (b"one", b"another", b"another")]
