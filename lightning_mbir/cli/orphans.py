"""Processes of a run whose first one is gone while they still import what they need, which may take a minute.

From then on ``ranks`` looks after them; nothing heavy is imported here.
"""

from __future__ import annotations

import os
import threading

from lightning_mbir.errors import fail

RUN = "LIGHTNING_MBIR_RUN"
"""Of the processes of one run: the number of the first, and the file that who has an error to tell makes."""
GONE = "the first process of the run is gone; what is finished is kept"
LOOK = 0.2
"""Seconds between two looks at the first."""

_looked_after = threading.Event()


def look_after_first() -> None:
    """In a process that another one of its run has started: end with it."""
    first, _, told = os.environ.get(RUN, "").partition(":")
    if told and first == str(os.getppid()):
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="orphans").start()


def looked_after() -> None:
    """From now on somebody else looks."""
    _looked_after.set()


def _watch(first: int) -> None:
    while not _looked_after.wait(LOOK):
        if os.getppid() != first:
            if os.environ.get("LOCAL_RANK") == "1":
                fail(GONE)
            os._exit(2)
