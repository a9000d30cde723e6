"""Matrices on the disk: least recently used go first, within a limit, and processes do not harm each other."""

import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.physics import ParallelBeam
from lightning_mbir.physics.ct.projectors.cache import cache_folder, cached_matrix

SIZE = 30_000
"""Entries of a matrix: its file has 240 kB, of which its headers are a hundredth."""
FILE = 250_000


def matrix(k: int) -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix(np.full((1, SIZE), k + 1, dtype=np.float32))


def use(k: int) -> bool:
    """Ask for matrix ``k``; whether it had to be built."""
    built = []
    build = lambda: built.append(k) or matrix(k)  # noqa: E731
    np.testing.assert_array_equal(cached_matrix({"k": k}, build, (1, SIZE), 1000.0).toarray(), matrix(k).toarray())
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
    names = (".partial-old.npz", "mine.npz", "notes.txt")
    for name in names:
        (folder / name).write_bytes(bytes(2 * FILE))
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


def small() -> scipy.sparse.csr_matrix:
    rows = [[0, 0.5, 0, 1], [0, 0, 0, 0], [2, 0, 0.25, 0]]
    return scipy.sparse.csr_matrix(np.array(rows, dtype=np.float32))


def crafted(**arrays: Any) -> Callable[[Path], None]:
    """Writes a matrix of which some arrays are others."""

    def write(path: Path) -> None:
        given = small()
        content = {"indices": given.indices, "indptr": given.indptr, "data": given.data, "shape": np.array(given.shape)}
        np.savez(path, format=b"csr", **{**content, **arrays})  # type: ignore[arg-type]

    return write


def claims_much(path: Path) -> None:
    """An array whose header says that it has 8 TB."""
    crafted()(path)
    raw = path.read_bytes()
    header = raw.index(b"'shape': (4,)")
    assert raw[header + 13 : header + 15] == b", "
    path.write_bytes(raw[: header + 10] + b"2000000000000,)}" + raw[header + 26 :])


class Opens:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("pwned"),)


BAD: dict[str, Callable[[Path], object]] = {
    "no archive": lambda path: path.write_bytes(b"PK nothing"),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:300]),
    "negative index": crafted(indices=np.array([-1, 3, 0, 2], np.int32)),
    "index beyond": crafted(indices=np.array([1, 4, 0, 2], np.int32)),
    "order": crafted(indices=np.array([3, 1, 0, 2], np.int32)),
    "twice": crafted(indices=np.array([1, 1, 0, 2], np.int32)),
    "wide indices": crafted(indices=np.array([1, 3, 0, 2], np.int64)),
    "rows fall": crafted(indptr=np.array([0, 4, 2, 4], np.int32)),
    "rows begin late": crafted(indptr=np.array([1, 2, 2, 4], np.int32)),
    "rows end early": crafted(indptr=np.array([0, 2, 2, 3], np.int32)),
    "rows below": crafted(indptr=np.array([0, -2, 2, 4], np.int32)),
    "too few rows": crafted(indptr=np.array([0, 2, 4], np.int32)),
    "another shape": crafted(shape=np.array([3, 5])),
    "huge shape": crafted(shape=np.array([2**40, 2**40])),
    "NaN": crafted(data=np.array([np.nan, 1, 2, 0.25], np.float32)),
    "infinite": crafted(data=np.array([0.5, np.inf, 2, 0.25], np.float32)),
    "negative": crafted(data=np.array([0.5, -1, 2, 0.25], np.float32)),
    "too large": crafted(data=np.array([0.5, 1, 3, 0.25], np.float32)),
    "doubles": crafted(data=np.array([0.5, 1, 2, 0.25], np.float64)),
    "fewer values": crafted(data=np.array([0.5, 1, 2], np.float32)),
    "two dimensions": crafted(data=np.ones((2, 2), np.float32)),
    "objects": crafted(data=np.array([Opens()] * 4, object)),
    "another format": lambda path: scipy.sparse.save_npz(path, small().tocsc(), compressed=False),
    "compressed": lambda path: scipy.sparse.save_npz(path, small()),
    "claims much": claims_much,
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_holds_another_matrix_is_made_again_with_a_line(
    kind: str, limit: Callable[[float], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """What multiplies with it reads and writes wherever an index says."""
    monkeypatch.chdir(tmp_path)
    folder = limit(3)
    for _ in range(2):
        cached_matrix({}, small, (3, 4), 2.0)
    (file,) = folder.iterdir()
    assert not caplog.messages
    BAD[kind](file)
    found = cached_matrix({}, small, (3, 4), 2.0)
    np.testing.assert_array_equal(found.toarray(), small().toarray())
    (line,) = caplog.messages
    assert line.startswith(f"{file}: no matrix of this geometry") and "made again" in line
    np.testing.assert_array_equal(scipy.sparse.load_npz(file).toarray(), small().toarray())
    assert not (tmp_path / "pwned").exists()


def test_the_matrix_of_a_beam_is_read_again(limit: Callable[[float], Path], caplog: Any) -> None:
    folder = limit(100)
    beams = [ParallelBeam(32, [7.0 * k for k in range(20)]) for _ in range(2)]
    x = torch.rand(2, 32, 32)
    assert torch.equal(beams[0](x), beams[1](x))
    (file,) = folder.iterdir()
    assert file.stat().st_atime >= file.stat().st_mtime and not caplog.messages  # by the second one


def test_the_folder_is_of_its_user_alone(limit: Callable[[float], Path]) -> None:
    folder = limit(1)
    use(0)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def _use_many(seed: int) -> int:
    return sum(use(int(k)) for k in np.random.default_rng(seed).integers(6, size=150))


def test_two_processes_at_once_do_no_harm(limit: Callable[[float], Path]) -> None:
    folder = limit(2.5)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert all(built > 6 for built in pool.map(_use_many, (0, 1)))
    assert sum(sizes(folder)) <= 2.5 * FILE
    assert not list(folder.glob(".partial-*"))
