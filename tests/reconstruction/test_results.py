"""A folder of results is one result: replaced whole, found again by what it depends on, and told of completely."""

import errno
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.volumes.grid import Grid
from lightning_mbir.errors import InputError, WriteError
from lightning_mbir.files import sha256, whole_folder
from lightning_mbir.methods.run import run_method as reconstruct
from lightning_mbir.reconstruction import ReconstructionModule
from lightning_mbir.reconstruction.job import Job
from lightning_mbir.reconstruction.prediction import _identity
from lightning_mbir.reconstruction.provenance import digest, tensor_sha256
from lightning_mbir.reconstruction.writer import STATE, finished
from tests.helpers import demo, smooth_volume
from tests.ranks import run_on_ranks
from tests.reconstruction.test_module import predict

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("bundled")]


@pytest.fixture(autouse=True)
def quick_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lightning_mbir.data.volumes.datamodule.chest_phantom",
        lambda shape, seed: smooth_volume(shape, scale=0.02 + 1e-3 * (seed % 7)),
    )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The volumes that were reconstructed, once for each sample."""
    seen: list[str] = []

    def counted(*given: Any, **rest: Any) -> Any:
        seen.append(rest["volume"])
        return reconstruct(*given, **rest)

    for place in ("reconstruction.runner", "methods.samples"):
        monkeypatch.setattr(f"lightning_mbir.{place}.run_method", counted)
    yield seen


def run(out: Path, data: VolumeDataModule | None = None, logger: bool = False, **options: Any) -> Path:
    """The folder of the first volume, two by default."""
    given = {"task": "sv_ct", "steps": 2, "output_dir": out, **options}
    data = data or demo("ct", 2)
    predict(ReconstructionModule(**given), data, out, logger)
    return out / "sv_ct" / data.filed_as(0)


def contents(folder: Path) -> dict[str, bytes]:
    """All files, without the times in the metrics and in the state of samples."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and "tensorboard" not in name:
            found[name] = path.read_bytes()
            if path.name == "metrics.json":
                found[name] = repr(timeless(json.loads(found[name]))).encode()
            if path.name == "report.html":
                found[name] = re.sub(rb'<td class="varies".*?</td>', b"", found[name])
            if path.name == "running.npz":
                with np.load(path) as arrays:
                    plain = timeless(json.loads(str(arrays["plain"])))
                    found[name] = repr([plain, *(arrays[key].tobytes() for key in arrays if key != "plain")]).encode()
    return found


def timeless(value: Any) -> Any:
    """Plain data without what is a time."""
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if name != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def test_what_is_finished_is_left_as_it_is_and_said_so(
    tmp_path: Path, runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path)
    assert runs == ["demo_chest_0", "demo_chest_1"]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.parent.rglob("*.*")}
    capsys.readouterr()
    run(tmp_path, logger=True)
    assert runs == ["demo_chest_0", "demo_chest_1"]
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.parent.rglob("*.*")}
    said = capsys.readouterr().out
    assert said.count("finished before, with the same settings; --overwrite true does it again") == 2
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert board.Scalars("sv_ct/axial/psnr")[0].value == pytest.approx(metrics["axial"]["psnr"], rel=1e-5)
    run(tmp_path, overwrite=True)
    assert runs == ["demo_chest_0", "demo_chest_1"] * 2
    (folder.parent / "demo_chest_1/montage.png").unlink()
    run(tmp_path)
    assert runs[4:] == ["demo_chest_1"]


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"views": 9}, {"steps": 3}, {"method": "dps"}, {"method_options": {"rho": 0.3}}, {"samples": 2}],
    ids=str,
)
def test_what_changes_a_result_makes_another(tmp_path: Path, runs: list[str], changed: dict[str, Any]) -> None:
    folder, one = run(tmp_path, demo("ct")), len(runs)
    key = json.loads((folder / "metrics.json").read_text())["key"]
    run(tmp_path, demo("ct"), **changed)
    assert len(runs) == one + changed.get("samples", 1)
    assert json.loads((folder / "metrics.json").read_text())["key"] != key


def test_what_changes_nothing_makes_no_other(tmp_path: Path, runs: list[str]) -> None:
    run(tmp_path, demo("ct"))
    run(tmp_path, demo("ct"), slice_batch=1)
    run(tmp_path, demo("ct"), compile=True)
    assert len(runs) == 1


def test_the_key_knows_values_places_and_precision(tmp_path: Path) -> None:
    module = ReconstructionModule(task="sv_ct", output_dir=tmp_path)
    scan: Any = demo("ct").scan(0)
    grid = Grid((32, 32, 16), scan.affine)

    def key(scan: Any) -> str:
        return digest(_identity(Job(module.runner, scan, module.plans[0], tmp_path, "")))

    turned = scan.affine @ np.diag([1.0, -1.0, 1.0, 1.0])
    other = scan.data.clone()
    other[3, 4, 5] += 1e-6
    volumes = [
        scan, scan.with_data(other), replace(scan, affine=turned), replace(scan, grid=grid),
        replace(scan, grid=Grid(grid.shape, turned)), replace(scan, name="other"),
    ]  # fmt: skip
    keys = [key(volume) for volume in volumes]
    assert module.runner.prior is not None
    module.runner.prior.precision = "bfloat16"
    assert len({*keys, key(scan)}) == 7
    module.runner.prior.precision = "float32"
    assert key(scan.with_data(scan.data.clone())) == keys[0]


def test_nothing_of_another_result_stays(tmp_path: Path) -> None:
    folder = run(tmp_path, demo("ct"), samples=3)
    assert (folder / "std.nii.gz").is_file() and (folder / "samples/sample_02.nii.gz").is_file()
    run(tmp_path, demo("ct"), samples=2, seed=1)
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [
        "running.npz", "sample_00.nii.gz", "sample_01.nii.gz",
    ]  # fmt: skip
    run(tmp_path, demo("ct"), method="fbp", steps=None)
    assert sorted(path.name for path in folder.iterdir()) == [
        "metrics.json", "montage.png", "recon.nii.gz", "report.html",
    ]  # fmt: skip
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_is_not_ours_is_not_lost(tmp_path: Path, runs: list[str]) -> None:
    folder = run(tmp_path, demo("ct"))
    (folder / "tumour.nii.gz").write_text("hours of work")
    (folder / ".DS_Store").write_text("")
    run(tmp_path, demo("ct"))  # nothing is replaced
    with pytest.raises(InputError, match=r"new results take the place of the folder, and tumour.nii.gz in it is none"):
        run(tmp_path, demo("ct"), seed=1)
    assert (folder / "tumour.nii.gz").read_text() == "hours of work" and len(runs) == 1
    (folder / "tumour.nii.gz").unlink()
    run(tmp_path, demo("ct"), seed=1)
    assert len(runs) == 2


@pytest.mark.parametrize("samples", [1, 3])
def test_a_run_that_fails_leaves_the_old_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    folder = run(tmp_path, demo("ct"))
    before = contents(folder)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
        patch.setattr("lightning_mbir.reconstruction.prediction.montage", interrupted)
        run(tmp_path, demo("ct"), seed=1, samples=samples)
    assert contents(folder) == before
    hidden = [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]
    assert hidden == ([".running-demo_chest_0"] if samples > 1 else [])
    if samples > 1:
        assert (folder.parent / ".running-demo_chest_0/new" / STATE).is_file()
    run(tmp_path, demo("ct"), seed=1, samples=samples)
    run(tmp_path / "straight", demo("ct"), seed=1, samples=samples)
    assert contents(folder) == contents(tmp_path / "straight/sv_ct/demo_chest_0")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_killed_runs_left_of_other_volumes_goes_but_for_their_samples(tmp_path: Path) -> None:
    task = tmp_path / "sv_ct"
    for name in ("gone", "old"):
        (task / f".running-{name}/new").mkdir(parents=True)
        (task / f".running-{name}/new/recon.nii.gz").write_bytes(b"half")
    (task / ".running-kept/new/samples").mkdir(parents=True)
    (task / ".running-kept/new" / STATE).write_bytes(b"state")
    (task / ".running-old/old").mkdir()  # killed between the two steps
    with whole_folder(task / "living", STATE):
        run(tmp_path, demo("ct"), method="fbp", steps=None)
        names = sorted(path.name for path in task.iterdir())
    assert names == [".running-kept", ".running-living", "demo_chest_0", "old"]
    assert (task / "old/recon.nii.gz").read_bytes() == b"half"  # what was to come


def test_two_runs_of_one_volume_are_refused_before_the_work(tmp_path: Path, runs: list[str]) -> None:
    with (
        whole_folder(tmp_path / "sv_ct/demo_chest_1", STATE),
        pytest.raises(InputError, match="demo_chest_1: another process is writing it"),
    ):
        run(tmp_path)
    assert runs == []


def test_a_file_in_the_way_is_told_before_the_work(tmp_path: Path, runs: list[str]) -> None:
    (tmp_path / "sv_ct").mkdir()
    (tmp_path / "sv_ct/demo_chest_1").write_text("mine")
    with pytest.raises(InputError, match=r"demo_chest_1: the file .* is in the way"):
        run(tmp_path)
    assert runs == [] and (tmp_path / "sv_ct/demo_chest_1").read_text() == "mine"


def test_a_full_disk_is_one_line_that_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[str]
) -> None:
    folder = run(tmp_path, demo("ct"))
    before = contents(folder)

    replace = os.replace

    def full_for(name: str) -> Any:
        def full(source: Path, path: Path) -> None:
            if path.name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, path)

        return full

    with monkeypatch.context() as patch, pytest.raises(WriteError) as caught:
        patch.setattr("lightning_mbir.files.os.replace", full_for("recon.nii.gz"))
        run(tmp_path, demo("ct"), seed=1)
    told = str(caught.value)
    assert "recon.nii.gz: no space is left on the disk" in told and "\n" not in told
    assert told.endswith("the volumes that are finished are kept, and the same command goes on")
    assert contents(folder) == before and [path.name for path in folder.parent.iterdir()] == [folder.name]
    with monkeypatch.context() as patch, pytest.raises(WriteError, match="the 2 samples so far and the volumes"):
        patch.setattr("lightning_mbir.files.os.replace", full_for("std.nii.gz"))
        run(tmp_path, demo("ct"), seed=1, samples=2)
    done = len(runs)
    with monkeypatch.context() as patch, pytest.raises(WriteError, match=r"0\.0 MiB are free on the disk, and the"):
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
        run(tmp_path, demo("ct"), seed=2)
    assert len(runs) == done  # told before the work
    run(tmp_path, demo("ct"), seed=1, samples=2)
    assert len(runs) == done  # from what was kept


def test_metrics_say_where_a_result_comes_from(tmp_path: Path) -> None:
    hu = np.full((32, 32, 6), -1000, np.int16)
    hu[8:24, 8:24] = 40
    nib.save(nib.Nifti1Image(hu, np.diag([3.0, 3.0, 5.0, 1.0])), tmp_path / "scan.nii.gz")
    data = VolumeDataModule(tmp_path / "scan.nii.gz", modality="ct")
    folder = run(tmp_path, data, seed=5, method_options={"rho": 0.3})
    metrics = json.loads((folder / "metrics.json").read_text())
    scan: Any = data.scan(0)
    assert metrics["input"]["sha256"] == tensor_sha256(scan.data)
    assert metrics["input"]["file_sha256"] == sha256(tmp_path / "scan.nii.gz")
    assert metrics["input"]["shape"] == [6, 32, 32] and metrics["image_size"] == [32, 32]
    assert metrics["prior"]["name"] == "ct" and len(metrics["prior"]["sha256"]) == 64
    assert metrics["options"]["rho"] == 0.3 and "eta" in metrics["options"] and metrics["steps"] == 2
    assert metrics["settings"] == {"views": 8, "angle_range": 180.0}
    assert (metrics["method"], metrics["seed"], metrics["device"]) == ("dds", 5, "cpu")
    assert metrics["precision"] in ("float32", "bfloat16") and metrics["version"] and "revision" in metrics
    assert metrics["files"] == ["montage.png", "recon.nii.gz", "report.html"]
    assert finished(folder, metrics["key"]) == metrics and finished(folder, "0" * 64) is None
    assert str(tmp_path) not in (folder / "metrics.json").read_text()


def test_metrics_that_are_not_finite_are_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lightning_mbir.reconstruction.runner.image_metrics",
        lambda *_: {"axial": {"psnr": float("inf")}, "coronal": {"psnr": 1.0}, "sagittal": {"psnr": 1.0}},
    )
    folder = run(tmp_path, demo("ct"))
    assert json.loads((folder / "metrics.json").read_text())["axial"] == {"psnr": None}
    run(tmp_path, demo("ct"), logger=True)  # from the file


def test_samples_go_on_from_what_is_finished(tmp_path: Path, runs: list[str]) -> None:
    folder = run(tmp_path / "a", demo("ct"), samples=2)
    first = contents(folder)
    run(tmp_path / "a", demo("ct"), samples=4)
    assert len(runs) == 4
    run(tmp_path / "b", demo("ct"), samples=4)
    assert contents(folder) == contents(tmp_path / "b/sv_ct/demo_chest_0")
    assert contents(folder)["samples/sample_01.nii.gz"] == first["samples/sample_01.nii.gz"]
    runs.clear()
    run(tmp_path / "a", demo("ct"), samples=4, overwrite=True)
    assert len(runs) == 4
    (folder / "samples/sample_00.nii.gz").unlink()
    run(tmp_path / "a", demo("ct"), samples=5)
    assert len(runs) == 9  # the file that is missing cannot be had from the mean


@pytest.mark.parametrize("options", [{"method": "dps"}, {}], ids=str)
def test_samples_after_a_kill_have_the_same_slices_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Whatever another process would choose."""
    taken: list[tuple[int, ...]] = []

    def watched(y: Any, operator: Any, prior: Any, *given: Any, **rest: Any) -> Any:
        if rest["sample"] == limit:
            raise KeyboardInterrupt
        result = reconstruct(y, operator, prior, *given, **rest)
        taken.append(tuple(sorted(prior.chosen.values())))
        return result

    monkeypatch.setattr("lightning_mbir.methods.samples.run_method", watched)
    monkeypatch.setattr("lightning_mbir.prior.denoiser.slices_at_once", lambda *_: 4)
    limit = 1
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "killed", demo("ct"), samples=2, slice_batch=None, **options)
    monkeypatch.setattr("lightning_mbir.prior.denoiser.slices_at_once", lambda *_: 2)
    limit = 9
    run(tmp_path / "killed", demo("ct"), samples=2, **options)
    assert taken[0] == taken[1] and set(taken[0]) == {4}
    taken.clear()
    run(tmp_path / "killed", demo("ct"), samples=3, slice_batch=3, **options)
    assert taken == [()]  # what is asked for comes before what was


def test_bytes_do_not_tell_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed files hold one in their header, unless they are told not to."""
    folder = run(tmp_path / "a", demo("ct"), samples=2)
    monkeypatch.setattr("time.time", lambda: 2e9)
    run(tmp_path / "b", demo("ct"), samples=2)
    assert contents(folder) == contents(tmp_path / "b/sv_ct/demo_chest_0")


@pytest.mark.slow
def test_samples_that_go_on_after_kill_9_are_those_of_a_run_that_was_not_killed(tmp_path: Path) -> None:
    """The bundled prior, in the processes that a person starts; all files but for the times."""
    common = ["--task", "sv_ct", "--samples", "3", "--steps", "6", "--data.image_size", "64", "--data.slices", "4:7"]

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lightning_mbir", "predict", *common, "--trainer.accelerator", "cpu"]
        return subprocess.Popen([*command, "--output_dir", str(tmp_path / out)], cwd=ROOT, stdout=subprocess.DEVNULL)

    state = tmp_path / "killed/sv_ct/.running-demo_chest_0/new" / STATE
    with start("killed") as process:
        while not state.exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "killed/sv_ct/demo_chest_0").exists()
    for out in ("killed", "whole"):
        with start(out) as process:
            assert process.wait(200) == 0
    killed, whole = (contents(tmp_path / out / "sv_ct") for out in ("killed", "whole"))
    config = "demo_chest_0/predict_config.yaml"  # which names the folder
    assert killed.pop(config) != whole.pop(config)
    page = "demo_chest_0/report.html"  # which has it too
    assert killed.pop(page).replace(b"/killed", b"/whole") == whole.pop(page)
    assert killed == whole and len(whole) == 9


@pytest.mark.slow
def test_ranks_leave_what_is_finished_each(tmp_path: Path) -> None:
    """Three volumes on two ranks, one of which is lacking; none waits for another."""
    args = ["predict", "--task", "sv_ct", "--method", "fbp", "--data.image_size", "32", "--data.slices", "4:8"]
    args += ["--data.demo_volumes", "3", "--output_dir", str(tmp_path / "out")]
    assert [status for status, _ in run_on_ranks(args, tmp_path / "first")] == [0, 0]
    first = contents(tmp_path / "out/sv_ct")
    (tmp_path / "out/sv_ct/demo_chest_1/recon.nii.gz").unlink()
    second = run_on_ranks(args, tmp_path / "second")
    assert [status for status, _ in second] == [0, 0]
    said = "".join(text for _, text in second)
    assert said.count("finished before") == 2 and said.count("data residual") == 1
    assert contents(tmp_path / "out/sv_ct") == first
