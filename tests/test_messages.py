"""Where messages go: of a library nowhere by themselves, on the command line to standard error; results are printed."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from lightning_mbir.cli import main
from lightning_mbir.messages import LOGGER, about, console, first_process, quiet, telling, tracked

ROOT = Path(__file__).resolve().parents[1]
RUN = ["predict", "--task", "sv_ct", "--method", "fbp", "--data.image_size", "32", "--data.slices", "12:14"]


def test_importing_sets_up_nothing() -> None:
    code = (
        "import logging; from lightning_mbir.reconstruction import ReconstructionModule;"
        "found = [logging.getLogger(n) for n in logging.root.manager.loggerDict if n.startswith('lightning_mbir')];"
        "assert found and all(log.level == 0 and not log.handlers and log.propagate for log in found), found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("switch", "shown"),
    [
        ("", ["a note", "warning: a worry"]),
        ("--quiet", []),
        ("--verbose", ["debug: a detail", "a note", "warning: a worry"]),
    ],
)
def test_a_switch_says_how_much_is_told(switch: str, shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = LOGGER.handlers[:], LOGGER.level
    with telling(switch):
        log = logging.getLogger("lightning_mbir.some.module")
        log.debug("a detail")
        log.info("a note")
        log.warning("a worry")
        assert quiet() == (switch == "--quiet")
    out, err = capsys.readouterr()
    assert not out and err.splitlines() == shown
    assert (LOGGER.handlers, LOGGER.level) == before


def test_only_the_first_process_has_anything_to_say_but_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "SLURM_PROCID", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not first_process()
    with telling("--verbose"):
        LOGGER.info("a note")
        LOGGER.warning("a worry")
    assert capsys.readouterr().err == "warning: a worry\n"
    monkeypatch.setenv("RANK", "0")  # as torchrun says it of all nodes
    assert first_process()


def test_a_warning_says_what_it_is_about_and_no_line_of_code(capsys: pytest.CaptureFixture[str]) -> None:
    with telling():
        with about("chest"):
            warnings.warn("views are\n cut off", stacklevel=1)
        warnings.warn("another", stacklevel=1)
        warnings.warn("of developers", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: chest: views are cut off\nwarning: another\n"


def test_a_terminal_has_the_same_messages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with telling():
        LOGGER.warning("a worry [1/mm] about /some/file.nii.gz")
    told = capsys.readouterr().err
    assert "WARNING" in told and "a worry [1/mm] about" in told


def test_a_line_of_progress_is_one_line_in_a_pipe_and_broken_between_words_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "a word and " * 20
    console().print(line)
    assert capsys.readouterr() == ("", f"{line}\n")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    console().print(line)
    out, err = capsys.readouterr()
    assert not out and err.count("\n") > 1 and max(map(len, err.splitlines())) <= 60


@pytest.mark.parametrize(("terminal", "switch"), [(False, ""), (True, "--quiet"), (True, "")])
def test_what_is_tracked_has_a_bar_on_a_terminal_alone_and_never_among_results(
    terminal: bool, switch: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "xterm")
    with telling(switch):
        assert list(tracked(iter(range(3)), "reading", 3)) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == "" and ("reading" in err) == (terminal and not switch)


def test_results_alone_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--output_dir", str(tmp_path), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.startswith("demo_chest_0: PSNR") and out.count("\n") == 1
    assert main([*RUN, "--output_dir", str(tmp_path), "--overwrite", "true", "--verbose"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and "debug: demo_chest_0: fbp (filter hann); on cpu" in err
    assert main([*RUN, "--quiet=1"]) == 2 and "--quiet=1: takes no value; give --quiet" in capsys.readouterr().err
    assert main([*RUN, "--quiet", "--verbose"]) == 2 and "give one of them" in capsys.readouterr().err


def test_nothing_of_a_package_is_told_in_an_ordinary_run(tmp_path: Path) -> None:
    """In a process of its own, with Python's own filters."""
    command = [sys.executable, "-m", "lightning_mbir", *RUN, "--output_dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0 and "site-packages" not in done.stderr and "arning" not in done.stderr, done.stderr
