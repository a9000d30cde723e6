"""Several processes of one run: where one fails all end in seconds, and one line says why."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightning_mbir.cli import main
from lightning_mbir.cli import ranks as cli_ranks
from tests.cli.test_cli import DDP, ROOT, head
from tests.cli.test_errors import PREDICT

SOON = 30.0
"""Seconds within which a run has ended that was killed, on a busy machine, too."""
REFUSED = 120.0
"""Seconds of one that comes to its error by itself: most are imports."""


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abcd":
        head(folder, f"{name}.nii.gz")
    return folder


@pytest.fixture
def start(tmp_path: Path, volumes: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a run of two processes."""
    started = []

    def run(*args: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lightning_mbir", "predict", "--task", "cs_mri", "--data.image_size", "32"]
        command += [*DDP, "--data.path", str(volumes), "--output_dir", str(tmp_path / "out"), *args]
        told = {**os.environ, "TMPDIR": str(tmp_path), **environment}
        process = subprocess.Popen(command, cwd=ROOT, env=told, stdout=-1, stderr=-1, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()


LONG = ["--method", "dds", "--steps", "2000"]
SHORT = ["--method", "zero_filled"]


def ends(process: subprocess.Popen[str], status: int, folder: Path, within: float = SOON) -> str:
    """The error of a run that has to end soon, in all of its processes, and leaves no file of its own."""
    _, said = process.communicate(timeout=within)  # which waits for whoever may write
    assert process.returncode == status, said
    errors = [line for line in said.splitlines() if line.startswith("lightning_mbir")]
    assert len(errors) == 1 and "Traceback" not in said, said
    assert not list(folder.glob("lightning_mbir-*"))
    return errors[0]


def child(process: subprocess.Popen[str]) -> int:
    """The number of the second process, as soon as there is one."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not listed.read_text().split():
        time.sleep(0.05)
    return int(listed.read_text().split()[0])


def is_at_work(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    while "sigma" not in process.stderr.readline():  # of the progress of the first volume
        assert process.poll() is None


@pytest.mark.slow
def test_a_volume_that_one_process_cannot_read_ends_both(
    volumes: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    damaged = volumes / "b.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    assert str(damaged) in ends(start(*SHORT), 2, tmp_path, REFUSED)
    assert not list((tmp_path / "out").rglob("recon.nii.gz"))


@pytest.mark.slow
def test_what_both_refuse_is_told_once(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    assert "--data.slices 50:60" in ends(start(*SHORT, "--data.slices", "50:60"), 2, tmp_path, REFUSED)


@pytest.mark.slow
def test_a_port_in_use_is_told_once(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    with socket.socket() as used:
        used.bind(("0.0.0.0", 0))
        used.listen()
        port = str(used.getsockname()[1])
        assert f"port {port} is in use" in ends(start(*SHORT, MASTER_PORT=port), 2, tmp_path, REFUSED)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are found in /proc")
@pytest.mark.parametrize("which", ["first, early", "second, at work", "second, of one volume"])
def test_a_process_that_is_killed_ends_the_other(
    which: str, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start(*LONG, "--split", "slices" if which.endswith("volume") else "volumes")
    second = child(process)
    if which == "first, early":  # while the second is still at its imports
        os.kill(process.pid, signal.SIGKILL)
        assert "the first process of the run is gone" in ends(process, -signal.SIGKILL, tmp_path)
    else:
        is_at_work(process)
        os.kill(second, signal.SIGKILL)
        assert "was ended by SIGKILL" in ends(process, 2, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are found in /proc")
def test_an_interrupt_of_the_first_ends_both(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start(*LONG)
    is_at_work(process)
    process.send_signal(signal.SIGINT)
    assert "interrupted" in ends(process, 130, tmp_path)


def test_nodes_that_do_not_know_of_each_other_are_told_before_they_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert main([*PREDICT, "--trainer.accelerator=cpu", "--trainer.num_nodes=2"]) == 2
    assert "set MASTER_PORT, NODE_RANK on each of them" in capsys.readouterr().err


def test_one_of_several_processes_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli_ranks.first_to_tell() and cli_ranks.first_to_tell()  # alone
    told = tmp_path / "told"
    monkeypatch.setenv(cli_ranks.RUN, f"{os.getpid()}:{told}")
    assert [cli_ranks.first_to_tell() for _ in range(3)] == [True, False, False]
    cli_ranks.finish()
    assert not told.exists() and cli_ranks.RUN not in os.environ
    monkeypatch.setenv(cli_ranks.RUN, f"1:{told}" if os.getppid() != 1 else f"2:{told}")  # whose first process is gone
    assert not cli_ranks.first_to_tell() and not told.exists()
