"""Files that are not trusted: what is opened of them, how much is read, and what damaged ones are told to be."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightning_mbir import free_memory
from lightning_mbir.data.measurements import item as item_module
from lightning_mbir.data.measurements.content import open_content
from lightning_mbir.data.measurements.item import DAMAGED, Item
from lightning_mbir.data.measurements.measurement import Measurement, read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.errors import InputError
from tests.data.measurements.test_measurement import CT, MRI, data_exchange, fastmri


def write(path: Path, **content: Any) -> Path:
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            file[key] = value
    return path


def test_soft_links_within_the_file_are_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "y.h5", **{f"raw/{key}": value for key, value in MRI.items()})
    with h5py.File(path, "a") as file:
        file["mask"] = h5py.SoftLink("/again/mask")
        file["again"] = h5py.SoftLink("raw")  # relative, and of a group
        file["raw/one"] = h5py.SoftLink("measurement")
        file["measurement"] = h5py.SoftLink("/raw/one")
    found = read_measurement(path, "mri")
    np.testing.assert_array_equal(found.y, MRI["measurement"])


def test_nothing_outside_of_the_file_is_read(tmp_path: Path) -> None:
    other = write(tmp_path / "other.h5", secret=np.ones((2, 20, 24), complex))
    (tmp_path / "secret.bin").write_bytes(bytes(2 * 20 * 24 * 16))

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((2, 20, 24), complex)
        layout[:] = h5py.VirtualSource(str(other), "secret", (2, 20, 24))
        file.create_virtual_dataset("measurement", layout)

    def stored(file: h5py.File) -> None:
        place = [(str(tmp_path / "secret.bin"), 0, 2 * 20 * 24 * 16)]
        file.create_dataset("measurement", (2, 20, 24), complex, external=place)

    def link(target: Any) -> Callable[[h5py.File], None]:
        return lambda file: file.__setitem__("measurement", target)

    def through_a_group(file: h5py.File) -> None:
        file["far"] = h5py.ExternalLink(str(other), "/")
        file["measurement"] = h5py.SoftLink("/far/secret")

    for make, words in (
        (virtual, "measurement is virtual, and files that are not named are not read"),
        (stored, "measurement is stored in another file"),
        (link(h5py.ExternalLink(str(other), "secret")), "measurement is a link into .*other.h5"),
        (through_a_group, "measurement is a link into .*other.h5"),
        (link(h5py.SoftLink("/nowhere")), "link to what is not in the file"),
        (link(h5py.SoftLink("/measurement")), "run in a circle"),
    ):
        path = write(tmp_path / "y.h5", mask=np.ones(24))
        with h5py.File(path, "a") as file:
            make(file)
        with pytest.raises(InputError, match=words):
            read_measurement(path, "mri")


def test_only_what_is_needed_is_opened_and_only_rows_that_are_wanted_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data_exchange(tmp_path, **{key: np.ones((90, 50, 80)) for key in ("data", "unrelated")})
    with h5py.File(path, "a") as file:
        for key in ("white", "dark"):
            del file[f"exchange/data_{key}"]
            file[f"exchange/data_{key}"] = np.full((2, 50, 80), 2.0 if key == "white" else 0.0)
    read: dict[str, int] = {}
    whole = Item.read

    def counted(item: Item, *chosen: slice) -> np.ndarray:
        values = whole(item, *chosen)
        read[item.name] = read.get(item.name, 0) + values.size
        return values

    monkeypatch.setattr(Item, "read", counted)
    options = MeasurementOptions(rotation_center=39.5, slices=(20, 22))
    np.testing.assert_allclose(read_measurement(path, "ct", options).y, np.full((2, 90, 80), np.log(2)), rtol=1e-6)
    assert read == {
        "exchange/theta": 90,
        "exchange/data": 90 * 2 * 80,
        "exchange/data_white": 2 * 2 * 80,
        "exchange/data_dark": 2 * 2 * 80,
    }


@pytest.mark.parametrize("chunks", [None, (1, 5, 80), (90, 1, 80), (7, 3, 11)])
def test_parts_are_the_whole(chunks: tuple[int, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_module, "PART", 1000)
    values = np.random.default_rng(0).random((90, 5, 80))
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file.create_dataset("y", data=values, chunks=chunks)
    with open_content(tmp_path / "y.h5") as content:
        out = np.full((90, 3, 80), np.nan)
        for place, part in content["y"].parts(slice(None), slice(1, 4)):
            assert part.shape[-1] == 80 and part.size <= max(1000, 80 * np.prod((chunks or (1, 1, 1))[:2]))
            assert np.isnan(out[place]).all()
            out[place] = part
    np.testing.assert_array_equal(out, values[:, 1:4])


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", measurement=np.zeros((2, 5, 10**6)), **{k: CT[k] for k in KEPT})
    assert (tmp_path / "bomb.npz").stat().st_size < 1e5
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("measurement", (2, 5, 10**6), chunks=(1, 1, 10**6), compression="gzip")
        for key in KEPT:
            file[key] = CT[key]
    monkeypatch.setattr(free_memory, "free_memory", lambda device: 2 * 10**7)
    for name in ("bomb.npz", "bomb.h5"):
        with pytest.raises(InputError, match=r"measurement: takes .* GiB of memory, of which 0.0 are free; "):
            read_measurement(tmp_path / name, "ct")


KEPT = ("angles", "image_size", "pixel_size")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 1e9}, "the volume of image_size 1000000000: takes 7,450,580,596.9 GiB"),
        ({"image_size": np.nan}, "image_size has NaN"),
        ({"image_size": 20.5}, "whole numbers"),
        ({"image_size": -20}, "image_size is -20; give more than 0"),
        ({"image_size": "large"}, "image_size is of type"),
        ({"pixel_size": -1.0}, "pixel_size is -1; give more than 0"),
        ({"pixel_size": np.inf}, "pixel_size has NaN or infinite"),
        ({"measurement": np.ones((0, 5, 30))}, r"\(0, 5, 30\)"),
        ({"measurement": np.ones((2, 0, 30)), "angles": np.ones(0)}, r"\(2, 0, 30\)"),
        ({"measurement": 3.0}, "0 dimensions"),
        ({"measurement": np.full((2, 5, 30), "x")}, "give real numbers"),
        ({"measurement": np.full((2, 5, 30), 1e39)}, "beyond 3e38"),
        ({"beam": 3}, "beam is .* give one piece of text"),
        ({"beam": ["fan", "cone"]}, "beam is .* give one piece of text"),
        ({"detector_spacing": 0.0}, "detector_spacing is 0"),
    ],
)
def test_numbers_that_cannot_be_are_told_with_their_file(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "y.npz", **{**CT, **changes})
    with pytest.raises(InputError, match=f"y.npz.*{words}"):
        read_measurement(tmp_path / "y.npz", "ct")


def test_cones_of_any_size_are_told(tmp_path: Path) -> None:
    cone = {**CT, "measurement": np.ones((5, 6, 30)), "beam": "cone", "source_distance": 50.0, "detector_distance": 1.0}
    for shape, words in (
        ([1e5] * 3, "takes 3,725,290.3 GiB"),
        ([0, 20, 20], "volume_shape is 0, 20, 20"),
        ([4, 20], "2 values"),
    ):
        np.savez(tmp_path / "y.npz", **cone, volume_shape=shape)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=words):
            read_measurement(tmp_path / "y.npz", "ct")


def test_groups_scalars_and_empty_datasets_are_told(tmp_path: Path) -> None:
    path = tmp_path / "y.h5"
    for value, words in (
        (h5py.Empty("c8"), "kspace is empty"),
        (np.complex64(1), r"kspace is \(\)"),
        (np.ones((0, 8), np.complex64), "there are no values"),
        (np.ones((8, 8), np.complex64), None),
    ):
        write(path, kspace=value)
        if words is None:
            assert read_measurement(path, "mri").y.shape == (1, 8, 8)
            continue
        with pytest.raises(InputError, match=words):
            read_measurement(path, "mri")
    write(path, **{"kspace/a": 1.0})
    with pytest.raises(InputError, match="kspace is a group; give a dataset"):
        read_measurement(path, "mri")
    write(path, exchange=np.ones(3))  # a dataset where the group of Data Exchange would be
    with pytest.raises(InputError, match="holds none of measurement, kspace"):
        read_measurement(path, "ct")


def test_files_that_are_something_else_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", **CT)  # type: ignore[arg-type]
    data = (tmp_path / "good.npz").read_bytes()
    entry = data.index(b"PK\x01\x02")  # of the first array in the directory of the archive
    encrypted = bytearray(data)
    encrypted[6] |= 1
    encrypted[entry + 8] |= 1
    for name, content in (
        ("text.h5", b"hello"),
        ("empty.h5", b""),
        ("empty.npz", b""),
        ("text.npz", b"hello"),
        ("zip.h5", data),
        ("encrypted.npz", bytes(encrypted)),
        ("cut.npz", data[:-30]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: .*may be damaged or cut short"):
            read_measurement(tmp_path / name, "ct")
    np.savez(tmp_path / "pickle.npz", **{**CT, "measurement": np.array([{}, None], dtype=object)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="measurement cannot be read"):
        read_measurement(tmp_path / "pickle.npz", "ct")


def test_a_wrong_checksum_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "y.npz", **CT)  # type: ignore[arg-type]
    with zipfile.ZipFile(tmp_path / "y.npz") as archive:
        start = archive.getinfo("measurement.npy").header_offset
    data = bytearray((tmp_path / "y.npz").read_bytes())
    data[start + 1000] ^= 1  # a bit of a value
    (tmp_path / "y.npz").write_bytes(data)
    with pytest.raises(InputError, match="Bad CRC-32"):
        read_measurement(tmp_path / "y.npz", "ct")


def compound(folder: Path) -> Path:
    values = np.ones((3, 20, 24), dtype=[("real", "<f4"), ("imag", "<f4")])
    return write(folder / "compound.h5", kspace=values, mask=np.ones(24))


def npz(folder: Path) -> Path:
    np.savez_compressed(folder / "own.npz", **CT)  # type: ignore[arg-type]
    return folder / "own.npz"


@pytest.mark.parametrize("make", [data_exchange, lambda folder: fastmri(folder)[0], compound, npz])
def test_damaged_files_are_read_or_told_in_a_line(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """Cut short, and with bytes changed: nothing but an ``InputError`` comes out."""
    path = make(tmp_path)
    modality = "ct" if path.stem in ("projections", "own") else "mri"
    options = MeasurementOptions(axes="slice y x") if path.stem == "compound" else MeasurementOptions()
    assert isinstance(read_measurement(path, modality, options), Measurement)  # type: ignore[arg-type]
    data, rng = path.read_bytes(), np.random.default_rng(4)
    told = 0
    for turn in range(40):
        damaged = bytearray(data)
        if turn % 2:
            damaged = damaged[: rng.integers(len(data))]
        for place in rng.integers(min(len(damaged), 4000), size=3) if len(damaged) else ():  # headers are at the start
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_measurement(path, modality, options)  # type: ignore[arg-type]
        except InputError as error:
            told += 1
            assert "\n" not in str(error) and path.name in str(error)
    assert told > 10


def test_members_of_a_compound_that_overlap_are_not_read(tmp_path: Path) -> None:
    """HDF5 writes beyond its memory at them."""
    path = compound(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x7f\x00\x00\x00", data.index(b"real"))  # the bias of its exponent
    data[at] = 188  # which NumPy has in 8 bytes alone
    path.write_bytes(data)
    with pytest.raises(InputError, match="members overlap"):
        read_measurement(path, "mri", MeasurementOptions(axes="slice y x"))


def test_errors_that_are_ours_are_not_taken_for_the_file_s() -> None:
    assert AttributeError not in DAMAGED and Exception not in DAMAGED and AssertionError not in DAMAGED
