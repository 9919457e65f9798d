"""Four processes in one folder, killed at random moments until all is done."""

import os
import subprocess
import sys

import pytest
import tifffile
from skimage.data import coins

from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.plan import SegmentConfig, plan
from napari_simmat.batch.run_plan import run_plan_job
from napari_simmat.engine.settings import Compute
from napari_simmat.progress import finish
from tests.batch import killing
from tests.batch.folders import contents

KILLS = int(os.environ.get("SIMMAT_KILLS", "8"))
IMAGES = 24 if KILLS < 50 else 200
CLICK = "index,axis-0,axis-1,label,object\n0,20,20,1,1\n1,50,60,1,2\n"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no such processes there")
def test_runs_killed_at_random_end_with_equal_bytes(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(IMAGES):
        top, left = number * 7 % 200, number * 13 % 280
        tifffile.imwrite(data / f"{number:03}.tif", coins()[top : top + 90, left : left + 100])
    (tmp_path / "clicks.csv").write_text(CLICK)
    made = plan(find_inputs([data]), output=tmp_path / "one", prompts=str(tmp_path / "clicks.csv"))
    finish(run_plan_job(made, SegmentConfig(model="tiny", compute=Compute(device="cpu"))))
    whole, killed, number = contents(tmp_path / "one"), 0, 0
    path = os.pathsep.join(("src", ".", *filter(None, sys.path)))
    while killed < KILLS:
        out = tmp_path / f"out{number}"
        words = [data, out, KILLS - killed, number]
        done = subprocess.run(
            [sys.executable, killing.__file__, *map(str, words)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        killed, number = killed + int(done.stdout), number + 1
        assert contents(out) == whole, f"after {killed} kills"
