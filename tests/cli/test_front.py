"""What is answered before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HELP = [["--help"], ["predict", "--help"], ["fit", "-h"], ["predict", "--method", "dds", "--help"], []]
SLIPS = [
    "predict --task pet", "predict --method magic", "predict --task cs_mri --method fbp", "predict --acc many",
    "predict --views 0", "predict --task sv_ct --acc 4", "predict --data.path nowhere", "predict --steps 0",
    "predict --prior nowhere", "test --methods dds,magic", "fit --config nowhere", "fit --ckpt_path nowhere",
    "fit_unet --task sv_ct --angle_range 0", "predict --output_dir /dev/null/x", "predict --data.slices 9:3",
]  # fmt: skip


@pytest.mark.parametrize(("args", "status"), [(args, 0) for args in HELP] + [(slip.split(), 2) for slip in SLIPS])
def test_help_and_slips_need_nothing_heavy(args: list[str], status: int) -> None:
    code = (
        "import sys, time; from lightning_mbir.cli import main; status = main(sys.argv[1:]);"
        "heavy = {'torch', 'lightning', 'monai', 'numpy'} & set(sys.modules);"
        "took = time.process_time();"  # of this process alone, however busy the machine is
        "sys.exit(f'imported {heavy}' if heavy else f'took {took} s' if took > 3 else status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == status, done.stderr
    if status == 0:
        assert "usage: python -m lightning_mbir" in done.stdout
    else:
        (line,) = done.stderr.splitlines()
        assert line.startswith("lightning_mbir: error:")
