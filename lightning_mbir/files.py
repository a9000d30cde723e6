"""Files and folders that are whole or not there, what killed runs left of them, and checksums."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning_mbir.errors import InputError, WriteError

PARTIAL, RUNNING = ".partial-", ".running-"
"""How the names of files and of folders begin that are not finished."""
LOCK, NEW, OLD = "lock", "new", "old"
"""What lies in a folder that is not finished: who writes it, the result to come, and the one that it replaces."""
PATIENCE = 1.0
"""Seconds to wait for a folder that is held: another run only looks at it for a moment."""


@contextmanager
def whole_file(path: Path, suffix: str = "") -> Iterator[Path]:
    """A temporary file beside ``path``, which it is renamed to at the end of the block; after an error it is deleted.

    Temporary files that killed processes left in the folder are deleted first.

    Args:
        path: where the file will lie.
        suffix: of the temporary name, for writers that go by it.

    Raises:
        WriteError: what the disk refused to take, in the block or around it.
    """
    remove_stale(path.parent)
    with writing(path):
        temporary, handle = _temporary(path.parent, suffix)
        try:
            yield temporary
            temporary.chmod(0o644)
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def remove_stale(folder: Path) -> None:
    """Delete the temporary files that killed processes left in a folder; those of living ones are locked."""
    for path in folder.glob(f"{PARTIAL}*"):
        with suppress(OSError), path.open("rb+") as stream:  # in use, not ours, or of a disk without locks: it stays
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextmanager
def whole_folder(path: Path, *states: str) -> Iterator[Path]:
    """A hidden folder to write into, which becomes ``path`` in one step at the end of the block, whatever was there.

    A block that fails leaves what was there as it was. So does a process that is killed; the next one that writes here
    or calls ``settle_folders`` deletes what it left, but for the state to go on from.

    Args:
        path: the folder to come.
        *states: files or folders of the hidden folder, such as ``samples/running.npz``: where one lies, it is kept
            after a failure with all of its subfolder, and is there again the next time. Everything else is gone then.

    Raises:
        InputError: another process writes this folder.
        WriteError: what the disk refused to take; a file where the folder should be.
    """
    path = path.resolve()
    hidden = path.parent / f"{RUNNING}{path.name}"
    with _held(hidden):
        with writing(path):
            _finish(hidden)
            _check_folder(path)
            new = hidden / NEW
            kept = {new / Path(state).parts[0] for state in states}
            new.mkdir(exist_ok=True)
            for entry in new.iterdir():
                if entry not in kept:
                    _remove(entry)
            for folder in (new, *filter(Path.is_dir, kept)):
                remove_stale(folder)
        try:
            yield new
            with writing(path):
                _sync_all(new)
                if path.exists():
                    path.rename(hidden / OLD)
                new.rename(path)
                _sync(path.parent)
        finally:
            _settle(hidden, states)


def unfinished(path: Path) -> Path:
    """The hidden folder that ``whole_folder`` gives, for what other processes than the one that holds it put there."""
    path = path.resolve()
    return path.parent / f"{RUNNING}{path.name}" / NEW


def settle_folders(parent: Path, *states: str) -> None:
    """Put in order what killed runs left of ``whole_folder`` in a folder; what a living one writes is left alone."""
    for hidden in parent.glob(f"{RUNNING}*"):
        with suppress(InputError, OSError), _held(hidden, patience=0):
            _settle(hidden, states)


def check_free(path: Path) -> None:
    """Raise where ``whole_folder`` could not be entered, as far as that can be seen without writing.

    Raises:
        InputError: another process writes this folder.
        WriteError: a file is where the folder or one above it should be.
    """
    path = path.resolve()
    _check_folder(path)
    hidden = path.parent / f"{RUNNING}{path.name}"
    if hidden.is_dir():
        with _held(hidden):
            pass


def _check_folder(path: Path) -> None:
    there = path
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise WriteError(f"{path}: the file {there} is in the way; move it, or give another folder")


def _settle(hidden: Path, states: Sequence[str]) -> None:
    """Finish what can be finished, and delete what nobody can go on from."""
    _finish(hidden)
    if not any((hidden / NEW / state).exists() for state in states):
        shutil.rmtree(hidden / NEW, ignore_errors=True)


def _finish(hidden: Path) -> None:
    """Take the second of the two steps, where a run was killed between them, and delete what was replaced."""
    old, new = hidden / OLD, hidden / NEW
    path = hidden.parent / hidden.name.removeprefix(RUNNING)
    if old.exists():  # so what was to come is complete
        if not path.exists():
            (new if new.exists() else old).rename(path)
            _sync(path.parent)
        if old.exists():
            _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def _held(hidden: Path, patience: float = PATIENCE) -> Iterator[None]:
    """A folder, made where it is not, that no other process holds; deleted at the end where it is empty."""
    handle, deadline = -1, time.monotonic() + patience
    with writing(hidden):
        while handle < 0:
            hidden.mkdir(parents=True, exist_ok=True)
            handle = _lock(hidden / LOCK)
            if handle < 0 and time.monotonic() > deadline:
                raise InputError(
                    f"{hidden.parent / hidden.name.removeprefix(RUNNING)}: another process is writing it"
                    f"{_holder(hidden / LOCK)}; wait for it, or give another --output_dir"
                )
            if handle < 0:
                time.sleep(0.05)
    try:
        yield
    finally:
        (hidden / LOCK).unlink(missing_ok=True)
        os.close(handle)
        with suppress(OSError):  # not empty: a state is kept, or another process has come
            hidden.rmdir()


def _lock(path: Path) -> int:
    """The handle of a locked file, or -1 where another process has it, or has just deleted it."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        return -1
    if _locked(handle) and _is_file_of(handle, path):
        with suppress(OSError):  # a word for others alone
            os.truncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        return handle
    os.close(handle)
    return -1


def _holder(path: Path) -> str:
    """Who holds a lock, as it says itself."""
    with suppress(OSError, ValueError):
        return f" (process {int(path.read_text())})"
    return ""


def _locked(handle: int) -> bool:
    """Lock an open file; False where another process has. A disk that knows no locks keeps nobody out."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_file_of(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def _temporary(folder: Path, suffix: str) -> tuple[Path, int]:
    """A new file that is locked, and its handle."""
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=PARTIAL, suffix=suffix)
        if _locked(handle) and _is_file_of(handle, Path(name)):
            return Path(name), handle
        os.close(handle)  # taken for one that a killed process left, before it was locked
        Path(name).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have what was written, or the names in a folder, outlast a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # which some disks cannot do for
            raise
    finally:
        os.close(handle)


def _sync_all(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the disk refuses to take becomes a ``WriteError``, in one line."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: {_told(error)}") from error


def _told(error: OSError) -> str:
    """What is wrong, and what would be right."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space is left on the disk; make room, or give a folder on another one"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot be written ({error.strerror}); give a folder that you may write to"
    if error.errno in (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY):
        return f"something else is in the way ({error.strerror}); move it, or give another folder"
    return f"cannot be written ({error.strerror or error}); give another folder"


def check_room(folder: Path, needed: int) -> None:
    """Raise where less than ``needed`` bytes are free on the disk of a folder, which need not be there yet.

    Raises:
        WriteError: how much there is, and how much is needed.
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    with writing(folder):
        free = shutil.disk_usage(there).free
    if free < needed:
        raise WriteError(
            f"{folder}: {free / 2**20:.1f} MiB are free on the disk, and the results take about "
            f"{needed / 2**20:.1f}; make room, or give a folder on another one"
        )


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_writable(folder: Path) -> None:
    """Raise where ``folder`` cannot be made or written to; leaves nothing behind."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = "is not a folder" if not existing.is_dir() else "cannot be written to"
        raise InputError(f"--output_dir {folder}: {existing} {reason}; give a folder that you may write to")
    try:  # some file systems take nothing, whatever the rights say
        Path(tempfile.mkdtemp(prefix=".writable-", dir=existing)).rmdir()
    except OSError as error:
        reason = f"cannot be written to ({error.strerror})"
        raise InputError(f"--output_dir {folder}: {existing} {reason}; give a folder that you may write to") from error
