"""What ends a run from outside: SIGINT of a person, and SIGTERM of `timeout`, containers and batch systems.

Both raise ``KeyboardInterrupt`` in the main thread, so that nothing that is half done is left. Lightning and torch may
be in the way: the one takes SIGTERM for itself, the other waits for other ranks where no signal reaches Python. So a
thread looks after it, and ends the process where it does not end by itself.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

GRACE = 8.0
"""Seconds from SIGTERM to the end, whatever the process is at."""
RANKS_GRACE = 3.0
"""Seconds that the other ranks have of these."""
TERMINATED, INTERRUPTED = 143, 130
"""Exit statuses, 128 and the number of the signal, as of any program."""


class Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


class _Signals:
    """Whether they are heard, what has come so far, and the processes to pass it on to."""

    heard = received = False
    ranks: list[subprocess.Popen[bytes]] = []  # noqa: RUF012 -- the launcher's own list


def reach_ranks(processes: list[subprocess.Popen[bytes]]) -> None:
    """Pass SIGTERM on to the processes of other ranks that this one has started, and hear it before Lightning does.

    Called again once Lightning has taken the signal, as it does at the start of each run.

    Args:
        processes: the launcher's list, which is emptied then: whoever watches them has nothing more to mind.
    """
    _Signals.ranks = processes
    if _Signals.heard and _in_main_thread():
        signal.signal(signal.SIGTERM, _raise)


def interruptible(work: Callable[[], int]) -> int:
    """The exit status of ``work``; that of a signal, and one line on it, where one ends it.

    Notes on the interrupt, as ``add_note`` makes them, are told in that line.
    """
    with _heard():
        try:
            status = work()
        except BaseException as error:  # what a teardown raises in its stead, and Lightning's SystemExit, too
            interrupt = interrupt_behind(error)
            if interrupt is None and not _Signals.received:
                raise
            notes = getattr(interrupt, "__notes__", [])
            if _Signals.received:
                return _tell("terminated", notes, TERMINATED)
            return _tell("interrupted", notes, INTERRUPTED)
        return _tell("terminated", [], TERMINATED) if _Signals.received else status


def interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt that led to an error."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _tell(what: str, notes: list[str], status: int) -> int:
    """One line, by the first rank; returns the status."""
    rank = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_PROCID") or "0"
    if rank == "0":
        print(f"lightning_mbir: {'; '.join((what, *notes))}", file=sys.stderr, flush=True)
    return status


@contextmanager
def _heard() -> Iterator[None]:
    """SIGTERM raises ``Terminated`` in the block, and ends the process at last. Elsewhere than in the main thread
    signals are somebody else's."""
    if not _in_main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    _Signals.heard, _Signals.received, _Signals.ranks = True, False, []
    before = signal.signal(signal.SIGTERM, _raise)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # written to where Python cannot run a handler
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    try:
        yield
    finally:
        _Signals.heard = _Signals.received = False
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        os.close(writer)


def _raise(number: int, frame: FrameType | None) -> None:
    """The handler: the other ranks first, since these are waited for."""
    if _Signals.received:
        return
    _Signals.received = True
    ranks = list(_Signals.ranks)
    _pass_on()
    deadline = time.monotonic() + RANKS_GRACE
    for rank in ranks:
        with suppress(subprocess.TimeoutExpired):
            rank.wait(max(0.0, deadline - time.monotonic()))
        if rank.poll() is None:
            rank.kill()
    raise Terminated


def _pass_on() -> None:
    ranks = list(_Signals.ranks)
    _Signals.ranks.clear()
    for rank in ranks:
        rank.terminate()


def _watch(reader: int) -> None:
    """Waits for SIGTERM; the process that has not come to its end by then is ended."""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while (come := pipe.read(1)) and come[0] != signal.SIGTERM:
            pass
        if not come:
            return
        ranks = list(_Signals.ranks)
        for rank in ranks:
            rank.terminate()  # the main thread may wait for them, and hear of nothing
        end = time.monotonic() + GRACE
        while (left := end - time.monotonic()) > 0:
            if select.select([pipe], [], [], left)[0] and not pipe.read(1):
                return
        for rank in ranks:
            rank.kill()
        os.write(2, b"lightning_mbir: terminated\n")  # not through Python's buffers, which the main thread may hold
        os._exit(TERMINATED)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _wait() -> None:
    """No SIGTERM while a process is forked: a new one would take it for that of its parent."""
    if _Signals.heard:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _go_on() -> None:
    if _Signals.heard:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _forget() -> None:
    """In forked processes, such as torch's workers, the signals are their own."""
    if _Signals.heard:
        with suppress(ValueError):  # not of the main thread, whose handlers no new process runs
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _go_on()
        _Signals.heard = False


os.register_at_fork(before=_wait, after_in_parent=_go_on, after_in_child=_forget)
