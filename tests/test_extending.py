"""What docs/extending.md shows: each file is run as it stands there, by its path on the command line and in Python."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mbir.cli import main
from lightning_mbir.errors import InputError
from lightning_mbir.methods.own_operator import OwnOperator
from lightning_mbir.physics import LinearOperator, ParallelBeam
from lightning_mbir.prior import SliceDenoiser, Unit, convert, load_prior, save_prior
from lightning_mbir.prior.networks.build import GROUP, build_network
from lightning_mbir.reconstruction import reconstruct
from tests.helpers import gaussian_prior, smooth_volume
from tests.physics.test_operators import inner, pair

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
TRUST = ["--trust", "my_methods,my_operators,my_priors,my_networks"]
SMALL = ["--data.image_size", "32", "--data.slices", "12:20", "--trainer.accelerator", "cpu", *TRUST]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the guide in the working folder."""
    found = re.findall(r"<!-- (\w+)\.py -->\n```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert [name for name, _ in found] == ["my_methods", "my_operators", "my_priors", "my_networks"]
    for name, text in found:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def scores(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(next(out.rglob("metrics.json")).read_text())
    return found


def test_a_method_by_its_path(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["predict", "--task", "sv_ct", "--method", "my_methods.landweber"]
    assert main([*args, *TRUST, "--help"]) == 0
    said = capsys.readouterr().out
    assert "Landweber's iteration" in said and "length of a step, below 2 [1.0]" in said
    assert main([*args, "--steps", "30", *SMALL, "--output_dir", str(files / "a")]) == 0
    metrics = scores(files / "a")
    assert metrics["method"] == "my_methods.landweber" and metrics["residual"] < 0.1


def test_rows_of_a_method_are_of_the_file_it_was_then(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["test", "--task", "sv_ct", "--methods", "my_methods.landweber,fbp", *SMALL]
    for again in (False, True):
        assert main(args) == 0
        assert capsys.readouterr().out.count("scored before") == 2 * again
    with (files / "my_methods.py").open("a") as file:
        file.write("\n# changed\n")
    assert main(args) == 0
    assert capsys.readouterr().out.count("scored before") == 1  # that of fbp alone


def test_a_method_as_a_function(files: Path) -> None:
    import my_methods  # type: ignore[import-not-found]

    operator = ParallelBeam(32, [i * 10.0 for i in range(18)])
    truth = smooth_volume(scale=0.02)
    by_object = reconstruct(operator(truth), operator, method=my_methods.landweber, steps=40)
    by_path = reconstruct(operator(truth), operator, method="my_methods.landweber", steps=40)
    assert torch.equal(by_object.volume, by_path.volume)
    assert float((by_object.volume - truth).norm() / truth.norm()) < 0.2

    def with_prior(p: Any, *, sigma: float = 0.1) -> torch.Tensor:
        """What the prior makes of the back-projection."""
        return p.denoise(p.operator.adjoint(p.y), sigma)

    assert reconstruct(operator(truth), operator, gaussian_prior("ct"), with_prior).method == "with_prior"
    with pytest.raises(InputError, match=r"needs a prior.*does not say so"):
        reconstruct(operator(truth), operator, method=with_prior)
    with pytest.raises(InputError, match="returned a NoneType"):
        reconstruct(operator(truth), operator, method=nothing)
    with pytest.raises(InputError, match=r"method narrow: returned no volume of this problem: .*32, 32\), not .*31\)"):
        reconstruct(operator(truth), operator, method=narrow)
    with pytest.raises(InputError, match=r"method twisted: returned a complex volume, and this one is real"):
        reconstruct(operator(truth), operator, method=twisted)


def nothing(p: Any) -> None:
    """Gives no volume."""


def narrow(p: Any) -> torch.Tensor:
    """Gives one of another size."""
    return p.operator.adjoint(p.y)[..., 1:]


def twisted(p: Any) -> torch.Tensor:
    """Gives a phase to what is real."""
    return 1j * p.operator.adjoint(p.y)


class Half(LinearOperator):
    """Shifts by a pixel, and says that it shifts back by one more."""

    def __init__(self, image_size: int, back: int = -2, wide: int = 0) -> None:
        super().__init__()
        self.domain_shape, self.range_shape = (image_size, image_size), (image_size, image_size + wide)
        self.back = back

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.roll(1, -1)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return y.roll(self.back, -1)


class Shapeless(LinearOperator):
    """Has no shapes."""


class Oneway(Half):
    """Has no adjoint."""

    adjoint = LinearOperator.adjoint


def test_an_operator_that_breaks_its_contract_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def build(name: str, **options: Any) -> Any:
        return OwnOperator(f"{__name__}.{name}", options).build(16, 1.0, 0, complex=False)

    for name, options, words in (
        ("Shapeless", {}, "Shapeless: has no domain_shape"),
        ("Oneway", {}, "Oneway: does not define adjoint"),
        ("Half", {"wide": 3}, r"Half: forward gives \(16, 16\), and range_shape is \(16, 19\)"),
    ):
        with pytest.raises(InputError, match=f"--operator .*{words}"):
            build(name, **options)
    build("Half", back=-1)
    assert not caplog.records
    build("Half")
    assert "Half: its adjoint is not that of its forward" in caplog.text


class Narrow(torch.nn.Module):
    """A network whose images lose their borders, or all but one pixel, which would be spread over all."""

    stride = in_channels = 1

    def __init__(self, left: int = 30) -> None:
        super().__init__()
        self.left = left

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x[..., : self.left, : self.left]


@pytest.mark.parametrize("left", [1, 30])
def test_a_network_that_breaks_its_contract_is_told(left: int) -> None:
    denoise = SliceDenoiser(Narrow(left), Unit.of("ct"), "ct")
    with pytest.raises(InputError, match=rf"network Narrow: made \(1, 1, {left}, {left}\) of \(1, 1, 32, 32\)"):
        denoise(torch.rand(2, 32, 32), 0.1)


def test_an_operator_by_its_path(files: Path) -> None:
    import my_operators  # type: ignore[import-not-found]

    blur = my_operators.Blur(16).double()
    x, y = pair(blur)
    assert abs(inner(blur(x), y) - inner(x, blur.adjoint(y))) < 1e-10 * x.norm() * y.norm()
    args = ["predict", "--task", "cs_mri", "--operator", "my_operators.Blur", "--method", "admm_tv", "--steps", "20"]
    args += ["--model.operator_options", '{"width": 3}', *SMALL, "--output_dir", str(files / "out")]
    assert main(args) == 0
    metrics = scores(files / "out")
    assert metrics["settings"]["operator"] == "my_operators.Blur"
    assert metrics["settings"]["operator_options"] == {"width": 3} and metrics["axial"]["psnr"] > 20
    # In Python a real measurement is taken for CT unless told; the unit of MRI follows the measurement.
    truth, operator = smooth_volume(scale=300.0), my_operators.Blur(32, width=1.0)
    given = operator, gaussian_prior("mri")
    one, thousand = (reconstruct(k * operator(truth), *given, modality="mri", steps=20).volume for k in (1, 1000))
    torch.testing.assert_close(thousand, 1000 * one, rtol=1e-3, atol=30.0)
    assert float((one - truth).norm() / truth.norm()) < 0.3
    with pytest.raises(InputError, match="l1_wavelet: not for ct"):
        reconstruct(operator(truth), operator, method="l1_wavelet")
    assert reconstruct(operator(truth), operator, method="l1_wavelet", modality="mri", steps=3).residual < 0.2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--method", "my_methods.nothing"], "--method my_methods.nothing: cannot be imported"),
        (["--method", "my_methods.torch"], "cannot be imported"),
        (["--operator", "my_operators.Blurr"], "--operator my_operators.Blurr: cannot be imported"),
        (["--operator", "my_operators.Blur", "--views", "8"], "--views 8: not with --operator"),
        (["--operator", "my_operators.Blur", "--model.operator_options", '{"depth": 3}'], "unexpected keyword"),
        (["--operator", "my_priors.plain"], "gives a SliceDenoiser, no LinearOperator"),
        (["--model.operator_options", '{"width": 3}'], "give --operator too"),
        (["--prior", "my_operators.Tensor"], "no SliceDenoiser"),
        (["--prior", "my_priors.plain", "--model.precision", "bfloat16"], "has precision and compile; set them there"),
    ],
)
def test_what_is_none_is_told(files: Path, args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--task", "sv_ct", *args, *SMALL]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


@pytest.mark.parametrize(
    "args",
    [
        ["predict", "--method", "my_methods.landweber"],
        ["predict", "--method", "my_methods.landweber", "--help"],
        ["test", "--methods", "fbp,my_methods.landweber", "--task", "sv_ct"],
        ["predict", "--operator", "my_operators.Blur"],
        ["predict", "--prior", "my_priors.plain"],
        ["predict", "--second_prior", "my_priors.plain", "--method", "tpdm"],
        ["predict", "--prior_network", "my_networks.Small"],
        ["fit", "--model.network", "my_networks.Small"],
        ["predict", "--trust", "my_operators", "--method", "my_methods.landweber"],
    ],
)
def test_what_nobody_has_vouched_for_is_not_imported(
    files: Path, args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """By the front, before anything heavy is imported; the line says what to do."""
    for module in files.glob("my_*.py"):
        module.write_text("raise SystemExit('imported')\n")
    before = set(files.iterdir())
    assert main(args) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    root = next(part for arg in args for part in arg.split(",") if part.startswith("my_") and "." in part).split(".")[0]
    assert f"if you trust it, add --trust {root} (docs/extending.md)" in line and set(files.iterdir()) == before


def test_an_entry_point_vouches_for_its_package(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = files / "methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lightning_mbir.methods]\nother = my_methods:other\n")
    monkeypatch.syspath_prepend(str(files))
    assert main(["predict", "--task", "sv_ct", "--method", "my_methods.landweber", *SMALL[: -len(TRUST)]]) == 0


def test_rows_of_a_prior_are_of_its_weights_and_its_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["test", "--task", "sv_ct", "--methods", "[dds]", "--prior", "my_priors.plain", *SMALL]
    args += ["--model.method_options", '{"dds": {"steps": 2}}']
    for again in (False, True):
        assert main(args) == 0
        assert capsys.readouterr().out.count("scored before") == again
    with (files / "my_priors.py").open("a") as file:
        file.write("\n# changed\n")
    assert main(args) == 0
    assert "scored before" not in capsys.readouterr().out


def test_a_network_of_an_entry_point_needs_no_flag(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = files / "networks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: networks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nsmall = my_networks:Small\ngone = nowhere:Small\n")
    monkeypatch.syspath_prepend(str(files))
    config = {"network": "small", "network_options": {"channels": 4}, "modality": "ct"}
    save_prior(files / "p.safetensors", build_network("small", {"channels": 4}), config)
    assert type(load_prior(files / "p.safetensors").network).__name__ == "Small"
    with pytest.raises(InputError, match=r"network gone of nowhere.Small: cannot be imported"):
        build_network("gone", None)
    with pytest.raises(InputError, match="there are light, ncsnpp, monai, small, gone"):
        build_network("large", None)


@pytest.mark.parametrize("name", ["plain", "monai"])
def test_priors_of_noise_by_their_path(files: Path, name: str) -> None:
    args = ["predict", "--task", "sv_ct", "--prior", f"my_priors.{name}", "--steps", "3", *SMALL]
    assert main([*args, "--output_dir", str(files / "out")]) == 0
    assert np.isfinite(scores(files / "out")["volume_psnr"])


def test_a_network_is_trained_and_named_to_be_used(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["fit", "--model.network", "my_networks.Small", "--data.image_size", "32", "--data.phantom_volumes", "1"]
    train += ["--data.slices_per_epoch", "16", "--steps", "2", "--trainer.precision", "32-true", *TRUST]
    assert main([*train, "--trainer.accelerator", "cpu", "--output_dir", "fit"]) == 0
    (file,) = Path("fit").rglob("prior.safetensors")
    capsys.readouterr()
    use = ["predict", "--task", "sv_ct", "--prior", str(file), "--steps", "2", *SMALL]
    assert main(use) == 2
    assert "--prior_network my_networks.Small" in capsys.readouterr().err
    assert main([*use, "--prior_network", "my_networks.Small"]) == 0
    with pytest.raises(InputError, match="its code would run"):
        load_prior(file)
    assert isinstance(load_prior(file, network="my_networks.Small"), SliceDenoiser)
    assert convert.main([str(file), "shared"]) == 2
    assert "--prior_network my_networks.Small" in capsys.readouterr().err
    assert convert.main([str(file), "shared", "--prior_network", "my_networks.Small"]) == 0
    assert isinstance(load_prior("shared", network="my_networks.Small"), SliceDenoiser)
    (checkpoint,) = Path("fit").rglob("last.ckpt")
    assert main([*train, "--steps", "3", "--ckpt_path", str(checkpoint), "--output_dir", "on"]) == 0
