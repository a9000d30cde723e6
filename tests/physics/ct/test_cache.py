"""Matrices on the disk: least recently used go first, within a limit, and processes do not harm each other."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from lightning_mbir.errors import InputError
from lightning_mbir.physics import ParallelBeam
from lightning_mbir.physics.ct.projectors.cache import cache_folder, cached_matrix

SIZE = 20_000
"""Entries of a matrix: its file has 240 kB, of which its headers are a hundredth."""
FILE = 250_000


def matrix(k: int) -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix(np.full((1, SIZE), k + 1, dtype=np.float64))


def use(k: int) -> bool:
    """Ask for matrix ``k``; whether it had to be built."""
    built = []
    build = lambda: built.append(k) or matrix(k)  # noqa: E731
    np.testing.assert_array_equal(cached_matrix({"k": k}, build).toarray(), matrix(k).toarray())
    return bool(built)


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Path]:
    """Sets the limit, in files; returns the folder."""

    def set_limit(files: float) -> Path:
        monkeypatch.setenv("LIGHTNING_MBIR_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("LIGHTNING_MBIR_CACHE_GB", str(files * FILE / 2**30))
        return tmp_path / "cache"

    return set_limit


def sizes(folder: Path) -> list[int]:
    return [file.stat().st_size for file in folder.iterdir()]


def test_the_least_recently_used_goes_first(limit: Callable[[float], Path]) -> None:
    folder = limit(3)
    assert all(use(k) for k in range(3)) and len(sizes(folder)) == 3
    assert not use(0)  # touched: now 1 is the oldest
    assert use(3)
    assert not use(0) and not use(2) and not use(3)
    assert use(1)


def test_the_limit_holds(limit: Callable[[float], Path]) -> None:
    folder = limit(2.5)
    for k in range(6):
        use(k)
        assert sum(sizes(folder)) <= 2.5 * FILE and not use(k)  # what was just written stays
    limit(1.5)
    use(6)
    assert len(sizes(folder)) == 1
    limit(0.5)  # a matrix over the limit is not kept
    assert use(7) and use(7)
    assert not sizes(folder)


def test_a_read_tells_when(limit: Callable[[float], Path]) -> None:
    folder = limit(3)
    use(0)
    (file,) = folder.iterdir()
    os.utime(file, (1e9, 1e9))
    use(0)
    assert file.stat().st_atime > time.time() - 60 and file.stat().st_mtime == 1e9


def test_none_keeps_nothing(limit: Callable[[float], Path]) -> None:
    folder = limit(0)
    assert use(0) and use(0) and not folder.exists()
    limit(3)
    use(0)
    limit(0)
    assert use(0) and not sizes(folder)


def test_what_killed_runs_left_goes_and_other_files_stay(limit: Callable[[float], Path]) -> None:
    folder = limit(1)
    folder.mkdir()
    names = (".partial-old.npz", ".partial-new.npz", "mine.npz", "notes.txt")
    for name in names:
        (folder / name).write_bytes(bytes(2 * FILE))
        if "new" not in name:
            os.utime(folder / name, (1e9, 1e9))
    use(0)
    assert {file.name for file in folder.iterdir()} >= set(names[1:])
    assert not (folder / names[0]).exists() and not use(0)


@pytest.mark.parametrize("given", ["much", "-1", "nan"])
def test_what_is_no_limit_is_refused(
    given: str, limit: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(1)
    monkeypatch.setenv("LIGHTNING_MBIR_CACHE_GB", given)
    with pytest.raises(InputError, match=f"LIGHTNING_MBIR_CACHE_GB is '{given}'; give the limit in GiB"):
        ParallelBeam(8, [0.0])


def test_the_folder_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTNING_MBIR_CACHE", raising=False)
    assert cache_folder().name == "lightning_mbir" and cache_folder().is_absolute()
    monkeypatch.setenv("LIGHTNING_MBIR_CACHE", "there")
    assert cache_folder() == Path("there")


def _use_many(seed: int) -> int:
    return sum(use(int(k)) for k in np.random.default_rng(seed).integers(6, size=150))


def test_two_processes_at_once_do_no_harm(limit: Callable[[float], Path]) -> None:
    folder = limit(2.5)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert all(built > 6 for built in pool.map(_use_many, (0, 1)))
    assert sum(sizes(folder)) <= 2.5 * FILE
    assert not list(folder.glob(".partial-*"))
