"""SIGTERM and SIGINT: a run ends in seconds, says so in one line, and leaves what is whole."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lightning_mbir import interrupts
from lightning_mbir.interrupts import interruptible

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 12.0
"""From the signal to the end; most of it is the grace that a process has which does not end by itself."""
PREDICT = ["predict", "--task", "sv_ct", "--data.image_size", "32", "--data.slices", "4:20", "--steps", "2000"]
FIT = [
    "fit", "--data.image_size", "32", "--data.phantom_volumes", "1", "--data.slices_per_epoch", "400",
    "--trainer.limit_val_batches", "1", "--model.network_options", '{"channels": [8, 16], "attention": false}',
]  # fmt: skip
FIT_UNET = ["fit_unet", "--task", "sv_ct", "--data.image_size", "32", "--data.variants", "2"]
CPU = ["--trainer.accelerator", "cpu"]


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


def signalled(number: int) -> int:
    os.kill(os.getpid(), number)
    time.sleep(5)
    return 0


def test_signals_are_statuses_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert interruptible(lambda: 0) == 0 and interruptible(lambda: 2) == 2
    assert interruptible(lambda: signalled(signal.SIGTERM)) == 143
    assert capsys.readouterr().err == "lightning_mbir: terminated\n"
    assert interruptible(lambda: signalled(signal.SIGINT)) == 130
    assert capsys.readouterr().err == "lightning_mbir: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before and signal.set_wakeup_fd(-1) == -1
    for error in (SystemExit(3), ValueError("ours")):
        with pytest.raises(type(error)):
            interruptible(raising(error))


def test_notes_are_told_and_what_a_teardown_raises_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        try:
            return signalled(signal.SIGTERM)
        except KeyboardInterrupt as error:
            error.add_note("all is kept")
            raise RuntimeError("connection closed by peer") from None

    assert interruptible(work) == 143
    assert capsys.readouterr().err == "lightning_mbir: terminated; all is kept\n"


def test_elsewhere_than_in_the_main_thread_signals_are_somebody_elses() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(interruptible(lambda: 7)))
    thread.start()
    thread.join()
    assert found == [7]


STUCK = """
import hashlib, subprocess, sys, time
from lightning_mbir import interrupts
interrupts.GRACE = 1.0
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
def work():
    interrupts.reach_ranks([other])
    print(other.pid, flush=True)
    if sys.argv[1] == "blocked":  # as in a library that waits for other ranks, where no handler of Python's runs
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:  # swallowed, as in a callback of a library
            pass
sys.exit(interrupts.interruptible(work))
"""


@pytest.mark.parametrize("how", ["swallowed", "blocked"])
def test_a_process_that_does_not_end_is_ended_with_those_it_started(how: str) -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK, how], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        other = int(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    for _ in range(50):
        if not Path(f"/proc/{other}").exists() or "Z (zombie)" in Path(f"/proc/{other}/status").read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the other process lives")


def test_forked_processes_have_their_own_signals() -> None:
    def work() -> int:
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        time.sleep(0.2)
        assert not interrupts._Signals.received
        return 0

    assert interruptible(work) == 0


def ended(args: list[str], number: int, folder: Path, reached: Callable[[Path], bool]) -> tuple[int, str]:
    """The status and the last line of a command that gets a signal once it has ``reached`` something."""
    errors = folder.parent / f"{folder.name}.txt"
    command = [sys.executable, "-m", "lightning_mbir", *args, *CPU, "--output_dir", str(folder)]
    with errors.open("w") as stream, subprocess.Popen(command, cwd=ROOT, stderr=stream, stdout=stream) as process:
        for _ in range(1200):
            if reached(folder) or process.poll() is not None:
                break
            time.sleep(0.1)
        time.sleep(0.5)
        started = time.monotonic()
        process.send_signal(number)
        status = process.wait(60)
        assert time.monotonic() - started < SECONDS
    lines = errors.read_text().splitlines()
    assert sum(line.startswith("lightning_mbir:") for line in lines) == 1, lines
    return status, lines[-1]


def works_on(name: str) -> Callable[[Path], bool]:
    return lambda folder: (folder / f"sv_ct/.running-{name}").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_predict_ends_and_leaves_the_old_result(tmp_path: Path, number: int) -> None:
    task = tmp_path / "out/sv_ct"
    (task / "demo_chest_0").mkdir(parents=True)
    (task / "demo_chest_0/recon.nii.gz").write_bytes(b"old")
    status, line = ended(PREDICT, number, tmp_path / "out", works_on("demo_chest_0"))
    word = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}[signal.Signals(number)]
    assert status == 128 + number
    told = "nothing of demo_chest_0 was kept yet, so that the same command begins it again"
    assert line == f"lightning_mbir: {word}; {told}"
    assert [path.name for path in task.iterdir()] == ["demo_chest_0"]
    assert [path.name for path in (task / "demo_chest_0").iterdir()] == ["recon.nii.gz"]


@pytest.mark.slow
def test_all_ranks_end(tmp_path: Path) -> None:
    args = [*PREDICT, "--data.demo_volumes", "2", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    status, line = ended(args, signal.SIGTERM, tmp_path / "out", works_on("demo_chest_1"))
    assert status == 143 and line.startswith("lightning_mbir: terminated")
    marks = [str(tmp_path / "out").encode() in path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not any(marks) and list((tmp_path / "out/sv_ct").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("args", [[*FIT, "--data.num_workers", "1"], FIT_UNET], ids=["fit", "fit_unet"])
def test_a_training_ends_and_says_how_it_is_gone_on_with(tmp_path: Path, args: list[str]) -> None:
    quick = ["--trainer.precision", "32-true", "--trainer.val_check_interval", "5"]
    if args == FIT_UNET:
        (tmp_path / "in").mkdir()
        for name, density in (("a", 40), ("b", 60)):
            hu = np.full((32, 32, 8), -1000, np.int16)
            hu[8:24, 8:24] = density
            nib.save(nib.Nifti1Image(hu, np.diag([8.0, 8.0, 3.0, 1.0])), tmp_path / f"in/{name}.nii.gz")
        quick += ["--data.path", str(tmp_path / "in"), "--data.batch_size", "1"]

    def kept(folder: Path) -> bool:
        return bool(list(folder.rglob("last.ckpt")))

    status, line = ended([*args, *quick], signal.SIGTERM, tmp_path / "out", kept)
    (last,) = (tmp_path / "out").rglob("last.ckpt")
    assert status == 143
    assert line == f"lightning_mbir: terminated; what was trained is kept; go on with --ckpt_path {last}"
    assert not list((tmp_path / "out").rglob(".*"))
