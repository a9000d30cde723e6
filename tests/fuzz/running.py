"""What has to hold of any input, however bad: a result or one line, and nothing half done."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lightning_mbir.cli import main
from lightning_mbir.errors import InputError

HANGS = 30.0
"""Seconds after which an input counts as one that hangs."""


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for one input: hypothesis runs many in one test, which share its fixtures."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        yield Path(name)


def command(arguments: list[str], output: Path) -> int:
    """Run the command line in this process; the status, of which one of 0 and 2 has to come, as told below.

    Of 2: exactly one line on standard error, and nothing in the output folder. Of 0: no file that is not whole.
    """
    out, err = io.StringIO(), io.StringIO()
    started = time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([*arguments, "--output_dir", str(output)])
        except SystemExit as exit:
            raise AssertionError(f"{arguments}: SystemExit {exit.code}: {err.getvalue()}") from exit
    told = err.getvalue()
    assert time.monotonic() - started < HANGS, f"{arguments}: hangs"
    assert status in (0, 2), f"{arguments}: status {status}: {told}"
    assert "Traceback" not in told + out.getvalue(), f"{arguments}: {told}"
    left = [path.name for path in output.rglob("*")] if output.exists() else []
    assert not [name for name in left if name.startswith((".partial-", ".running-"))], f"{arguments}: {left}"
    if status == 2:
        lines = told.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("lightning_mbir: error: "), f"{arguments}: {told}"
        assert not left, f"{arguments}: refused ({told}), and left {left}"
    return status


def read(reader: Callable[..., Any], *arguments: Any) -> Any:
    """What a reader makes of a file, or None where it refuses it in one line."""
    started = time.monotonic()
    try:
        return reader(*arguments)
    except InputError as error:
        assert "\n" not in str(error).strip() and str(error).strip(), repr(error)
        return None
    finally:
        assert time.monotonic() - started < HANGS, f"{arguments}: hangs"
