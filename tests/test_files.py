"""Files and folders that are whole or not there, whatever happens while they are written."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_mbir.errors import InputError, WriteError
from lightning_mbir.files import (
    check_free,
    check_room,
    check_writable,
    remove_stale,
    settle_folders,
    whole_file,
    whole_folder,
    write_whole,
)

STATE = "kept/state"


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write_whole(path, b"old")
    with pytest.raises(OSError, match="disk full"), whole_file(path, suffix=".nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz") and temporary.parent == tmp_path
        temporary.write_bytes(b"ne")
        raise OSError("disk full")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    write_whole(path, b"new")
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space is left on the disk; make room"),
        (errno.EDQUOT, "no space is left"),
        (errno.EROFS, "a folder that you may write to"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_what_the_disk_refuses_is_one_line_on_the_file(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught, whole_file(tmp_path / "file.bin"):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value, WriteError) and str(caught.value).startswith(f"{tmp_path}/file.bin: ")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WriteError, match=f"{tmp_path}/folder: something else is in the way"):
        write_whole(tmp_path / "folder", b"x")
    for path in (tmp_path / "file", tmp_path / "file/a/v"):
        with pytest.raises(WriteError, match=f"file {tmp_path}/file is in the way"):
            check_free(path)
        with pytest.raises(WriteError, match="in the way"), whole_folder(path, STATE):
            pass
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_too_little_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    check_room(tmp_path, 1000)
    with pytest.raises(WriteError, match=r"MiB are free on the disk, and the results take about 953674316\.4; make"):
        check_room(tmp_path, 10**15)


def test_temporary_files_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    (tmp_path / ".partial-killed.nii.gz").write_bytes(b"half")
    (tmp_path / "partial-mine").write_bytes(b"")
    with whole_file(tmp_path / "living") as living:
        living.write_bytes(b"whole")  # opened anew, as writers do that are given a name
        assert not (tmp_path / ".partial-killed.nii.gz").exists()
        (tmp_path / ".partial-other").write_bytes(b"")
        remove_stale(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, "partial-mine"])
    assert (tmp_path / "living").read_bytes() == b"whole"
    remove_stale(tmp_path / "nowhere")


def fill(folder: Path, words: str, names: str = "abc") -> None:
    for name in names:
        (folder / name).write_text(words)


def read(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_takes_the_place_of_another_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "v"
    with whole_folder(path, STATE) as new:
        fill(new, "one")
        assert not path.exists() and new.parent.name == ".running-v"
    with pytest.raises(KeyboardInterrupt), whole_folder(path, STATE) as new:
        fill(new, "two", "a")
        raise KeyboardInterrupt
    assert read(tmp_path) == {f"a/v/{name}": "one" for name in "abc"}
    with whole_folder(path, STATE) as new:
        fill(new, "three", "cd")
    assert read(tmp_path) == {f"a/v/{name}": "three" for name in "cd"} and list(path.parent.iterdir()) == [path]


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "v").symlink_to(tmp_path / "elsewhere")
    for words in ("one", "two"):
        with whole_folder(tmp_path / "v", STATE) as new:
            fill(new, words)
    assert (tmp_path / "v").is_symlink() and read(tmp_path / "elsewhere")["a"] == "two"


def test_a_state_is_there_again_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "v"
    with pytest.raises(ValueError, match="lost"), whole_folder(path, STATE) as new:
        (new / "kept").mkdir()
        fill(new / "kept", "so far")
        (new / STATE).write_text("3")
        fill(new, "half")
        raise ValueError("lost")
    (new / "kept/.partial-x").write_text("")
    settle_folders(tmp_path, STATE)
    with whole_folder(path, STATE) as new:
        assert read(new) == {**{f"kept/{name}": "so far" for name in "abc"}, STATE: "3"}
    assert list(tmp_path.iterdir()) == [path] and (path / STATE).read_text() == "3"
    with pytest.raises(ValueError, match="lost"), whole_folder(path, STATE) as new:
        (new / "kept").mkdir()
        fill(new / "kept", "no state yet")
        raise ValueError("lost")
    assert list(tmp_path.iterdir()) == [path]


def test_two_at_once_are_refused_and_one_does_not_settle_what_the_other_writes(tmp_path: Path) -> None:
    path = tmp_path / "v"
    with whole_folder(path, STATE) as new:
        fill(new, "first")
        settle_folders(tmp_path, STATE)
        words = f"v: another process is writing it \\(process {os.getpid()}\\); wait for it"
        with pytest.raises(InputError, match=words), whole_folder(path, STATE):
            pass
        with pytest.raises(InputError, match=words):
            check_free(path)
    check_free(path)
    assert read(path) == dict.fromkeys("abc", "first") and list(tmp_path.iterdir()) == [path]


KILLED = """
import os, sys
from pathlib import Path
from lightning_mbir.files import settle_folders, whole_folder, write_whole

def killed(moment, work):
    "Fork, and end the child before the step of this number that touches the disk; whether it came to its end."
    count = 0
    def hook(event, args):
        nonlocal count
        if event.split(".")[0] in ("os", "open", "shutil", "tempfile", "fcntl"):
            count += 1
            if count == moment:
                os._exit(9)
    child = os.fork()
    if child == 0:
        sys.addaudithook(hook)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

def write(words, names):
    with whole_folder(path, "kept/state") as new:
        for name in names:
            write_whole(new / name, words.encode())

def read():
    return {file.name: file.read_text() for file in path.iterdir()}

path = Path(sys.argv[1]) / "v"
old, new = dict.fromkeys("abc", "old"), dict.fromkeys("bcd", "new")
moment, seen = 1, set()
while True:
    write("old", "abc")
    more = killed(moment, lambda: write("new", "bcd"))
    settle_folders(path.parent, "kept/state")
    assert read() in (old, new), (moment, read())
    seen.add(read() == new)
    assert [file.name for file in path.parent.iterdir()] == ["v"], (moment, list(path.parent.iterdir()))
    write("old", "abc")
    killed(moment, lambda: write("new", "bcd"))
    write("new", "bcd")
    assert read() == new and [file.name for file in path.parent.iterdir()] == ["v"], moment
    if not more:
        break
    moment += 1
assert seen == {True, False}
print(moment)
"""


def test_killed_at_any_moment_a_folder_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    """A process is ended before each of its steps that touches the disk, by turns."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder that takes nothing whatever the rights say")
def test_a_folder_that_takes_nothing_is_told_by_its_flag(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        check_writable(Path("/proc/nothing"))
    assert str(error.value).startswith("--output_dir /proc/nothing: /proc cannot be written to")
    check_writable(tmp_path / "new")
    assert not list(tmp_path.iterdir())
