"""What TensorBoard is told of reconstructions, read back from its files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import lightning_mbir
from lightning_mbir.board import write_settings
from lightning_mbir.data import VolumeDataModule
from lightning_mbir.methods.run import run_method
from lightning_mbir.reconstruction import ReconstructionModule
from lightning_mbir.reconstruction.course import PICTURES, POINTS, Course
from lightning_mbir.samplers import SamplerState
from tests.helpers import demo, smooth_volume
from tests.ranks import run_on_ranks
from tests.reconstruction.test_module import predict, trainer

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("bundled")]


@pytest.fixture(autouse=True)
def quick_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lightning_mbir.data.volumes.datamodule.chest_phantom",
        lambda shape, seed: smooth_volume(shape, scale=0.02 + 1e-3 * (seed % 7)),
    )


def events(run: Path) -> EventAccumulator:
    board = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    board.Reload()
    return board


def own_run(folder: Path, volume: str) -> EventAccumulator:
    """The only run of a volume."""
    (run,) = (folder / "tensorboard/sv_ct" / volume).iterdir()
    return events(run)


def hparams(board: EventAccumulator) -> dict[str, Any]:
    content = board.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in settings.items()}


def columns(board: EventAccumulator) -> tuple[set[str], set[str]]:
    """The settings and the scores that the table has."""
    content = board.summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = HParamsPluginData.FromString(content).experiment
    return {info.name for info in experiment.hparam_infos}, {info.name.tag for info in experiment.metric_infos}


def values(board: EventAccumulator, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in board.Scalars(tag)}


def test_a_prediction_is_told_level_by_level(tmp_path: Path) -> None:
    data = demo("ct")
    predict(ReconstructionModule("sv_ct", steps=8, output_dir=tmp_path, report=False), data, tmp_path, logger=True)
    metrics = json.loads((tmp_path / "sv_ct/demo_chest_0/metrics.json").read_text())
    board = own_run(tmp_path, "demo_chest_0")
    psnr = values(board, "level/psnr")
    assert list(psnr) == list(range(1, 9))
    # dds ends with the denoised volume of its last level, which is the result
    assert psnr[8] == pytest.approx(metrics["volume_psnr"], abs=1e-3)
    assert values(board, "level/residual")[8] == pytest.approx(metrics["residual"], rel=1e-4)
    assert values(board, "level/residual")[1] > 2 * metrics["residual"]
    assert values(board, "level/sigma")[1] > values(board, "level/sigma")[8] > 0
    assert list(values(board, "speed/slices_per_second")) == list(range(2, 9))  # not with what comes before
    assert all(value > 0 for value in values(board, "speed/levels_per_second").values())
    assert "level/misfit" not in board.Tags()["scalars"]  # no noise
    assert values(board, "score/volume_psnr") == {0: pytest.approx(metrics["volume_psnr"], rel=1e-5)}
    assert values(board, "score/axial/ssim") == {0: pytest.approx(metrics["axial"]["ssim"], rel=1e-5)}
    assert sorted(board.Tags()["images"]) == ["planes", "result"]
    steps = [event.step for event in board.Images("planes")]
    assert steps[0] == 1 and steps[-1] == 8 and len(steps) <= PICTURES
    told = hparams(board)
    assert (told["task"], told["method"], told["views"], told["steps"]) == ("sv_ct", "dds", 8, 8)
    assert told["prior"] == "ct" and "rho" in told["options"] and told["image_size"] == 32
    settings, scores = columns(board)
    content = board.summary_metadata["_hparams_/experiment"].plugin_data.content
    infos = HParamsPluginData.FromString(content).experiment.hparam_infos
    assert {info.name for info in infos if info.differs} == {"acc", "method", "steps", "views", "volume"}  # shown first
    assert told.keys() <= settings and {"acc", "mask"} <= settings  # of other tasks in the same folder
    assert {"score/volume_psnr", "score/axial/psnr", "score/residual"} <= scores
    root = events(tmp_path / "tensorboard")
    assert values(root, "sv_ct/volume_psnr") == {0: pytest.approx(metrics["volume_psnr"], rel=1e-5)}


def test_the_planes_are_those_of_the_volume(tmp_path: Path) -> None:
    """The picture of the last level shows what the result is, front up, and as wide as it is in mm."""
    data = demo("ct")
    predict(ReconstructionModule("sv_ct", steps=4, output_dir=tmp_path, report=False), data, tmp_path, logger=True)
    board = own_run(tmp_path, "demo_chest_0")
    first, last = board.Images("planes")[0], board.Images("planes")[-1]
    assert first.encoded_image_string != last.encoded_image_string
    (tmp_path / "last.png").write_bytes(last.encoded_image_string)
    picture = imread(tmp_path / "last.png")[..., :3]
    assert picture.shape[1] == pytest.approx(792, abs=2) and picture.shape[0] < picture.shape[1]
    grey = picture[..., 0]
    assert 0.2 < grey[60:-40].max() < 1.01 and grey.std() > 0.1
    (tmp_path / "result.png").write_bytes(board.Images("result")[0].encoded_image_string)
    assert imread(tmp_path / "result.png").shape[0] > 1.5 * picture.shape[0]  # the truth above


def test_measurements_are_told_by_their_residual(tmp_path: Path) -> None:
    truth = smooth_volume(scale=0.02)
    operator = lightning_mbir.ParallelBeam(32, [i * 9.0 for i in range(20)], pixel_size=1.5)
    np.savez(
        tmp_path / "scan.npz", measurement=operator(truth).numpy(), angles=np.arange(20) * 9.0,
        image_size=32, pixel_size=1.5, spacing=np.array([3.0, 1.5, 1.5]),
    )  # fmt: skip
    data = VolumeDataModule(measurement=tmp_path / "scan.npz", modality="ct")
    predict(
        ReconstructionModule("sv_ct", "admm_tv", steps=30, output_dir=tmp_path, report=False),
        data,
        tmp_path,
        logger=True,
    )
    metrics = json.loads((tmp_path / "sv_ct/scan/metrics.json").read_text())
    board = own_run(tmp_path, "scan")
    residual = values(board, "level/residual")
    assert "level/psnr" not in board.Tags()["scalars"] and "speed/slices_per_second" not in board.Tags()["scalars"]
    assert len(residual) <= POINTS and min(residual) == 1 and max(residual) == 30
    assert residual[30] == pytest.approx(metrics["residual"], rel=1e-4)
    assert hparams(board)["measured"] == "true"


def test_noise_that_is_known_is_told_against_the_residual(tmp_path: Path) -> None:
    module = ReconstructionModule("cs_mri", "admm_tv", acc=2.0, snr=20.0, steps=12, output_dir=tmp_path, report=False)
    predict(module, demo("mri"), tmp_path, logger=True)
    metrics = json.loads((tmp_path / "cs_mri/demo_head_0/metrics.json").read_text())
    (run,) = (tmp_path / "tensorboard/cs_mri/demo_head_0").iterdir()
    board = events(run)
    assert values(board, "level/misfit")[12] == pytest.approx(metrics["misfit"], rel=1e-3)
    assert values(board, "level/psnr")[12] == pytest.approx(metrics["volume_psnr"], abs=1e-3)  # of magnitudes
    assert hparams(board)["snr"] == 20 and hparams(board)["mask"] == "gaussian1d"


def test_of_several_samples_the_first_is_followed(tmp_path: Path) -> None:
    module = ReconstructionModule("sv_ct", steps=3, samples=3, output_dir=tmp_path, report=False)
    predict(module, demo("ct"), tmp_path, logger=True)
    board = own_run(tmp_path, "demo_chest_0")
    assert [event.step for event in board.Scalars("level/psnr")] == [1, 2, 3]
    assert hparams(board)["samples"] == 3


def test_settings_have_a_run_each_and_what_is_finished_is_told_once(tmp_path: Path) -> None:
    for views in (8, 20, 20):  # the last is finished
        module = ReconstructionModule("sv_ct", "cgls", views=views, output_dir=tmp_path, report=False)
        predict(module, demo("ct"), tmp_path, logger=True)
    runs = sorted((tmp_path / "tensorboard/sv_ct/demo_chest_0").iterdir())
    assert len(runs) == 2 and all(run.name.startswith("cgls-") for run in runs)
    assert sorted(hparams(events(run))["views"] for run in runs) == [8, 20]
    assert [len(events(run).Scalars("score/nrmse")) for run in runs] == [1, 1]


def test_without_tensorboard_nothing_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a projection or a picture more."""
    callbacks = []

    def seen(*given: Any, callback: Any, **rest: Any) -> Any:
        callbacks.append(type(callback).__name__)
        return run_method(*given, callback=callback, **rest)

    monkeypatch.setattr("lightning_mbir.reconstruction.runner.run_method", seen)
    monkeypatch.setattr("lightning_mbir.reconstruction.course.Course.__init__", lambda *_: pytest.fail("made"))
    predict(ReconstructionModule("sv_ct", steps=2, output_dir=tmp_path, report=False), demo("ct"), tmp_path)
    assert callbacks == ["LevelProgress"]


@pytest.mark.parametrize(("n", "points"), [(1, 1), (6, 6), (50, POINTS), (1000, POINTS)])
def test_levels_are_spread_evenly(n: int, points: int) -> None:
    class Counted(Course):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.shape, self.drawn = True, (1, 1, 1), 0

        def _errors(self, state: SamplerState) -> dict[str, float]:
            return {"level/residual": 0.0}

        def _middle(self, state: SamplerState, plane: str) -> np.ndarray:
            return np.zeros((1, 1))

        def _picture(self, *_: Any) -> np.ndarray:
            self.drawn += 1
            return np.zeros((1, 1, 3), np.uint8)

        _at = None

    course = Counted()
    for step in [*range(1, n + 1), 1, n]:  # what follows is of another sample
        course(SamplerState(step, n, 1.0, torch.zeros(1, 1, 1), step))
    steps = [point.step for point in course.points]
    assert steps[0] == 1 and steps[-1] == n and len(steps) == points
    assert course.drawn == min(n, PICTURES) and np.diff(steps).max(initial=1) <= max(1, 2 * n // POINTS)


def test_a_comparison_is_a_table_figures_and_a_run_a_method(tmp_path: Path) -> None:
    module = ReconstructionModule("sv_ct", methods="fbp,cgls", output_dir=tmp_path, report=False)
    (scores,) = trainer(tmp_path, logger=True).test(module, datamodule=demo("ct", 2), verbose=False)
    rows = json.loads((tmp_path / "sv_ct/comparison/results.json").read_text())
    root = events(tmp_path / "tensorboard")
    (text,) = root.Tensors("sv_ct/comparison/text_summary")
    table = text.tensor_proto.string_val[0].decode()
    assert table.startswith("| method | volume PSNR / SSIM |") and "| fbp |" in table and "| cgls |" in table
    assert sorted(root.Tags()["images"]) == ["sv_ct/comparison/demo_chest_0", "sv_ct/comparison/demo_chest_1"]
    written = (tmp_path / "sv_ct/comparison/comparison_demo_chest_0.png").read_bytes()
    (tmp_path / "shown.png").write_bytes(root.Images("sv_ct/comparison/demo_chest_0")[0].encoded_image_string)
    (tmp_path / "written.png").write_bytes(written)
    shown = imread(tmp_path / "shown.png")
    np.testing.assert_array_equal(shown, imread(tmp_path / "written.png")[..., : shown.shape[2]])
    runs = {run.name.partition("-")[0]: events(run) for run in (tmp_path / "tensorboard/sv_ct/comparison").iterdir()}
    assert runs.keys() == {"fbp", "cgls"}
    for method, board in runs.items():
        own = [row["volume_psnr"] for row in rows if row["method"] == method]
        assert values(board, "volumes/volume_psnr") == pytest.approx(dict(enumerate(own)), rel=1e-5)
        assert values(board, "score/volume_psnr") == {0: pytest.approx(np.mean(own), rel=1e-5)}
        assert scores[f"sv_ct/{method}/volume_psnr"] == pytest.approx(np.mean(own), rel=1e-5)
        assert hparams(board)["method"] == method and hparams(board)["volume"] == "mean of 2"


def test_one_method_that_is_tested_has_its_table_and_volumes(tmp_path: Path) -> None:
    module = ReconstructionModule("sv_ct", "fbp", output_dir=tmp_path, report=False)
    (scores,) = trainer(tmp_path, logger=True).test(module, datamodule=demo("ct", 2), verbose=False)
    root = events(tmp_path / "tensorboard")
    assert "| fbp |" in root.Tensors("sv_ct/scores/text_summary")[0].tensor_proto.string_val[0].decode()
    each = values(root, "sv_ct/volumes/nrmse")
    assert list(each) == [0, 1]
    assert values(root, "sv_ct/nrmse") == {0: pytest.approx(sum(each.values()) / 2, rel=1e-5)}
    assert scores["sv_ct/nrmse"] == pytest.approx(sum(each.values()) / 2, rel=1e-5)
    board = own_run(tmp_path, "demo_chest_1")
    assert board.Tags()["images"] == ["result"] and values(board, "score/nrmse")[0] == pytest.approx(each[1], rel=1e-5)


def test_no_metric_stands_for_one_that_is_not_there(tmp_path: Path) -> None:
    """With Lightning's own logger too, which writes an ``hp_metric`` of -1 unless it is told not to."""
    run = trainer(tmp_path)
    run.loggers = [TensorBoardLogger(tmp_path / "board", name="", version="")]
    module = ReconstructionModule("sv_ct", "cgls", output_dir=tmp_path / "out", report=False)
    run.predict(module, datamodule=demo("ct"), return_predictions=False)
    runs = {file.parent for file in (tmp_path / "board").rglob("events.*")}
    assert len(runs) == 2
    assert not [tag for folder in runs for tag in events(folder).Tags()["scalars"] if "hp_metric" in tag]


def test_settings_of_any_kind_are_told(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        given = {
            "number": 3,
            "share": 0.5,
            "flag": True,
            "name": "x",
            "path": Path("/a/b.pt"),
            "list": [1, 2],
            "no": None,
        }
        write_settings(writer, given, ["score/a"])
    board = events(tmp_path)
    told = {"number": 3.0, "share": 0.5, "flag": "true", "name": "x", "path": "b.pt", "list": "[1, 2]"}
    assert hparams(board) == told and columns(board) == (set(told), {"score/a"})
    assert board.Tags()["scalars"] == []


ARGS = [
    "predict", "--task", "cs_mri", "--method", "admm_tv", "--steps", "8",
    "--data.image_size", "32", "--data.slices", "10:17",
    "--trainer.logger", "true", "--report", "false",
]  # fmt: skip


@pytest.mark.parametrize("split", ["slices", "volumes"])
def test_of_several_processes_one_writes_what_one_process_would(split: str, tmp_path: Path) -> None:
    """Slices of one volume that two processes share, and a volume each."""
    count = ["--data.demo_volumes", "1" if split == "slices" else "2", "--split", split]
    for state, said in run_on_ranks([*ARGS, *count, "--output_dir", str(tmp_path / "two")], tmp_path / "log"):
        assert state == 0, said
    module = ReconstructionModule("cs_mri", "admm_tv", steps=8, output_dir=tmp_path / "one", report=False)
    data = VolumeDataModule(modality="mri", image_size=32, slices="10:17", demo_volumes=1 if split == "slices" else 2)
    predict(module, data, tmp_path / "one", logger=True)
    boards = tmp_path / "one/tensorboard/cs_mri", tmp_path / "two/tensorboard/cs_mri"
    names = [sorted(str(path.parent.relative_to(board)) for path in board.rglob("events.*")) for board in boards]
    assert sorted(set(names[0])) == sorted(set(names[1])) and len(set(names[0])) == len(data.scans)
    for name in set(names[0]):
        alone, shared = (events(board / name) for board in boards)
        assert sorted(alone.Tags()["scalars"]) == sorted(shared.Tags()["scalars"])
        for tag in ("level/psnr", "level/residual", "score/volume_psnr"):
            assert values(shared, tag) == pytest.approx(values(alone, tag), rel=1e-3), tag
        steps = [[event.step for event in board.Images("planes")] for board in (alone, shared)]
        assert steps[0] == steps[1] and len(steps[0]) >= 2
        pictures = []
        for k, board in enumerate((alone, shared)):
            (tmp_path / f"{k}.png").write_bytes(board.Images("planes")[-1].encoded_image_string)
            pictures.append(imread(tmp_path / f"{k}.png"))
        assert np.abs(pictures[0] - pictures[1])[40:].mean() < 0.01  # planes that lie across both
