"""``report.html``: what it holds, how exactly, that it needs nothing else, and that it works in a browser."""

import base64
import gzip
import hashlib
import importlib.util
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mbir.data.units import MU_WATER
from lightning_mbir.data.volumes.volume import Volume, mu_to_hu
from lightning_mbir.errors import InputError
from lightning_mbir.methods.run import Reconstruction
from lightning_mbir.methods.samples import PosteriorSamples
from lightning_mbir.reconstruction import image_metrics, write_report
from lightning_mbir.report import page
from lightning_mbir.report.embedded import MOST_VOXELS, embed, factors, of_steps, reduced, reduced_affine, steps_file
from lightning_mbir.report.scale import Scale
from tests.helpers import smooth_volume

HU = Scale.of("ct", (0.0, 2 * MU_WATER))
AFFINE = np.array([[2.0, 0, 0, -30], [0, 2.0, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1]])


def chest(shape: tuple[int, int, int] = (12, 32, 40)) -> Volume:
    return Volume(smooth_volume(shape, scale=MU_WATER), AFFINE, "chest <1> & </script>", "ct")


def result_of(data: Tensor) -> Reconstruction:
    return Reconstruction(data, "sirt", 0, 1.5, 0.01)


def part(text: str, name: str) -> str:
    found = re.search(rf'<script type="[\w/]+" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert found, name
    return found[1]


def written(folder: Path, volume: Volume | None = None, **options: Any) -> str:
    volume = volume or chest()
    results = {"fbp": result_of(0.5 * volume.data), "sirt": result_of(0.9 * volume.data)}
    scores = {name: image_metrics(result.volume, volume.data, 0.0576) for name, result in results.items()}
    write_report(folder / "report.html", results, volume, scores=scores, **options)
    return (folder / "report.html").read_text()


def test_volumes_are_nifti_in_hounsfield_units_to_the_loss_that_is_told(tmp_path: Path) -> None:
    volume = chest()
    text = written(tmp_path, volume)
    for k, factor in enumerate((1.0, 0.5, 0.9)):
        image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(part(text, f"v{k}"))))
        assert image.get_data_dtype() == np.int16 and np.array_equal(image.affine, AFFINE)
        wanted = mu_to_hu(factor * volume.data).numpy().transpose(2, 1, 0)
        assert np.abs(image.get_fdata() - wanted).max() <= 1.0 + 1e-3
    assert "Values are rounded by up to 1 HU." in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_steps_give_back_what_they_hold() -> None:
    data = MU_WATER * torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(0))
    packed, clipped = steps_file(data, AFFINE, HU)
    again = of_steps(packed, HU)
    assert clipped == 0 and float((again - data).abs().max()) <= (1.0 + 1e-3) * MU_WATER / 1000
    assert steps_file(again, AFFINE, HU)[0] == packed  # nothing is lost twice
    with pytest.raises(ValueError, match="no volume of steps"):
        of_steps(packed[:100], HU)
    assert embed(data * 1e4, AFFINE, HU).clipped > 0
    spread = nib.Nifti1Image.from_bytes(gzip.decompress(steps_file(data, AFFINE, HU, spread=True)[0]))
    assert abs(spread.get_fdata() - data.numpy().transpose(2, 1, 0) * 1000 / MU_WATER).max() <= 1.0 + 1e-3


def test_huge_volumes_are_reduced_to_means_at_the_same_place_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert factors((98, 256, 256), 3) == (1, 1, 1) and factors((100, 512, 512), 4) == (1, 2, 4)
    z, y, x = factors((2000, 2000, 2000), 4)
    assert 4 * (2000 / z) * (2000 / y) * (2000 / x) <= MOST_VOXELS
    data = torch.arange(4 * 5 * 6.0).reshape(4, 5, 6)
    small = reduced(data, (1, 2, 2))
    assert (
        small.shape == (4, 3, 3)
        and small[1, 1, 2] == data[1, 2:4, 4:6].mean()
        and small[0, 2, 0] == data[0, 4, :2].mean()
    )
    assert np.allclose((reduced_affine(AFFINE, (1, 2, 2)) @ [1, 1, 0, 1])[:3], (AFFINE @ [2.5, 2.5, 0, 1])[:3])
    monkeypatch.setattr(page, "factors", lambda shape, n: (1, 2, 2))
    text = written(tmp_path)
    assert "each voxel is the mean of 1 x 2 x 2" in text and json.loads(part(text, "data"))["shape"] == [20, 16, 12]


def test_nothing_of_the_data_is_taken_for_html(tmp_path: Path) -> None:
    text = written(tmp_path)
    assert "chest &lt;1&gt; &amp; &lt;/script&gt;" in text and text.count("chest <1>") == 0
    assert text.count("</script>") == 6  # of the data, three volumes, niivue, and the viewer


def test_no_address_is_loaded_and_none_may_be(tmp_path: Path) -> None:
    text = written(tmp_path)
    assert "default-src 'none'" in text
    for name in ("src", "href"):
        assert not re.search(rf"<[^>]+\s{name}=", text)


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    volume = chest()
    assumed = Volume(volume.data, AFFINE, "v", "ct", notes=("axes are taken as left, posterior and superior",))
    text = written(tmp_path, assumed)
    assert not json.loads(part(text, "data"))["sided"] and "does not tell left from right" in text
    assert json.loads(part(written(tmp_path), "data"))["sided"]
    panels = json.loads(part(written(tmp_path, truth=False), "data"))["panels"]
    assert [panel["name"] for panel in panels] == ["fbp", "sirt"] and not any("minus" in panel for panel in panels)


def test_samples_have_a_panel_of_their_deviation(tmp_path: Path) -> None:
    volume = chest()
    samples = PosteriorSamples(0.9 * volume.data, "dds", 8, 1.0, 0.01, 0.1 * volume.data, 4)
    write_report(tmp_path / "r.html", {"dds": samples}, volume)
    panels = json.loads(part((tmp_path / "r.html").read_text(), "data"))["panels"]
    assert [(panel["kind"], panel["of"]) for panel in panels] == [
        ("grey", "v0"), ("grey", "v1"), ("error", "v1"), ("spread", "v2"),
    ]  # fmt: skip


def test_results_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sirt is"):
        write_report(tmp_path / "r.html", {"sirt": torch.zeros(2, 3, 4)}, chest())
    with pytest.raises(InputError, match="no result"):
        write_report(tmp_path / "r.html", {}, chest())
    assert not list(tmp_path.iterdir())


def test_the_viewer_is_the_one_whose_checksum_is_kept() -> None:
    sums = dict(reversed(line.split()) for line in (page.ASSETS / "SHA256SUMS").read_text().splitlines())
    packed = (page.ASSETS / "niivue.umd.js.gz").read_bytes()
    assert hashlib.sha256(packed).hexdigest() == sums["niivue.umd.js.gz"]
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == sums["niivue.umd.js"]
    assert len(packed) < 2**20 and "BSD 2-Clause" in (page.ASSETS / "niivue.LICENSE.txt").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a screen: that of the system, else the one that playwright has installed."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed (extra `browser`)")
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        own = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        flags = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
        try:
            chromium = playwright.chromium.launch(executable_path=own, args=flags)
        except Error as error:
            pytest.skip(f"no Chromium that starts: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


def values(tab: Any) -> list[float]:
    return [float(text.split()[0]) for text in tab.locator("figcaption output").all_text_contents()]


@pytest.mark.slow
def test_a_browser_shows_it(tmp_path: Path, browser: Any) -> None:
    """A click, sliders, windows, errors in place of images, a sorted table; and nothing is asked of a network."""
    volume = chest()
    written(tmp_path, volume)
    tab = browser.new_page(viewport={"width": 900, "height": 900})
    asked: list[str] = []
    wrong: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto((tmp_path / "report.html").as_uri())
    tab.wait_for_selector("body[data-ready]", timeout=120_000)
    hu = mu_to_hu(volume.data)
    centre = float(hu[6, 16, 20])
    assert values(tab)[0] == pytest.approx(centre, abs=1.51)  # rounded to steps, and for people
    tab.locator("#slice-z").fill("0")
    tab.locator("#slice-x").fill("3")
    assert values(tab)[0] == pytest.approx(float(hu[0, 16, 3]), abs=1.51)
    assert tab.locator("#count-z").text_content() == "1 of 12"

    box = tab.locator("canvas").first.bounding_box()
    tab.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 10)
    x = int(tab.locator("#slice-x").input_value())
    assert 27 <= x <= 32  # a quarter from the left is three quarters from the patient's left
    y = int(tab.locator("#slice-y").input_value())
    assert y > 16 and values(tab)[1] == pytest.approx(float(mu_to_hu(0.5 * volume.data)[0, y, x]), abs=1.51)

    tab.click("#presets button:has-text('lung')")
    assert (tab.locator("#level").input_value(), tab.locator("#width").input_value()) == ("-600", "1500")
    tab.locator("#slice-z").fill("6")
    tab.locator("#slice-x").fill("20")
    tab.locator("#slice-y").fill("16")
    tab.check("#swap")
    tab.wait_for_function("document.querySelectorAll('figcaption span')[2].textContent === 'error of sirt'")
    assert values(tab)[2] == pytest.approx(float(mu_to_hu(0.9 * volume.data)[6, 16, 20]) - centre, abs=2.51)

    tab.locator("figure").nth(2).locator(".frame").screenshot(path=str(tmp_path / "error.png"))
    head = tab.locator("th:has-text('volume PSNR')")
    first = "document.querySelector('table.sortable tbody td').textContent"
    head.click()
    assert tab.evaluate(first) == "fbp" and head.get_attribute("aria-sort") == "ascending"
    head.click()
    assert tab.evaluate(first) == "sirt"

    assert tab.locator("#profile polyline").count() == 3
    tab.locator("canvas").first.screenshot(path=str(tmp_path / "shot.png"))
    import matplotlib.image

    picture = matplotlib.image.imread(tmp_path / "shot.png")[..., :3]
    yellow = picture[..., 0] - picture[..., 2] > 0.3  # letters and cross
    assert picture[~yellow].max() > 0.5 and picture[~yellow].std() > 0.02  # something is drawn
    cross = yellow.mean(1) > 0.8
    letters = yellow[~cross][:, -16:]
    assert letters.any(1).sum() > 8 and not letters[:, -1].any()  # L at the right, and not cut off
    errors = matplotlib.image.imread(tmp_path / "error.png")[..., :3]
    for part, least in ((errors[:30, :80], 400), (errors[:300, -16:-5], 60)):  # the length, and L, each on a dark plate
        yellow = (part[..., 0] > 0.8) & (part[..., 2] < 0.5)
        assert (part.min(2) > 0.9).mean() > 0.2 and (part.max(2) < 0.4).sum() > least and yellow.any()
    assert wrong == [] and [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
