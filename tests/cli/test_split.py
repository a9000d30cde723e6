"""One volume over several processes on the command line: results, and what is refused."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lightning_mbir.cli import main
from tests.cli.test_cli import array, head
from tests.helpers import smooth_volume
from tests.ranks import run_on_ranks

BASE = ["predict", "--data.image_size", "32", "--model.precision", "float32", "--slice_batch", "1"]
DDS = ["--task", "cs_mri", "--acc", "4", "--steps", "3", "--method", "dds", "--phase", "true", "--snr", "30"]
TV = ["--task", "sv_ct", "--views", "8", "--photons", "1e5", "--method", "admm_tv", "--steps", "6"]


def ball(folder: Path) -> Path:
    """An object, of which a prior is not lost in a few levels."""
    data = 100 * smooth_volume((6, 24, 24)).movedim(0, -1).numpy()
    nib.save(nib.Nifti1Image(data.astype(np.float32), np.diag([2.0, 2.0, 3.0, 1.0])), folder / "v.nii.gz")
    return folder / "v.nii.gz"


def results(out: Path, name: str) -> tuple[np.ndarray, dict[str, object]]:
    """The image, of CT as attenuation (water 1000, not the 0 of HU), and all that is told of it."""
    folder = next(out.rglob(f"{name}/metrics.json")).parent
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["files"] = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    water = 1000 if "ct" in str(metrics["task"]) else 0
    return array(folder).astype(np.float64) + water, metrics


def alike(one: dict[str, object], two: dict[str, object]) -> None:
    """Metrics to four digits, all else as it is."""
    assert one.keys() == two.keys()
    for key in one.keys() - {"seconds", "revision"}:
        if isinstance(one[key], dict):
            alike(one[key], two[key])  # type: ignore[arg-type]
        elif isinstance(one[key], list) and one[key] and isinstance(one[key][0], dict):  # type: ignore[index]
            for a, b in zip(one[key], two[key], strict=True):  # type: ignore[call-overload]
                alike(a, b)
        else:
            assert one[key] == (pytest.approx(two[key], rel=1e-4) if isinstance(one[key], float) else two[key]), key


def relative(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.linalg.norm(one - two) / np.linalg.norm(one))


@pytest.mark.slow
@pytest.mark.parametrize("options", [DDS, TV, [*DDS, "--samples", "2"]], ids=["dds", "admm_tv", "samples"])
def test_a_volume_of_two_processes_is_that_of_one(options: list[str], tmp_path: Path) -> None:
    args = [*BASE, *options, "--data.path", str(ball(tmp_path)), "--output_dir"]
    assert main([*args, str(tmp_path / "one"), "--trainer.accelerator", "cpu", "--trainer.devices", "1"]) == 0
    done = run_on_ranks([*args, str(tmp_path / "two")], tmp_path / "log")
    assert [status for status, _ in done] == [0, 0], done
    assert "data residual" in done[0][1] and not done[1][1].strip()  # the first one tells
    (one, of_one), (two, of_two) = (results(tmp_path / name, "v") for name in ("one", "two"))
    assert relative(one, two) < 1e-5
    alike(of_one, of_two)
    again = run_on_ranks([*args, str(tmp_path / "two")], tmp_path / "log")
    assert "finished before" in again[0][1] and not again[1][1].strip()


@pytest.mark.slow
def test_two_volumes_of_two_slabs(tmp_path: Path) -> None:
    """Four processes, two groups: each volume is that of one process."""
    folder = tmp_path / "in"
    folder.mkdir()
    for k, name in enumerate("ab"):
        head(folder, f"{name}.nii.gz", shape=(24, 20, 5 + k))
    args = [*BASE, *TV, "--data.path", str(folder), "--output_dir"]
    assert main([*args, str(tmp_path / "one"), "--trainer.accelerator", "cpu", "--trainer.devices", "1"]) == 0
    done = run_on_ranks([*args, str(tmp_path / "four")], tmp_path / "log", ranks=4)
    assert [status for status, _ in done] == [0] * 4, done
    for name in "ab":
        (one, of_one), (four, of_four) = (results(tmp_path / out, name) for out in ("one", "four"))
        assert relative(one, four) < 1e-5
        alike(of_one, of_four)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("starter", "split", "shared"),
    [
        ("torchrun", "slices", True),
        ("torchrun", "volumes", False),
        ("slurm", "slices", False),
        ("slurm", "volumes", True),
    ],
)
def test_two_machines(starter: str, split: str, shared: bool, tmp_path: Path) -> None:
    """A process on each of two "machines", which write to one folder, or each to a disk of its own."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, size in (("a", 24), ("b", 20)):
        data = 100 * smooth_volume((6, size, size)).movedim(0, -1).numpy()
        nib.save(nib.Nifti1Image(data.astype(np.float32), np.diag([2.0, 2.0, 3.0, 1.0])), folder / f"{name}.nii.gz")
    args = [*BASE, *TV, "--data.path", str(folder), "--output_dir"]
    alone = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    assert main([*args, str(tmp_path / "one"), *alone]) == 0
    out = tmp_path / ("both" if shared else "node_{rank}")
    done = run_on_ranks([*args, str(out), "--split", split], tmp_path / "log", starter=starter)
    assert [status for status, _ in done] == [0, 0], done
    second = 0 if split == "slices" else 1  # the machine that writes the second volume
    for name, rank in (("a", 0), ("b", second)):
        where = Path(str(out).replace("{rank}", str(rank)))
        (one, of_one), (two, of_two) = results(tmp_path / "one", name), results(where, name)
        assert relative(one, two) < 1e-5
        alike(of_one, of_two)
    if not shared:
        assert len(list(tmp_path.glob("node_*/*/?/recon.nii.gz"))) == 2  # each volume once


@pytest.mark.parametrize("names", ["v v", "a b"])
def test_processes_that_see_other_files(names: str, tmp_path: Path) -> None:
    for rank, name in enumerate(names.split()):
        (tmp_path / str(rank)).mkdir()
        image = nib.load(head(tmp_path / str(rank), f"{name}.nii.gz"))
        data = np.asarray(image.dataobj) + rank
        nib.save(nib.Nifti1Image(data.astype(np.float32), image.affine), tmp_path / str(rank) / f"{name}.nii.gz")
    args = [*BASE, *TV, "--data.path", f"{tmp_path}/{{rank}}", "--output_dir", str(tmp_path / "out")]
    done = run_on_ranks(args, tmp_path / "log")
    assert [status for status, _ in done] == [2, 2]
    words = "see other files" if names == "v v" else "process 0 sees 1 volumes (a), process 1 1 volumes (b)"
    assert all(words in said and "Traceback" not in said for _, said in done), done
    assert not list(tmp_path.rglob("recon.nii.gz"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trainer.devices", "7"], "7 processes for a volume of 6 slices; give --trainer.devices 6 or fewer"),
        (["--split", "rows"], "--split rows: give auto, slices, volumes"),
    ],
)
def test_bad_input(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by the first process before it starts others' work."""
    for name, value in {"LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "7"}.items():
        monkeypatch.setenv(name, value)  # as if all were started, which none gets to wait for
    args = [*BASE, *TV, "--data.path", str(head(tmp_path)), "--output_dir", str(tmp_path / "out")]
    assert main([*args, "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", *options]) == 2
    assert words in capsys.readouterr().err
