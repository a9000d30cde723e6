"""Files that are whole or not there."""

from pathlib import Path

import pytest

from lightning_mbir.files import whole_file, write_whole


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
