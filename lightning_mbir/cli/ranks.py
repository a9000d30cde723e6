"""The processes of one run on several devices: where one fails all end, in seconds, and one line says why.

Lightning starts them as copies of the command and looks at them every five seconds, to kill all where one has failed,
the first one too. Here each looks after the others: the first after its children, these after the first. Who has an
error to tell makes a file that only one can make.
"""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from lightning_mbir.cli.orphans import GONE, RUN, looked_after
from lightning_mbir.errors import InputError, fail
from lightning_mbir.interrupts import INTERRUPTED, TERMINATED, reach_ranks

LOOK = 0.2
"""Seconds between two looks at the others."""
GRACE = 3.0
"""Seconds that a process has to end by itself: it may wait for another where no interrupt reaches Python."""
SIGNALLED = {TERMINATED, INTERRUPTED, -signal.SIGTERM, -signal.SIGINT}
"""Statuses of processes that a signal has ended, which may be meant for all."""
PATIENCE = 10.0
"""Seconds to wait for it then."""
MOST_PROCESSES = 8
"""On the CPU; more only where there are as many cores."""


class _State:
    """Of this process: its children, and whether another failed, a signal came, or it is ending."""

    children: list[subprocess.Popen[bytes]] = []  # noqa: RUF012 -- the launcher's own list
    failed = threading.Event()
    interrupted = threading.Event()
    ending = threading.Event()


class Launcher(_SubprocessScriptLauncher):
    """Lightning's, with a watch that ends all processes in seconds, those that wait for each other too."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        first = not self.cluster_environment.creates_processes_externally
        if first:
            told = Path(tempfile.gettempdir()) / f"lightning_mbir-{uuid.uuid4().hex}"
            os.environ[RUN] = f"{os.getpid()}:{told}"

        def watched(*args: Any, **kwargs: Any) -> Any:
            if first:
                self.procs = _State.children
            if first or RUN in os.environ:
                threading.Thread(target=_watch, daemon=True, name="ranks").start()
            return function(*args, **kwargs)

        return super().launch(watched, *args, trainer=trainer, **kwargs)

    def _call_children_scripts(self) -> None:
        super()._call_children_scripts()
        _State.children, self.procs = self.procs, []  # Lightning's own watch kills the first process, and sees none
        reach_ranks(_State.children)


def look_after_ranks(trainer: L.Trainer, nodes: int, devices: object) -> None:
    """Put our launcher in the place of Lightning's, where there is one.

    Args:
        trainer: not started yet.
        nodes, devices: as they were given.

    Raises:
        InputError: several nodes that do not know of each other; more processes than the machine has cores for.
    """
    own = isinstance(getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment)
    lacking = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
    if nodes > 1 and lacking and own:
        raise InputError(
            f"--trainer.num_nodes {nodes}: the nodes would wait for each other; set {', '.join(lacking)} on each of "
            "them, or start them with torchrun or Slurm"
        )
    processes = trainer.num_devices
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if trainer.strategy.root_device.type == "cpu" and processes > max(cores, MOST_PROCESSES):
        raise InputError(
            f"--trainer.devices {devices}: {processes} processes for {cores} cores; give {max(cores, MOST_PROCESSES)} "
            "or fewer"
        )
    given = trainer.strategy.launcher
    if type(given) is _SubprocessScriptLauncher:
        trainer.strategy._launcher = Launcher(given.cluster_environment, given.num_processes, given.num_nodes)


def interrupted() -> None:
    """A signal ends this process, and Lightning kills the others: nothing that would have to be told."""
    _State.interrupted.set()


def others_failed() -> bool:
    """Whether another process of the run has failed, which may be what this one has an error from."""
    if RUN not in os.environ:
        return False
    failed = _State.failed.wait(0 if _State.interrupted.is_set() else 5 * LOOK)
    _State.ending.set()
    return failed


def first_to_tell() -> bool:
    """Whether the error of this process is the first of its run, to be told; always so of a run of one process."""
    _State.ending.set()
    return RUN not in os.environ or _claim()


def finish() -> None:
    """Wait for the other processes of a run, in the first one; those that do not end are killed."""
    _State.ending.set()
    if RUN in os.environ and _run()[0] == os.getpid():
        end = time.monotonic() + GRACE + 1
        for child in _State.children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, end - time.monotonic()))
            if child.poll() is None:
                child.kill()
        _run()[1].unlink(missing_ok=True)
        del os.environ[RUN]
    _State.children = []
    _State.failed, _State.interrupted, _State.ending = threading.Event(), threading.Event(), threading.Event()


def _claim() -> bool:
    first, told = _run()
    if first not in (os.getpid(), os.getppid()):  # gone, with nobody to take the file away
        return False
    try:
        os.close(os.open(told, os.O_CREAT | os.O_EXCL))
    except OSError:  # another was first
        return False
    return True


def _run() -> tuple[int, Path]:
    """The first process of the run, and the file."""
    first, _, told = os.environ[RUN].partition(":")
    return int(first), Path(told)


def _watch() -> None:
    """Looks at the other processes until this one ends; where one fails this one ends too."""
    failed, interrupted, ending = _State.failed, _State.interrupted, _State.ending
    first, told = _run()
    looked_after()
    while not ending.wait(LOOK):
        if told.exists():
            break
        if os.getpid() == first:
            statuses = [child.poll() for child in list(_State.children)]
            if ended := [status for status in statuses if status]:
                if (
                    not ending.wait(PATIENCE if set(ended) <= SIGNALLED else 2 * LOOK)
                    and not interrupted.is_set()
                    and _claim()
                ):
                    fail(f"{_how(ended[0])}; what is finished is kept")
                break
        elif os.getppid() != first:
            if os.environ.get("LOCAL_RANK") == "1":
                fail(GONE)
            break
    else:
        return
    if not interrupted.is_set():
        failed.set()
    if ending.wait(2 * LOOK):
        return
    if failed.is_set():
        _thread.interrupt_main()
    if not ending.wait(GRACE):
        sys.stderr.flush()
        if os.getpid() == first:
            finish()
        os._exit(2 if failed.is_set() else INTERRUPTED)


def _how(status: int) -> str:
    """How a process ended."""
    if status >= 0:
        return f"a process of the run ended with status {status}"
    name = signal.Signals(-status).name
    lack = ", which is how a machine without memory left ends one" if name == "SIGKILL" else ""
    return f"a process of the run was ended by {name}{lack}"
