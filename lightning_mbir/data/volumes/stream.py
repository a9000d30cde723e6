"""Files of voxels, packed by gzip or not, read once from the start to the end."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lightning_mbir.errors import InputError

PACKED = b"\x1f\x8b"
"""What a gzip file begins with."""
MOST_PACKED = 1032
"""Bytes that one byte of gzip can stand for at most."""
TRAILING = 1 << 20
"""Bytes after the voxels from which on a header is taken to be wrong about its data."""
PART = 1 << 20
"""Bytes that are read at once."""


class Stream:
    """A file of voxels that is read in order; what is packed by gzip is known by its content, not by its name.

    Attributes:
        path: the file, for messages.
        packed: whether it is gzip.
        most: bytes that it may hold at most.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.packed = file.read(len(PACKED)) == PACKED
        size = file.seek(0, 2)
        file.seek(0)
        self.most = size * (MOST_PACKED if self.packed else 1)
        self._stream: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=file) if self.packed else file

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end of the file."""
        with damage(self.path):
            return self._stream.read(count)

    def skip(self, count: int) -> None:
        """Go past bytes, which have to be there."""
        while count > 0:
            got = len(self.read(min(count, PART)))
            if not got:
                raise InputError(f"{self.path}: ends before its voxels begin; it is cut short")
            count -= got

    def check_holds(self, count: int) -> None:
        """Refuse a file that cannot hold so many bytes, before room is made for them."""
        if count > self.most:
            raise self._short(count, None if self.packed else self.most)

    def parts(self, count: int, size: int) -> Iterator[bytes]:
        """The next ``count`` bytes, in parts of whole items of ``size`` bytes each."""
        left, most = count, max(1, PART // size) * size
        while left:
            part = self.read(min(left, most))
            left -= len(part)
            if len(part) < min(left + len(part), most):
                raise self._short(count, count - left)
            yield part

    def rest(self) -> int:
        """How many bytes follow; reads to the end, where gzip compares its checksum.

        Raises:
            InputError: more than belongs behind voxels, or a checksum that is not that of the data.
        """
        count = 0
        while part := self.read(PART):
            count += len(part)
            trailing(self.path, count)
        return count

    def _short(self, declared: int, found: int | None) -> InputError:
        there = "" if found is None else f", {max(0, found):,} are there"
        return InputError(
            f"{self.path}: cut short: its header declares {declared:,} bytes of voxels{there}; get the whole file again"
        )


@contextmanager
def opened(path: Path) -> Iterator[Stream]:
    """The stream of a file, open as long as the context.

    Raises:
        InputError: not readable.
    """
    with damage(path):
        file = path.open("rb")
    with file:
        yield Stream(path, file)


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Errors of reading and unpacking as one line; to be put around calls of these alone."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read ({reason}); the file is damaged or cut short") from error


def trailing(path: Path, count: int) -> tuple[str, ...]:
    """What to say of bytes behind the voxels.

    Raises:
        InputError: more than belongs there.
    """
    if count > TRAILING:
        raise InputError(
            f"{path}: more than {TRAILING >> 20} MiB follow the voxels that its header declares, so one of them is "
            "wrong; correct the sizes in the header"
        )
    return (f"{count:,} bytes behind its voxels are left out",) if count else ()
