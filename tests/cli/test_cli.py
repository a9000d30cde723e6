"""The command line as a person meets it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from lightning_mbir.cli.front import UsageError, main, translate
from lightning_mbir.flags import RECONSTRUCTION_FLAGS, TRAINING_FLAGS
from lightning_mbir.prior import ScorePriorModule, load_prior
from lightning_mbir.prior.checkpoints.checkpoint import BUNDLED

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--data.image_size", "32", "--method", "fbp", "--task", "sv_ct"]
QUICK = ["--trainer.precision", "32-true", "--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "2"]
"""For trainings of which neither bf16 nor the validation is the subject."""
DDP = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
"""Lightning starts the second process itself."""


def head(folder: Path, name: str = "v.nii.gz", shape: tuple[int, ...] = (24, 20, 6)) -> Path:
    grid = np.indices(shape).sum(0) % 7
    nib.save(nib.Nifti1Image((100.0 * grid).astype(np.float32), np.diag([2.0, 2.0, 3.0, 1.0])), folder / name)
    return folder / name


def array(folder: Path) -> np.ndarray:
    return np.asarray(nib.load(folder / "recon.nii.gz").dataobj)


def test_short_flags_reach_their_arguments() -> None:
    args = ["--task", "cs_mri", "--acc=4", "--seed", "3", "--data.path", "x", "--ckpt_path", "p.ckpt"]
    args += ["--output_dir", "o"]
    assert translate(args, RECONSTRUCTION_FLAGS) == [
        "--model.task=cs_mri",
        "--model.acc=4",
        "--model.seed=3",
        "--data.path=x",
        "--model.prior=p.ckpt",
        "--model.output_dir=o",
    ]
    assert translate(["--seed", "1", "--steps=5", "--output_dir", "o"], TRAINING_FLAGS) == [
        "--seed_everything=1",
        "--trainer.max_steps=5",
        "--trainer.default_root_dir=o",
    ]
    assert translate(["--trainer.devices", "2", "--model.precision=bfloat16"], RECONSTRUCTION_FLAGS) == [
        "--trainer.devices=2",
        "--model.precision=bfloat16",
    ]
    with pytest.raises(UsageError, match="did you mean --views"):
        translate(["--view", "3"], RECONSTRUCTION_FLAGS)
    with pytest.raises(UsageError, match="lacks its value"):
        translate(["--acc", "--seed", "1"], RECONSTRUCTION_FLAGS)


def bad_inputs(folder: Path) -> dict[str, tuple[list[str], str]]:
    good = str(head(folder))
    head(folder, "flat.nii.gz", (24, 20))
    head(folder, "four.nii.gz", (24, 20, 6, 2))
    broken = np.ones((8, 8, 8), np.float32)
    broken[1, 2, 3] = np.nan
    nib.save(nib.Nifti1Image(broken, np.eye(4)), folder / "nan.nii.gz")
    (folder / "empty").mkdir()
    (folder / "file").write_text("a file")
    torch.save({"state_dict": {}, "hyper_parameters": {}}, folder / "other.ckpt")
    p = ["predict", "--data.path", good]
    return {
        "missing file": (["predict", "--data.path", str(folder / "gone.nii.gz")], "no such file"),
        "two dimensions": (["predict", "--data.path", str(folder / "flat.nii.gz")], "3D"),
        "four dimensions": (["predict", "--data.path", str(folder / "four.nii.gz")], "3D"),
        "NaN": (["predict", "--data.path", str(folder / "nan.nii.gz")], "NaN"),
        "empty folder": (["predict", "--data.path", str(folder / "empty")], "holds no volume"),
        "unknown task": ([*p, "--task", "pet"], "sv_ct"),
        "acc 0": ([*p, "--task", "cs_mri", "--acc", "0"], "at least 1"),
        "acc text": ([*p, "--task", "cs_mri", "--acc", "many"], "--acc"),
        "views 0": ([*p, "--task", "sv_ct", "--views", "0"], "at least 1"),
        "views and MRI": ([*p, "--task", "cs_mri", "--views", "8"], "not for task cs_mri"),
        "angle range": ([*p, "--task", "la_ct", "--angle_range", "270"], "180"),
        "photons": ([*p, "--task", "sv_ct", "--photons", "0"], "--photons 0: give a positive number"),
        "photons in MRI": ([*p, "--task", "cs_mri", "--photons", "1e5"], "--snr"),
        "snr": ([*p, "--task", "cs_mri", "--snr", ".inf"], "--snr inf: give decibels"),
        "mask": ([*p, "--task", "cs_mri", "--mask", "zigzag"], "gaussian1d"),
        "method": ([*p, "--method", "magic"], "dds"),
        "method of CT": ([*p, "--task", "cs_mri", "--method", "fbp"], "not for mri"),
        "methods": (["test", *p[1:], "--methods", "dds,magic"], "--method magic: unknown"),
        "methods of predict": ([*p, "--methods", "dds"], "unknown flag"),
        "steps of methods": (["test", *p[1:], "--methods", "dds", "--steps", "3"], "--model.method_options"),
        "steps of one": (
            ["test", *p[1:], "--methods", "zero_filled,dds", "--steps", "3"],
            """'{"dds": {"steps": 3}}'""",
        ),
        "samples": ([*p, "--method", "admm_tv", "--samples", "3"], "no randomness"),
        "steps 0": ([*p, "--steps", "0"], "at least 1"),
        "missing prior": ([*p, "--prior", "gone.ckpt"], "no such file"),
        "missing second prior": ([*p, "--method", "tpdm", "--second_prior", "gone.ckpt"], "gone.ckpt: no"),
        "no second prior": ([*p, "--method", "tpdm"], "--method tpdm needs a prior of coronal slices"),
        "no coils": ([*p, "--task", "cs_mri", "--method", "sense"], "--method sense needs k-space of several coils"),
        "no coils in one": (["test", *p[1:], "--task", "cs_mri", "--methods", "dds,sense"], "needs k-space of"),
        "priors of two kinds": ([*p, "--method", "tpdm", "--second_prior", "mri_complex"], "give two of a kind"),
        "prior that does not fit": ([*p, "--prior", str(folder / "other.ckpt")], "ScorePriorModule"),
        "output below a file": ([*p, "--output_dir", str(folder / "file" / "out")], "not a folder"),
        "slices": ([*p, "--data.slices", "4:99"], "has slices 0:6"),
        "configuration": ([*p, "--config", "nowhere"], "no such file"),
        "network": ([*p, "--network", str(folder / "file")], "--network"),
        "second prior of one": ([*p, "--second_prior", "mri"], "of use to tpdm alone"),
        "validating nothing": (["validate", "--data.image_size", "32"], "--ckpt_path"),
        "start from nothing": (["fit", "--model.init", "gone.ckpt"], "--model.init gone.ckpt: no such file"),
        "unknown command": (["reconstruct"], "predict"),
        "unknown flag": ([*p, "--tasc", "sv_ct"], "did you mean --task"),
        "unknown argument": ([*p, "--model.colour", "red"], "colour"),
        "resume from nothing": (["fit", "--ckpt_path", str(folder / "gone.ckpt")], "no such file"),
        "empty training": (["fit", "--data.path", str(folder / "empty")], "holds no volume"),
        "learning rate": (["fit", "--model.learning_rate", "-1"], "learning_rate"),
    }


def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    files = tmp_path / "files"
    work = tmp_path / "work"
    files.mkdir()
    work.mkdir()
    cases = bad_inputs(files)
    monkeypatch.chdir(work)
    problems = []
    for name, (args, words) in cases.items():
        status = main(args)
        lines = capfd.readouterr().err.strip().splitlines()
        if status != 2 or len(lines) != 1 or words not in lines[0] or list(work.iterdir()):
            problems.append(f"{name}: status {status}, wrote {list(work.iterdir())}, said {lines}")
    assert not problems, "\n".join(problems)


def test_predict_twice_into_the_same_folder_and_again_from_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the defaults are found from anywhere
    path = str(head(tmp_path))
    args = ["predict", "--task", "cs_mri", "--acc", "4", "--mask", "uniform1d", "--seed", "7", "--steps", "3"]
    args += ["--data.path", path, "--data.image_size", "32", "--output_dir", str(tmp_path / "out")]
    args += ["--model.method_options", '{"rho": 0.05}']
    assert main(args) == 0
    folder = tmp_path / "out" / "cs_mri" / "v"
    assert sorted(p.name for p in folder.iterdir()) == [
        "metrics.json",
        "montage.png",
        "predict_config.yaml",
        "recon.nii.gz",
        "report.html",
    ]
    first = array(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["settings"] == {"acc": 4.0, "mask": "uniform1d", "phase": False}
    assert metrics["seed"] == 7 and metrics["nfe"] == 3
    (folder / "predict_config.yaml").rename(tmp_path / "saved.yaml")
    assert main(args) == 0
    assert np.array_equal(array(folder), first)
    assert main(["predict", "--config", str(tmp_path / "saved.yaml"), "--output_dir", str(tmp_path / "again")]) == 0
    assert np.array_equal(array(tmp_path / "again" / "cs_mri" / "v"), first)
    assert not (tmp_path / "lightning_logs").exists()
    # What is given by hand comes over the configuration, wherever it stands.
    assert main(["predict", "--output_dir", str(tmp_path / "b"), "--config", str(tmp_path / "saved.yaml")]) == 0
    assert np.array_equal(array(tmp_path / "b" / "cs_mri" / "v"), first)


def test_flags_come_before_what_a_checkpoint_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = '{"channels": [8, 16], "attention": false}'
    train = ["fit", "--data.image_size", "32", "--data.phantom_volumes", "1", "--data.slices_per_epoch", "16"]
    train += ["--model.network_options", network, "--model.cosine", "false", "--model.warmup_steps", "1"]
    train += ["--trainer.enable_progress_bar", "false", *QUICK]
    assert main([*train, "--steps", "2", "--model.learning_rate", "1e-3", "--output_dir", "first"]) == 0
    (checkpoint,) = Path("first").rglob("last.ckpt")
    more = ["--steps", "4", "--model.learning_rate", "2e-4", "--data.batch_size", "4", "--output_dir", "second"]
    assert main([*train, *more, "--ckpt_path", str(checkpoint)]) == 0
    (resumed,) = Path("second").rglob("last.ckpt")
    content = torch.load(resumed, weights_only=True)
    assert content["global_step"] == 4
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(2e-4)
    assert content["hyper_parameters"]["learning_rate"] == pytest.approx(2e-4)

    args = ["predict", "--task", "sv_ct", "--views", "5", "--steps", "2", "--ckpt_path", str(checkpoint)]
    assert main([*args, "--data.image_size", "32", "--output_dir", "out"]) == 0
    metrics = json.loads(next(Path("out").rglob("metrics.json")).read_text())
    assert metrics["settings"]["views"] == 5 and metrics["task"] == "sv_ct"


def test_a_complex_prior_is_trained_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train = ["fit", "--config", "prior_mri_complex", "--steps", "2", "--output_dir", "fit", *QUICK]
    train += ["--model.network_options", '{"channels": [8, 16], "align_phase": true}']
    train += ["--data.image_size", "[32, 64]", "--data.crop_size", "32", "--data.slices_per_epoch", "16"]
    assert main([*train, "--data.phantom_volumes", "1"]) == 0
    (config,) = Path("fit").rglob("config.yaml")
    assert yaml.safe_load(config.read_text())["trainer"]["gradient_clip_val"] == 1.0
    (prior,) = Path("fit").rglob("prior.safetensors")
    assert load_prior(prior).complex and load_prior(next(Path("fit").rglob("last.ckpt"))).complex
    args = ["predict", "--task", "cs_mri", "--acc", "3", "--phase", "true", "--steps", "2", "--prior", str(prior)]
    assert main([*args, "--data.image_size", "32", "--output_dir", "out"]) == 0
    assert next(Path("out").rglob("recon.nii.gz")).is_file()


def test_reading_a_volume_says_nothing_of_decoders(tmp_path: Path) -> None:
    """Neither on the command line nor in Python, while MONAI's other warnings are heard."""
    code = (
        "import logging, sys; from lightning_mbir.data import read_volume; read_volume(sys.argv[1], 'mri');"
        "logging.getLogger('monai.data.nvimgcodec_pydicom_plugin').warning('something else')"
    )
    command = [sys.executable, "-c", code, str(head(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout + done.stderr == "something else\n"


def test_test_prints_the_scores(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["test", *SMALL, "--output_dir", str(tmp_path)]) == 0
    told = capfd.readouterr().out
    assert "| method | volume PSNR / SSIM | axial PSNR / SSIM |" in told and "Test metric" not in told
    assert (tmp_path / "sv_ct/scores/fbp/results.csv").is_file()
    assert not list(tmp_path.rglob("recon.nii.gz"))


TINY_FIT = [
    "fit", "--data.image_size", "32", "--data.phantom_volumes", "1", "--data.slices_per_epoch", "16", "--steps", "6",
    "--model.network_options", '{"channels": [8, 16], "attention": false}', *QUICK,
]  # fmt: skip


def test_an_interrupted_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 130, as of any program that is interrupted; 1 is for volumes that failed."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_mbir.reconstruction.runner.run_method", interrupted)
    args = ["--task", "cs_mri", "--method", "zero_filled", "--data.image_size", "32"]
    assert main(["predict", *args, "--output_dir", str(tmp_path)]) == 130
    assert "lightning_mbir: interrupted" in capsys.readouterr().err


def test_running_out_of_memory_in_training_says_what_to_do_and_keeps_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = ScorePriorModule.training_step

    def exhausting(self: ScorePriorModule, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.global_step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ScorePriorModule, "training_step", exhausting)
    monkeypatch.chdir(tmp_path)
    assert main([*TINY_FIT, "--output_dir", "out"]) == 2
    error = capsys.readouterr().err
    (last,) = Path("out").rglob("last.ckpt")
    assert "--data.batch_size" in error and "accumulate_grad_batches" in error
    assert f"--ckpt_path {last}" in error
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main([*TINY_FIT, "--output_dir", "again", "--ckpt_path", str(last)]) == 0
    assert "6 steps" in next(Path("again").rglob("prior.md")).read_text()


@pytest.mark.parametrize(
    ("fill", "words"), [(None, "no volume"), (0.0, "signal"), (float("nan"), "NaN")], ids=["empty", "zero", "nan"]
)
def test_folders_that_cannot_be_trained_on_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fill: float | None, words: str
) -> None:
    folder, out = tmp_path / "scans", tmp_path / "out"
    folder.mkdir()
    if fill is not None:
        nib.save(nib.Nifti1Image(np.full((16, 16, 4), fill, np.float32), np.eye(4)), folder / "p_t1.nii.gz")
    args = [*TINY_FIT, "--data.modality", "mri", "--data.path", str(folder), "--output_dir", str(out)]
    assert main(args) == 2
    error = capsys.readouterr().err.strip()
    assert error.splitlines()[-1].startswith("lightning_mbir: error:") and words in error
    assert str(folder) in error
    assert not list(out.rglob("*.ckpt")) and not list(out.rglob("*.safetensors"))


def program(*args: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "lightning_mbir", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)


def three_heads(folder: Path) -> Path:
    folder.mkdir()
    for number, name in enumerate("abc"):
        head(folder, f"{name}.nii.gz", (24, 20, 5 + number))
    return folder


@pytest.mark.slow
def test_two_processes_share_the_volumes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every volume once, and the same bytes as from one process: this one, which has one thread as ranks have."""
    base = ["predict", "--task", "cs_mri", "--acc", "4", "--steps", "3", "--data.image_size", "32"]
    base += ["--data.path", str(three_heads(tmp_path / "in"))]
    assert main([*base, "--trainer.accelerator", "cpu", "--output_dir", str(tmp_path / "one")]) == 0
    done = program(*base, *DDP, "--output_dir", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert capfd.readouterr().out.count("data residual") == done.stdout.count("data residual") == 3
    for number, volume in enumerate("abc"):
        one, two = (array(tmp_path / name / "cs_mri" / volume) for name in ("one", "two"))
        assert one.shape[-1] == 5 + number
        assert np.array_equal(one, two)


@pytest.mark.slow
def test_two_processes_for_one_volume_are_refused(tmp_path: Path) -> None:
    """Without one of them waiting for the other."""
    args = ["predict", "--task", "cs_mri", "--acc", "4", "--data.image_size", "32", "--data.slices", "0:4", *DDP]
    args += ["--split", "volumes"]
    done = program(*args, "--data.path", str(head(tmp_path)), "--output_dir", str(tmp_path / "x"))
    assert done.returncode == 2 and "fewer" in done.stderr


@pytest.mark.slow
def test_two_processes_make_the_table_of_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Three volumes for two processes: one is repeated to make them even, and counts once."""
    base = ["test", "--task", "cs_mri", "--methods", "dds,zero_filled", "--data.image_size", "32"]
    base += ["--model.method_options", '{"dds": {"steps": 2}}', "--data.path", str(three_heads(tmp_path / "in"))]
    assert main([*base, "--trainer.accelerator", "cpu", "--output_dir", str(tmp_path / "one")]) == 0
    said = {"one": capfd.readouterr().out}
    done = program(*base, *DDP, "--output_dir", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    said["two"] = done.stdout
    rows = {}
    for name, text in said.items():
        assert text.count(" dds: PSNR") == 3 and text.count("| volume PSNR / SSIM |") == 1
        out = tmp_path / name / "cs_mri/comparison"
        kept = [path.suffix for path in (out / "rows").iterdir()]
        assert len(list(out.glob("comparison_?.png"))) == len(list(out.glob("report_?.html"))) == 3
        assert kept.count(".json") == kept.count(".npz") == 6 and len(kept) == 18, kept
        rows[name] = json.loads((out / "results.json").read_text())
        for row in rows[name]:
            assert row.pop("seconds") >= 0 and row.pop("peak_mib") >= 0
    assert [(row["volume"]["name"], row["method"]) for row in rows["one"]] == [
        (volume, method) for volume in "abc" for method in ("dds", "zero_filled")
    ]
    assert rows["one"] == rows["two"]


def test_wheel_carries_defaults_configurations_and_priors(tmp_path: Path) -> None:
    hatchling = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is in the test extra")
    path = next(iter(hatchling.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])))
    names = zipfile.ZipFile(path).namelist()
    for name in (
        "LightningCLI.yaml",
        "configs/prior_ct.yaml",
        "assets/SHA256SUMS",
        *(f"assets/{prior}.safetensors" for prior in BUNDLED),
        "py.typed",
        *(f"report/assets/{name}" for name in ("report.html", "report.css", "report.js", "niivue.umd.js.gz")),
        *(f"report/assets/{name}" for name in ("niivue.LICENSE.txt", "SHA256SUMS")),
    ):
        assert f"lightning_mbir/{name}" in names
