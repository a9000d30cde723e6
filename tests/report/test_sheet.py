"""Figures of volumes: in the unit of the file, with the right side marked, nothing on top of each other."""

import io
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch

from lightning_mbir.data.units import MU_WATER
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.reconstruction.writer import write_figure
from lightning_mbir.report.figures import volumes_figure
from lightning_mbir.report.montage import montage
from lightning_mbir.report.scale import Scale, picture_window
from lightning_mbir.report.sheet import (
    DPI,
    Picture,
    Place,
    mark,
    middle,
    middle_planes,
    new_figure,
    nice,
    planes_sheet,
)
from tests.helpers import smooth_volume

HU = Scale.of("ct", (0.0, 2 * MU_WATER))
SCORES = {plane: {"psnr": 31.0, "ssim": 0.9} for plane in ("axial", "coronal", "sagittal")}


def drawn(shape: tuple[int, int, int], direct: bool = True, truth: bool = True, place: Place | None = None) -> Any:
    volume = smooth_volume(shape, scale=MU_WATER)
    place = place or Place(shape, (3.0, 2.0, 2.0), "RA")
    other = ("FBP", volume * 0.5) if direct else None
    return montage("chest: sv_ct, views 8; dds", "dds", volume, other, volume if truth else None, place, HU, SCORES)


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in [*figure.texts, *(text for ax in figure.axes for text in ax.texts)]]


def test_the_scale_is_that_of_the_file() -> None:
    assert HU.window == (-1000.0, 1000.0) and HU.unit == "HU" and HU.error_peak == 400.0
    values = torch.tensor([0.0, MU_WATER, 2 * MU_WATER], dtype=torch.float64)
    assert torch.allclose(HU.shown(values), torch.tensor([-1000.0, 0.0, 1000.0], dtype=torch.float64))
    image = torch.rand(4, 8, 8)
    mri = Scale.of("mri", picture_window(image, "mri"))
    assert torch.equal(mri.shown(image), image) and mri.in_brackets == ""
    assert Scale.of("ct", (0.0, 3.0), calibrated=False).unit == "1/length"


def test_pictures_are_in_hounsfield_units_and_say_so() -> None:
    figure = drawn((16, 32, 32))
    pictures = [ax.images[0] for ax in figure.axes if ax.images]
    assert pictures[0].get_clim() == (-1000.0, 1000.0)
    assert float(np.nanmax(pictures[0].get_array())) == pytest.approx(0.0, abs=1.0)  # water
    told = texts(figure)
    assert "chest: sv_ct, views 8; dds" in told and any("window -1000 to 1000 HU" in text for text in told)
    assert "error (HU)" in told and "axial, slice 9 of 16" in told


def test_no_column_is_there_twice() -> None:
    def names(figure: Any) -> list[str]:
        return [name for name in texts(figure) if name in ("ground truth", "FBP", "dds", "error of dds")]

    assert names(drawn((16, 32, 32))) == ["ground truth", "FBP", "dds", "error of dds"]
    assert names(drawn((16, 32, 32), direct=False)) == ["ground truth", "dds", "error of dds"]
    assert names(drawn((16, 32, 32), truth=False)) == ["FBP", "dds"]


@pytest.mark.parametrize("flip", [(1, 1), (-1, 1), (1, -1)])
def test_the_marks_are_those_of_the_affine(flip: tuple[int, int]) -> None:
    """A bright spot at the patient's front and right lies where the marks say."""
    affine = np.diag([2.0 * flip[0], 2.0 * flip[1], 3.0, 1.0])
    data = torch.zeros(8, 32, 32)
    data[4, 30 if flip[1] > 0 else 1, 30 if flip[0] > 0 else 1] = 1.0  # high mm of x and y: right and front
    place = Place.of(data, affine)
    ends = place.ends("axial")
    assert ends is not None
    row, column = np.argwhere(middle(data, "axial") == 1.0)[0]
    assert (column < 16) == (ends[0] == "R")
    assert (row < 16) == (flip[1] > 0)
    sagittal = place.ends("sagittal")
    assert sagittal is not None and sagittal[0] == ("A" if flip[1] > 0 else "P")


def test_left_and_right_are_not_marked_where_they_are_not_known() -> None:
    data = torch.zeros(8, 32, 32)
    known = Volume(data, np.diag([2.0, 2.0, 3.0, 1.0]), "v", "ct")
    assumed = Volume(data, known.affine, "v", "ct", notes=("no place in the world: left and right are not known",))
    assert known.sided and not assumed.sided
    place = Place.of(data, known.affine, sided=False)
    told = texts(drawn((8, 32, 32), place=place))
    assert place.ends("axial") is None and "R" not in told
    assert any("left and right are not known" in text for text in told)


@pytest.mark.parametrize("slices", [4, 6, 32])
def test_nothing_lies_on_top_of_anything_else(slices: int) -> None:
    figure = drawn((slices, 128, 128), place=Place((slices, 128, 128), (1.0, 3.0, 3.0), "RA"))
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [ax.get_window_extent(renderer) for ax in figure.axes]
    for k, box in enumerate(boxes):
        for other in boxes[k + 1 :]:
            wide = min(box.x1, other.x1) - max(box.x0, other.x0)
            high = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(wide, high) < 1.0, (box, other)


def test_words_of_a_single_picture_end_within_it() -> None:
    """As of a direct inversion of what was measured: one column, and its name may be long."""
    volume, place = smooth_volume((1, 64, 64)), Place((1, 64, 64), (5.0, 2.0, 2.0))
    name = "the_second_measurement_of_a_patient_with_a_long_name: cs_mri, measured; zero_filled"
    figure = montage(name, "zero_filled", volume, None, None, place, Scale.of("mri", (0.0, 1e-4)))
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    for text in figure.texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0, text.get_text()
    assert {"window 0 to 0.0001; left and right are", "not known"} <= set(texts(figure))


@pytest.mark.parametrize("height", [0.5, 0.8, 2.5])
def test_a_length_stands_above_its_line(height: float) -> None:
    figure = new_figure((4.0, height))
    ax = figure.add_axes((0, 0, 1, 1))
    mark(ax, "axial", Place((8, 64, 64), (1.0, 1.0, 1.0)), height, measure=True)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    figure.draw(renderer)
    (line,), (text,) = ax.lines, ax.texts
    assert text.get_window_extent(renderer).y0 > line.get_window_extent(renderer).y1


def test_a_mark_of_left_is_not_read_as_an_i() -> None:
    """Its foot is there wherever the picture lies: matplotlib snaps what has corners alone to whole pixels."""
    for k in range(40):
        figure = new_figure((2 + 0.013 * k, 2 + 0.029 * k))
        ax = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        mark(ax, "axial", Place((8, 64, 64), (1.0, 1.0, 1.0), "RA"), 2.0, measure=False)
        ax.set_facecolor("black")
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba()).astype(int)  # type: ignore[attr-defined]
        yellow = (pixels[..., 0] > 128) & (pixels[..., 2] < 160)
        assert yellow[:, yellow.shape[1] // 2 :].any(0).sum() >= 3  # columns of the L


def test_large_slices_are_not_shrunk(tmp_path: Path) -> None:
    figure = drawn((4, 512, 512), place=Place((4, 512, 512), (3.0, 0.8, 0.8), "RA"))
    axial = next(ax for ax in figure.axes if ax.images)
    assert axial.get_position().width * figure.get_figwidth() * DPI >= 511.9
    write_figure(tmp_path / "m.png", figure)
    assert matplotlib.image.imread(tmp_path / "m.png").shape[1] > 4 * 512


def test_fewer_slices_than_four_are_one_plane_and_what_failed_has_a_place() -> None:
    volume = smooth_volume((2, 32, 32), scale=MU_WATER)
    rows: list[list[Picture | None]] = [[Picture("a", middle_planes(volume)), Picture("b", None)]]
    figure = planes_sheet("t", rows, Place((2, 32, 32), (3.0, 2.0, 2.0), "RA"), HU).figure
    assert len(figure.axes) == 2 and "failed" in texts(figure)


def test_lengths_are_round() -> None:
    assert [nice(x) for x in (0.3, 1.0, 4.9, 99.0, 100.0)] == [0.2, 1.0, 2.0, 50.0, 100.0]


def test_volumes_beside_each_other_with_their_errors_below() -> None:
    truth = smooth_volume((16, 32, 32), scale=MU_WATER)
    place = Place(tuple(truth.shape), (3.0, 2.0, 2.0), "RA")
    volumes = {"half": truth * 0.5, "turned": truth * torch.exp(torch.tensor(2.0j))}  # of which the magnitude is shown
    figure = volumes_figure("a ball", volumes, place, HU, truth, {"half": SCORES}, truth_name="everything")
    pictures = [ax.images[0] for ax in figure.axes if ax.images]
    assert len(pictures) == 15  # five a plane
    limit = [picture for picture in pictures if picture.get_clim() == (-400.0, 400.0)]
    assert len(limit) == 6 and float(abs(limit[1].get_array()).max()) < 1e-2
    assert float(limit[0].get_array().min()) == pytest.approx(-500.0, abs=1.0)
    told = texts(figure)
    assert {"everything", "half", "turned"} <= set(told) and told.count("31.00 dB, SSIM 0.900") == 3
    alone = volumes_figure("a ball", volumes, place, HU)
    assert sum(bool(ax.images) for ax in alone.axes) == 6 and "error (HU)" not in texts(alone)


def test_figures_show_themselves_in_notebooks() -> None:
    picture = drawn((16, 32, 32))._repr_png_()
    assert picture[1:4] == b"PNG" and matplotlib.image.imread(io.BytesIO(picture))[0, 0, :3].max() == 0


def test_no_length_is_drawn_where_none_is_known() -> None:
    shape, affine = (16, 32, 32), np.diag([2.0, 2.0, 3.0, 1.0])
    volume = smooth_volume(shape)
    for sized in (True, False):
        figure = drawn(shape, place=Place.of(volume, affine, sized=sized))
        assert any(text.endswith(" mm") for text in texts(figure)) == sized
