"""MRD, TWIX and BART's files: values, places, noise, and what is refused."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lightning_mbir.data.measurements.bart import write_cfl
from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.measurements.orientation import mirrored
from lightning_mbir.data.measurements.whitening import noise_covariance, whitening_matrix
from lightning_mbir.errors import InputError
from lightning_mbir.physics import complete_partial_fourier
from lightning_mbir.reconstruction.measured import measured_operator, part_of

ismrmrd = pytest.importorskip("ismrmrd")
RNG = np.random.default_rng(0)
ROWS, LINES, COILS, SLICES = 12, 10, 3, 2
TWIX, NPZ = "data/raw/brain_gre_16ch_siemens_twix.dat", "data/raw/brain_gre_16ch_128x128.npz"
HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<experimentalConditions><H1resonanceFrequency_Hz>128000000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace><matrixSize><x>24</x><y>10</y><z>1</z></matrixSize>
<fieldOfView_mm><x>48</x><y>30</y><z>4</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>12</x><y>10</y><z>1</z></matrixSize>
<fieldOfView_mm><x>24</x><y>30</y><z>4</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>9</maximum><center>5</center>
</kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""
AXES = (-2, -1)


def fft(x: np.ndarray) -> np.ndarray:
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x, AXES), norm="ortho"), AXES)


def image(kspace: Any) -> np.ndarray:
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(np.asarray(kspace), AXES), norm="ortho"), AXES)


def images(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)


def write_mrd(
    path: Path,
    wide: np.ndarray,
    noise: np.ndarray | None = None,
    lines: Any = None,
    reverse: Any = (),
    header: str = HEADER,
    averages: int = 1,
    calibration: Any = (),
    directions: Any = ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    counter: str = "contrast",
) -> Path:
    """K-space ``(echoes, slices, coils, readout, lines)``, slices interleaved, the second one below the first; echoes,
    or what else the counter of a readout counts."""
    acquisitions = []
    if noise is not None:
        one = ismrmrd.Acquisition.from_array(noise.astype(np.complex64), sample_time_us=5.0)
        one.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        acquisitions.append(one)
    for echo, slice_number, average in np.ndindex(wide.shape[0], wide.shape[1], averages):
        for line in range(wide.shape[-1]) if lines is None else lines[slice_number]:
            data = wide[echo, slice_number, :, :, line] * (1 + 0.1 * (2 * average - averages + 1))
            center = wide.shape[-2] // 2
            if line in reverse:
                data, center = data[:, ::-1], wide.shape[-2] - 1 - center
            one = ismrmrd.Acquisition.from_array(
                np.ascontiguousarray(data).astype(np.complex64), center_sample=center, sample_time_us=5.0
            )
            one.idx.kspace_encode_step_1, one.idx.slice, one.idx.average = line, slice_number, average
            setattr(one.idx, counter, echo)
            one.position[:] = [5.0, 6.0, 20.0 - 6.0 * slice_number]
            one.read_dir[:], one.phase_dir[:], one.slice_dir[:] = directions
            if line in reverse:
                one.set_flag(ismrmrd.ACQ_IS_REVERSE)
            if line in calibration:
                one.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
            acquisitions.append(one)
    with ismrmrd.File(str(path), "w") as file:
        file["dataset"].header = ismrmrd.xsd.CreateFromDocument(header.encode())
        file["dataset"].acquisitions = acquisitions
    return path


@pytest.mark.parametrize("reverse", [(), (1, 3, 5, 7, 9)])
def test_mrd_slices_come_out_as_they_lie(reverse: Any, tmp_path: Path) -> None:
    """Twice the field of view read out, slices from foot to head, x towards the right, y towards the front."""
    whole = images(1, SLICES, COILS, 2 * ROWS, LINES)
    found = read_measurement(write_mrd(tmp_path / "a.h5", fft(whole), reverse=reverse, averages=2), "mri")
    assert found.y.shape == (SLICES, COILS, LINES, ROWS) and found.geometry["phase_axis"] == "y"
    back = image(found.y)
    kept = whole[0, ::-1, :, 6:18]  # slice 1 lies below slice 0; (Z, coils, read, phase)
    affine = found.affine
    for z, y, x in ((0, 1, 2), (1, 7, 11), (0, 9, 4), (1, 5, 6)):
        place = affine @ [x, y, z, 1]
        # Of the file: read towards the left, phase towards the back, from the middle of the slice on.
        read = (-place[0] - 5.0) / 2.0 + ROWS // 2
        phase = (-place[1] - 6.0) / 3.0 + LINES // 2
        assert place[2] == pytest.approx((14.0, 20.0)[z])
        expected = kept[z, :, round(read) % ROWS, round(phase) % LINES]
        assert read == pytest.approx(round(read)) and phase == pytest.approx(round(phase))
        np.testing.assert_allclose(back[z, :, y, x], expected, atol=1e-5)
    assert "readout cut from 24 to 12 pixels" in found.notes and "2 averages" in found.notes
    assert any("reversed readouts turned" in note for note in found.notes) == bool(reverse)
    one = read_measurement(tmp_path / "a.h5", "mri", MeasurementOptions(slices=(1, 2)))
    torch.testing.assert_close(one.y, found.y[1:])
    np.testing.assert_allclose(one.affine @ [0, 0, 0, 1], affine @ [0, 0, 1, 1])


def test_several_echoes_are_asked_for(tmp_path: Path) -> None:
    whole = fft(images(2, 1, COILS, 2 * ROWS, LINES))
    path = write_mrd(tmp_path / "a.h5", whole)
    with pytest.raises(InputError, match=r"has echo 0, 1; choose one with --data.select echo=0"):
        read_measurement(path, "mri")
    for text, words in (
        ("scan=0", "of such a file give some of echo"),
        ("echo=2", "has echo 0, 1"),
        ("slice=2", "give some of echo"),
        ("echo", "give some of"),
    ):
        with pytest.raises(InputError, match=words):
            read_measurement(path, "mri", MeasurementOptions(select=text))
    alone = read_measurement(write_mrd(tmp_path / "b.h5", whole[1:]), "mri")
    torch.testing.assert_close(read_measurement(path, "mri", MeasurementOptions(select="echo=1")).y, alone.y)


@pytest.mark.parametrize("name", ["repetition", "set", "phase"])
def test_so_are_repetitions_sets_and_phases(name: str, tmp_path: Path) -> None:
    whole = fft(images(3, 1, COILS, 2 * ROWS, LINES))
    path = write_mrd(tmp_path / "a.h5", whole, counter=name)
    with pytest.raises(InputError, match=f"has {name} 0, 1, 2; choose one with --data.select {name}=0"):
        read_measurement(path, "mri")
    alone = read_measurement(write_mrd(tmp_path / "b.h5", whole[2:]), "mri")
    torch.testing.assert_close(read_measurement(path, "mri", MeasurementOptions(select=f"{name}=2")).y, alone.y)


@pytest.mark.parametrize("kind", ["pocs", "homodyne"])
def test_a_side_that_a_scanner_left_out_is_completed(kind: Any, tmp_path: Path) -> None:
    whole = fft(images(1, SLICES, COILS, 2 * ROWS, LINES))
    path = write_mrd(tmp_path / "a.h5", whole, lines=(range(7),) * SLICES)
    zero, asked = (read_measurement(path, "mri", MeasurementOptions(partial_fourier=how)) for how in ("zero", kind))
    assert float(zero.geometry["mask"].mean()) == pytest.approx(0.7)
    with pytest.raises(InputError, match=r"--data.partial_fourier is not done yet"):
        measured_operator(asked)
    done = part_of(asked)
    assert (
        float(done.geometry["mask"].min()) == 1 and f"30% of k-space, not measured, completed by {kind}" in done.notes
    )
    torch.testing.assert_close(done.y, complete_partial_fourier(zero.y, zero.geometry["mask"], kind))
    assert float((done.y * (1 - zero.geometry["mask"])).norm()) > 0.01 * float(zero.y.norm())
    fewer = part_of(zero, acc=2.0).geometry["mask"]
    assert 0 < float(fewer.sum()) < float(zero.geometry["mask"].sum()) and bool((fewer <= zero.geometry["mask"]).all())


def test_noise_is_whitened_by_its_scan(tmp_path: Path) -> None:
    mixing = images(COILS, COILS)
    noise = mixing @ images(COILS, 4000)
    path = write_mrd(tmp_path / "a.h5", fft(images(1, 1, COILS, 2 * ROWS, LINES)), noise)
    white, plain = (read_measurement(path, "mri", MeasurementOptions(whiten=on)) for on in (True, False))
    covariance = noise_covariance(noise.astype(np.complex64))
    matrix = whitening_matrix(covariance)
    np.testing.assert_allclose(matrix @ covariance @ matrix.conj().T, np.eye(COILS), atol=1e-10)
    expected = torch.einsum("vc,zcyx->zvyx", torch.from_numpy(matrix.astype(np.complex64)), plain.y)
    torch.testing.assert_close(white.y, expected, rtol=1e-4, atol=1e-5)
    assert white.noise_std == pytest.approx(0.5**0.5) and plain.noise_std == 0
    assert any(note.startswith("noise of 3 coils whitened") for note in white.notes)
    apart = write_mrd(tmp_path / "b.h5", fft(images(1, 1, COILS, 2 * ROWS, LINES)))
    found = read_measurement(apart, "mri", MeasurementOptions(noise_scan=path))
    assert found.noise_std == white.noise_std
    other = write_mrd(tmp_path / "c.h5", fft(images(1, 1, COILS, 2 * ROWS, LINES)), images(2, 100))
    with pytest.raises(InputError, match="the noise scan is of 2 coils, the image of 3"):
        read_measurement(other, "mri")
    with pytest.raises(InputError, match="has no noise scan"):
        read_measurement(path, "mri", MeasurementOptions(noise_scan=apart))


def test_a_noise_scan_of_unknown_bandwidth_is_told(tmp_path: Path) -> None:
    path = write_mrd(tmp_path / "a.h5", fft(images(1, 1, COILS, 2 * ROWS, LINES)), images(COILS, 400))
    words = ", as if its bandwidth were that of the image"
    assert not any(words in note for note in read_measurement(path, "mri").notes)
    with h5py.File(path, "r+") as file:
        readouts = file["dataset/data"][:]
        readouts["head"]["sample_time_us"][0] = 0
        file["dataset/data"][...] = readouts
    assert any(words in note for note in read_measurement(path, "mri").notes)


def test_headers_that_contradict_the_readouts(tmp_path: Path) -> None:
    """Spokes that a header calls a grid are told of, a field of view in meters is refused."""
    wide = fft(images(1, 1, COILS, 2 * ROWS, LINES))
    one = ismrmrd.Acquisition.from_array(
        wide[0, 0, :, :, 5].astype(np.complex64), np.zeros((2 * ROWS, 2), np.float32), center_sample=ROWS
    )
    one.idx.kspace_encode_step_1 = 5
    with ismrmrd.File(str(tmp_path / "a.h5"), "w") as file:
        file["dataset"].header = ismrmrd.xsd.CreateFromDocument(HEADER.encode())
        file["dataset"].acquisitions = [one]
    notes = read_measurement(tmp_path / "a.h5", "mri").notes
    assert "trajectories of the readouts left out: dataset/xml says that they are on a grid" in notes
    meters = HEADER.replace("<x>48</x><y>30</y>", "<x>0.048</x><y>0.030</y>")
    with pytest.raises(InputError, match=r"field of view of 0.048 x 0.03 mm, which looks like meters"):
        read_measurement(write_mrd(tmp_path / "b.h5", wide, header=meters), "mri")


def named(*coils: str) -> str:
    labels = "".join(
        f"<coilLabel><coilNumber>{k}</coilNumber><coilName>{name}</coilName></coilLabel>"
        for k, name in enumerate(coils)
    )
    system = f"<acquisitionSystemInformation>{labels}</acquisitionSystemInformation>"
    return HEADER.replace("<experimentalConditions>", f"{system}<experimentalConditions>")


def test_noise_scans_that_do_not_match_are_refused_in_a_line(tmp_path: Path) -> None:
    kspace, noise = fft(images(1, 1, COILS, 2 * ROWS, LINES)), images(COILS, 100)
    image = write_mrd(tmp_path / "image.h5", kspace, header=named("head 1", "head 2", "head 3"))
    write_mrd(tmp_path / "knee.h5", kspace, noise, header=named("head 1", "knee 2", "head 3"))
    write_mrd(tmp_path / "two.h5", kspace[:, :, :2], noise[:2])
    write_mrd(tmp_path / "short.h5", kspace, noise[:, :5])
    write_mrd(tmp_path / "signal.h5", kspace, images(COILS, 400) + 9)
    write_mrd(tmp_path / "dead.h5", kspace, noise * [[1], [1], [0]])
    (tmp_path / "P00001.7").write_bytes(b"x")
    (tmp_path / "text.dat").write_bytes(b"time,value\n" * 2000)
    np.savez(tmp_path / "other.npz", noise=noise)
    for name, words in (
        ("knee.h5", "the noise scan is of coil knee 2 where the image is of head 2"),
        ("two.h5", "the noise scan is of 2 coils, the image of 3"),
        ("short.h5", "the noise scan has 5 samples for 3 coils"),
        ("signal.h5", r"9\d% of the noise scan's power in coil \d is constant, which is no noise"),
        ("dead.h5", "coils without noise of their own"),
        ("nowhere.h5", "--data.noise_scan .*nowhere.h5: no such file"),
        ("P00001.7", "P-file or ScanArchive of GE, which is not read"),
        ("other.npz", "other.npz: is no MRD file"),
        ("text.dat", "text.dat: is no TWIX file"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            read_measurement(image, "mri", MeasurementOptions(noise_scan=tmp_path / name))
        assert "\n" not in str(caught.value)
    np.savez(tmp_path / "k.npz", kspace=np.ones((2, 8, 8), np.complex64))
    with pytest.raises(
        InputError, match=r"--data.noise_scan .*: is for a scanner's own file, which .*k.npz is none of"
    ):
        given = MeasurementOptions(axes="slice y x", noise_scan=tmp_path / "knee.h5")
        read_measurement(tmp_path / "k.npz", "mri", given)


def test_slices_have_masks_of_their_own_and_calibration_counts(tmp_path: Path) -> None:
    whole = fft(images(1, SLICES, COILS, 2 * ROWS, LINES))
    path = write_mrd(tmp_path / "a.h5", whole, lines=((0, 4, 5, 6, 8), (1, 4, 5, 6, 9)), calibration=(4, 6))
    found = read_measurement(path, "mri")
    mask = found.geometry["mask"]
    assert mask.shape == (2, LINES, ROWS) and bool((mask == mask[..., :1]).all())
    # Towards the front: lines mirrored about number 5; the lower slice is number 1.
    assert [mask[z, :, 0].nonzero().flatten().tolist() for z in (0, 1)] == [[1, 4, 5, 6, 9], [0, 2, 4, 5, 6]]
    assert any("lines of calibration used" in note for note in found.notes)
    separate = HEADER.replace("<trajectory>", "<PAR/><trajectory>").replace("<PAR/>", "")
    separate = separate.replace(
        "</trajectory>",
        "</trajectory><parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>"
        "<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor><calibrationMode>separate"
        "</calibrationMode></parallelImaging>",
    )
    path = write_mrd(tmp_path / "b.h5", whole, lines=((0, 4, 5, 6, 8),) * 2, calibration=(4, 5, 6), header=separate)
    found = read_measurement(path, "mri")
    assert found.geometry["mask"].ndim == 2 and float(found.geometry["mask"][:, 0].sum()) == 2
    assert found.geometry["calibration"].shape == found.y.shape
    assert int((found.geometry["calibration"][0, 0, :, 0] != 0).sum()) == 3


def test_lines_of_both_image_and_calibration_are_of_the_image(tmp_path: Path) -> None:
    """Converters set both flags then, whatever the mode of the calibration."""
    whole = fft(images(1, SLICES, COILS, 2 * ROWS, LINES))
    path = write_mrd(tmp_path / "a.h5", whole, calibration=(4, 5, 6))
    with h5py.File(path, "r+") as file:
        rows = file["dataset/data"][:]
        both = (rows["head"]["flags"] >> np.uint64(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION - 1)) & np.uint64(1) == 1
        rows["head"]["flags"][both] |= np.uint64(1 << (ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING - 1))
        file["dataset/data"][:] = rows
        file["dataset/xml"][0] = file["dataset/xml"][0].replace(
            b"</trajectory>",
            b"</trajectory><parallelImaging><accelerationFactor><kspace_encoding_step_1>1</kspace_encoding_step_1>"
            b"<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor><calibrationMode>separate"
            b"</calibrationMode></parallelImaging>",
        )
    found = read_measurement(path, "mri")
    assert bool(found.geometry["mask"].all()) and "calibration" not in found.geometry


@pytest.mark.parametrize(
    ("delay", "samples", "on_ramps"), [(100, 50, ""), (60, 50, "40 us before"), (100, 90, "behind")]
)
def test_readouts_on_ramps_are_refused(delay: int, samples: int, on_ramps: str, tmp_path: Path) -> None:
    """They are no even samples of k-space, whatever their number."""
    told = {"rampUpTime": 100, "flatTopTime": 400, "rampDownTime": 100, "acqDelayTime": delay, "numSamples": samples}
    long = "".join(
        f"<userParameterLong><name>{k}</name><value>{v}</value></userParameterLong>" for k, v in told.items()
    )
    described = (
        f"<trajectoryDescription><identifier>ConventionalEPI</identifier>{long}<userParameterDouble>"
        "<name>dwellTime</name><value>5</value></userParameterDouble></trajectoryDescription></encoding>"
    )
    header = HEADER.replace("cartesian", "epi").replace("</encoding>", described)
    path = write_mrd(tmp_path / "a.h5", fft(images(1, 1, 2, 2 * ROWS, LINES)), header=header)
    if not on_ramps:
        assert read_measurement(path, "mri").y.shape == (1, 2, LINES, ROWS)
        return
    with pytest.raises(InputError, match=f"sampled on the ramps of the gradient .*{on_ramps}.*regrid them first"):
        read_measurement(path, "mri")


def test_wrong_scanner_files_are_refused_in_a_line(tmp_path: Path, shared: Path) -> None:
    pytest.importorskip("twixtools")
    whole = (shared / TWIX).read_bytes()
    for name, content, words in (
        ("P12345.7", b"x", "P-file or ScanArchive of GE, which is not read; convert it to MRD"),
        ("scan.raw", b"x", "raw data of Philips"),
        ("scan.lab", b"x", "raw data of Philips"),
        ("cut.dat", whole[:1_000_000], "cut short"),
        ("zeros.dat", bytes(4096), "is no TWIX file"),
        ("text.dat", b"time,value\n" * 2000, "is no TWIX file"),
        ("empty.dat", b"", "is no TWIX file"),
        ("alone.cfl", bytes(64), "alone.hdr: no such file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            read_measurement(tmp_path / name, "mri")
        assert "\n" not in str(caught.value)
    path = write_mrd(tmp_path / "n.h5", fft(images(1, 1, 2, 2 * ROWS, LINES)), images(2, 50), lines=((),))
    with pytest.raises(InputError, match="has no lines of an image"):
        read_measurement(path, "mri")
    with pytest.raises(InputError, match=r"--data.select echo=1: is for a scanner's own file"):
        read_measurement(shared / NPZ, "mri", MeasurementOptions(axes="coil y x", select="echo=1"))


@pytest.mark.parametrize(
    ("name", "value", "readout", "words"),
    [
        ("encoding_space_ref", 3, 1, "has readouts of an encoding that dataset/xml has not"),
        ("position", np.nan, 1, "whose position or duration is not finite"),
        ("sample_time_us", np.inf, 1, "whose position or duration is not finite"),
        ("sample_time_us", np.nan, 0, "its samples of noise take nan us"),
    ],
)
def test_heads_of_readouts_that_cannot_be(name: str, value: float, readout: int, words: str, tmp_path: Path) -> None:
    path = write_mrd(tmp_path / "a.h5", fft(images(1, 1, COILS, 2 * ROWS, LINES)), images(COILS, 100))
    with h5py.File(path, "r+") as file:
        readouts = file["dataset/data"][:]
        readouts["head"][name][readout] = value
        file["dataset/data"][...] = readouts
    with pytest.raises(InputError, match=words):
        read_measurement(path, "mri")


def test_the_brain_is_the_same_from_its_twix_file(shared: Path) -> None:
    """Line and column as they were taken out of it by others, mirrored to face the front."""
    pytest.importorskip("twixtools")
    asked = read_measurement(shared / TWIX, "mri")
    with pytest.raises(InputError, match=r"64 lines .* of which 128 were measured.* --data.oversampling 1 or 2"):
        measured_operator(asked)
    found = read_measurement(shared / TWIX, "mri", MeasurementOptions(oversampling=1.0))
    other = read_measurement(shared / NPZ, "mri", MeasurementOptions(axes="coil y x"))
    torch.testing.assert_close(found.y, mirrored(other.y, -2), rtol=0, atol=0)
    assert found.sided and not other.sided  # by the header; an array has none
    np.testing.assert_allclose(np.linalg.norm(found.affine[:3, :3], axis=0), [2, 2, 3], rtol=1e-6)
    np.testing.assert_allclose(found.affine @ [64, 64, 0, 1], [0, 0, 0, 1], atol=1e-4)
    volumes = [measured_operator(one).adjoint(one.y).abs()[0] for one in (found, other)]
    turned = torch.roll(volumes[1].flip(0), 1, 0)
    assert float((volumes[0] - turned).norm() / turned.norm()) < 1e-2  # coil maps are estimated from turned k-space
    part = part_of(found, acc=4.0)
    mask = part.geometry["mask"]  # phase was encoded along y
    assert bool((mask == mask[:, :1]).all()) and float(mask[:, 0].sum()) == 32


def test_barts_files_are_read_and_written(tmp_path: Path) -> None:
    kspace = images(SLICES, COILS, ROWS, LINES).astype(np.complex64)
    write_cfl(tmp_path / "k.cfl", kspace, "slice coil y x")
    assert (tmp_path / "k.hdr").read_text().split()[2:] == ["12", "10", "1", "3", *["1"] * 9, "2", "1", "1"]
    stored = np.fromfile(tmp_path / "k.cfl", np.complex64)
    np.testing.assert_array_equal(stored[: ROWS + 1], [*kspace[0, 0, :, 0], kspace[0, 0, 0, 1]])
    for name in ("k.cfl", "k.hdr"):
        np.testing.assert_array_equal(read_measurement(tmp_path / name, "mri").y, kspace)
    write_cfl(tmp_path / "e.cfl", np.stack([kspace, 2 * kspace]), "echo slice coil y x")
    with pytest.raises(InputError, match=r"has echo 0 to 1; choose one with --data.select echo=0"):
        read_measurement(tmp_path / "e.cfl", "mri")
    for text in ("echo=1,set=0", "scan=0"):
        with pytest.raises(InputError, match="of such a file give some of echo, repetition, such as"):
            read_measurement(tmp_path / "e.cfl", "mri", MeasurementOptions(select=text))
    found = read_measurement(tmp_path / "e.cfl", "mri", MeasurementOptions(select="echo=1"))
    np.testing.assert_array_equal(found.y, 2 * kspace)
    (tmp_path / "k.cfl").write_bytes(stored.tobytes()[:-8])
    with pytest.raises(InputError, match="it may be cut short"):
        read_measurement(tmp_path / "k.cfl", "mri")
