"""Plain data as files."""

import json

from lightning_mbir.report.tables import measured_text, method_text, to_json


def test_json_knows_no_nan() -> None:
    value = {"a": float("nan"), "b": [float("inf"), 1.5, {"c": -float("inf")}], "d": (1, "NaN", True, None)}

    def refuse(word: str) -> None:
        raise AssertionError(word)

    back = json.loads(to_json(value), parse_constant=refuse)
    assert back == {"a": None, "b": [None, 1.5, {"c": None}], "d": [1, "NaN", True, None]}


def test_a_measurement_and_a_method_are_told_in_a_line() -> None:
    assert (
        measured_text("chest", "sv_ct", {"views": 8, "angle_range": 180.0})
        == "chest: sv_ct, views 8, angle_range 180 degrees"
    )
    assert measured_text("head", "cs_mri", {"acc": 8.0, "snr": 25.0}) == "head: cs_mri, acc 8, snr 25 dB"
    assert measured_text("tooth", "sv_ct", {"measured": ("a note",), "views": 36}) == "tooth: sv_ct, measured, views 36"
    row = {"method": "dds", "steps": 50, "samples": 1, "prior": {"name": "priors/mine.safetensors"}}
    assert method_text(row) == "dds, 50 steps, prior mine.safetensors"
    assert method_text({"method": "dds", "samples": [{}, {}], "prior": None}) == "dds, 2 samples"
