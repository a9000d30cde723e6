"""Errors that a user can cause, of whichever library, are one line and status 2; bugs of ours show a traceback."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import DistNetworkError

from lightning_mbir.cli import main
from lightning_mbir.cli.errors import first_sentence, parser_line, told
from lightning_mbir.errors import InputError
from tests.cli.test_cli import QUICK, ROOT, TINY_FIT

PREDICT = ["predict", "--task", "sv_ct", "--method", "fbp", "--data.image_size", "32", "--data.slices", "10:12"]
FIT = TINY_FIT[: -len(QUICK)]
LONG = "x" * 5000

TRAINER = [
    ("--trainer.devices=0", "--trainer.devices 0"),
    ("--trainer.devices=-5", "--trainer.devices -5: devices selected with CPUAccelerator should be an int > 0"),
    ("--trainer.devices=abc", "--trainer.devices abc"),
    ("--trainer.devices=[0,1]", "--trainer.devices [0,1]"),
    ("--trainer.devices=999", "--trainer.devices 999: 999 processes for"),
    ("--trainer.accelerator=tpu", "torch_xla"),
    ("--trainer.accelerator=xyz", "--trainer.accelerator xyz: You selected an invalid accelerator name"),
    ("--trainer.accelerator=", "lacks its value"),
    ("--trainer.strategy=nonsense", "Example choices: auto, ddp"),
    ("--trainer.strategy=fsdp", "requires a GPU"),
    ("--trainer.strategy=deepspeed", "DeepSpeed"),
    ("--trainer.num_nodes=2", "set MASTER_ADDR, MASTER_PORT, NODE_RANK on each of them, or start them with torchrun"),
    ("--trainer.num_nodes=0", "--trainer.num_nodes 0: num_nodes must be a positive integer"),
    ("--trainer.precision=7", "--trainer.precision 7: give 64 or 32 or 16"),
    ("--trainer.limit_predict_batches=2.5", "--trainer.limit_predict_batches 2.5"),
    ("--trainer.limit_predict_batches=-1", "it has to be in [0.0, 1.0] or an int"),
    ("--trainer.limit_predict_batches=abc", "abc: give a whole number or a number or null"),
    ("--trainer.max_epochs=-7", "--trainer.max_epochs -7"),
    ("--trainer.max_time=soon", "--trainer.max_time soon: give days:hours:minutes:seconds"),
    ("--trainer.max_time=3", "--trainer.max_time 3: give days:hours:minutes:seconds, such as 00:08:00:00"),
    ("--trainer.callbacks=nonsense", "--trainer.callbacks nonsense: give a class path"),
    ("--trainer.logger=nonsense", "--trainer.logger nonsense"),
    ("--trainer.plugins=nonsense", "--trainer.plugins nonsense"),
    ("--trainer.profiler=nonsense", "--trainer.profiler nonsense"),
    ("--trainer.fast_dev_run=-1", "--trainer.fast_dev_run -1"),
    ("--trainer.barebones=true", "--trainer.barebones true"),
    ("--trainer.inference_mode=maybe", "--trainer.inference_mode maybe: give true or false"),
    ("--trainer.gradient_clip_algorithm=x", "Allowed algorithms: ['value', 'norm']"),
    ("--trainer.device=1", "--trainer.device: unknown (did you mean --trainer.devices?)"),
]
FLAGS = [
    ("--seed=-1", "--seed -1: give a whole number of at least 0"),
    ("--seed -1", "--seed -1: give a whole number of at least 0"),
    ("--seed 99999999999999999999", "--seed 99999999999999999999: give a whole number of at most"),
    ("--seed_everything abc", "--seed_everything abc: give true or false or a whole number"),
    ("--seed_everything=-3", "--seed_everything -3: give a whole number of at least 0"),
    ("--views abc", "--views abc: give a whole number"),
    ("--views", "--views: lacks its value"),
    ("--views=", "--views: lacks its value"),
    ("--model.vews 8", "--model.vews: unknown (did you mean --views?)"),
    ("--data.slice 1:2", "--data.slice: unknown (did you mean --data.slices?)"),
    ("--model.method_options {", "--model.method_options {: give settings such as"),
    ("--model.method_options [1]", "--model.method_options [1]: give settings such as"),
    ("--data.slices 5:2", "--data.slices 5:2: give first:last+1"),
    ("--phase yes", "--phase yes: give true or false"),
    ("--output_dir file", "--output_dir file"),
    ("--output_dir file/below", "is not a folder"),
    ("--output_dir a\0b", "holds a zero byte"),
    ("--data.path a\udcffb.nii", "is no text in UTF-8"),
    (f"--output_dir {LONG}", "File name too long"),
    (f"--data.path {LONG}", "File name too long"),
    (f"--prior {LONG}", "File name too long"),
    ("--model x", "--model: Unable to load config 'x'"),
    ("--trainer {", "--trainer: Unable to load config"),
    ("--return_predictions abc", "--return_predictions abc: give true or false"),
    ("--print_config=x", "--print_config"),
    ("extra", "extra: unknown"),
    ("-x", "-x: unknown"),
    ("--", "unknown flag"),
    ("--views 1000000000", "--views 1000000000: give at most 10000 views"),
    ("--photons 1e300", "--photons 1e+300"),
    ("--steps 1000000000", "--steps 1000000000: give a whole number of at most 100000"),
    ("--samples 1000000", "--samples 1000000: give a whole number of at most 10000"),
    ("--data.image_size 1000000", "--data.image_size 1000000: give a whole number of at most"),
    ("--data.demo_volumes 100000000", "--data.demo_volumes 100000000: give from 1 to 1000"),
    ("--task cs_mri --coils 1000000", "--coils 1000000: give at most 1024"),
    ("--task cs_mri --acc 1e300", "--acc 1e+300: an acceleration is at most"),
    ("--task cs_mri --snr 1e300", "--snr 1e+300"),
]
TRAINING = [
    ("--trainer.max_steps=-7", "--steps -7"),
    ("--trainer.val_check_interval=-2", "--trainer.val_check_interval -2"),
    ("--trainer.check_val_every_n_epoch=0", "--trainer.check_val_every_n_epoch 0: give a whole number of at least 1"),
    ("--trainer.accumulate_grad_batches=0", "--trainer.accumulate_grad_batches 0: give a whole number of at least 1"),
    ("--trainer.limit_train_batches=2.5", "--trainer.limit_train_batches 2.5"),
    ("--seed=-1", "--seed -1: give a whole number of at least 0"),
    ("--seed_everything=-1", "--seed -1: give a whole number of at least 0"),
    ("--output_dir file", "--output_dir file"),
    ("--config prior_ct --data.image_size 128", "no slice of --data.image_size 128 is larger than crops of 128"),
    ("--weights_only false", "--weights_only: unknown flag"),
]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder but for a file."""
    (tmp_path / "file").write_text("a file")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The line of a command that is refused before anything is written."""
    before = sorted(Path().rglob("*"))
    assert main(args) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("lightning_mbir: error: ") and "Traceback" not in line
    assert sorted(Path().rglob("*")) == before
    return line


@pytest.mark.parametrize(("arg", "words"), TRAINER)
def test_what_lightning_refuses_is_one_line(
    work: Path, arg: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu = [] if "accelerator" in arg else ["--trainer.accelerator=cpu"]
    assert words in refused([*PREDICT, *cpu, arg], capsys)


@pytest.mark.parametrize(("arg", "words"), FLAGS)
def test_flags_say_their_value_and_what_would_be_right(
    work: Path, arg: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused([*PREDICT, *arg.split(" ")], capsys)
    assert words in line and len(line) < 700


@pytest.mark.parametrize(("arg", "words"), TRAINING)
def test_training_is_refused_alike(work: Path, arg: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["fit"] if "--config" in arg else FIT
    assert words in refused([*base, "--trainer.accelerator=cpu", *arg.split(" ")], capsys)


def test_a_folder_that_nobody_gave_is_looked_at_before_a_training_too(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "outputs").write_text("a file")
    line = refused(["fit", "--trainer.accelerator=cpu", "--config", "prior_quick"], capsys)
    assert f"--output_dir outputs/fit: {work / 'outputs'} is not a folder; give a folder that you may write to" in line


@pytest.mark.parametrize("flag", ["--data.path", "--prior", "--config", "--output_dir", "--task"])
def test_nothing_is_no_value(work: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{flag}: lacks its value" in refused([*PREDICT, flag, ""], capsys)


def test_printing_the_configuration_and_all_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    for arg, words in (("--print_config", "views: 9"), ("--help_all", "--trainer.devices")):
        assert main([*PREDICT, "--views", "9", arg]) == 0
        assert words in capsys.readouterr().out


def raising(error: BaseException) -> Callable[..., None]:
    def fails(*args: Any, **options: Any) -> None:
        raise error

    return fails


def test_a_bug_of_ours_shows_where_it_is(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its kind, and wherever it is met: where it is made, and in the middle of the work."""
    bug = KeyError("a bug")
    for place in ("get_task", "ReconstructionModule._check_data", "predict_volume"):
        with monkeypatch.context() as patch:
            patch.setattr(f"lightning_mbir.reconstruction.module.{place}", raising(ZeroDivisionError()))
            with pytest.raises(ZeroDivisionError):
                main([*PREDICT, "--trainer.accelerator=cpu"])
    assert told(bug) is None  # never raised, so of nobody else
    assert (
        told(RuntimeError("Caught KeyError in DataLoader worker\nTraceback (most recent call last):\nKeyError: 1"))
        is None
    )
    worker = (
        "Caught InputError.\nOriginal Traceback (most recent call last):\n x\nlightning_mbir.errors.InputError: a: b\n"
    )
    assert told(InputError(worker)) == "a: b"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b.nii"), "a/b.nii: No space left on device; make room"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied"),
        (DistNetworkError("The server socket has failed to listen. port: 29500, EADDRINUSE"), "port 29500 is in use"),
    ],
    ids=["full", "permission", "port"],
)
def test_what_gives_way_in_the_middle_is_one_line(
    work: Path, error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lightning_mbir.reconstruction.module.predict_volume", raising(error))
    assert main([*PREDICT, "--trainer.accelerator=cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_full_disk_under_torchs_archive_is_told_as_such() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672]")  # noqa: B904 -- as torch does
    except RuntimeError as error:
        assert "make room" in str(told(error))


def test_threads_of_tensorboard_say_nothing_of_a_full_disk(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = threading.excepthook

    def from_a_thread(*args: Any, **options: Any) -> None:
        thread = threading.Thread(target=raising(OSError(errno.ENOSPC, "No space left on device")))
        thread.start()
        thread.join()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lightning_mbir.reconstruction.module.predict_volume", from_a_thread)
    assert main([*PREDICT, "--trainer.accelerator=cpu"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert threading.excepthook is hook


def test_what_was_trained_stands_in_the_same_line(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "prior.safetensors")
    monkeypatch.setattr(
        "lightning_mbir.prior.training.module.ScorePriorModule.on_fit_end", raising(full), raising=False
    )
    assert main([*TINY_FIT, "--output_dir", "out"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    (last,) = Path("out").rglob("last.ckpt")
    assert line.startswith("lightning_mbir: error: prior.safetensors: No space") and line.endswith(
        f"--ckpt_path {last}"
    )


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("`max_steps` must be at least -1. You passed in -7.", "max_steps must be at least -1"),
        ("Bad `x`. Available names are: a, b. See docs.", "Bad x; Available names are: a, b"),
        ("x=<lightning.x.Logger object at 0x7f43> was passed.", "x=Logger was passed"),
        ("a is 1.5, not 2", "a is 1.5, not 2"),
        ("", "ValueError"),
    ],
)  # fmt: skip
def test_the_first_sentence_and_what_would_be_right(message: str, line: str) -> None:
    assert first_sentence(ValueError(message)) == line


def test_messages_of_the_parser_that_nobody_knows_are_their_first_lines() -> None:
    assert parser_line('Parser key "model.x":\n  Something else\n  and more') == "--model.x: Something else"
    assert parser_line("One\n- two\n- three") == "One; two"
    assert parser_line("") == "the arguments cannot be used"


@pytest.mark.slow
def test_files_in_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    """Neither in the place of libraries, nor as what a class path or an entry point names."""
    for name in ("torch", "yaml", "jsonargparse", "lightning", "monai", "pytorch_lightning", "evil"):
        (tmp_path / f"{name}.py").write_text("open('pwned', 'w')\n")
    info = tmp_path / "evil-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lightning_mbir.methods]\nevil = evil:run\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for args, status in (
        ([*PREDICT, "--trainer.accelerator=cpu"], 0),
        ([*PREDICT[:3], "--method", "evil"], 2),
        (["predict", "--method", "evil.run", "--trust", "evil"], 2),
        ([*PREDICT, "--trainer.callbacks=pytorch_lightning.Thing"], 2),
    ):
        command = [sys.executable, "-m", "lightning_mbir", *args]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == status, done.stderr
        assert not (tmp_path / "pwned").exists()
