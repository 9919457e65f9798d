"""Each attack of `tests.attacks` loses nothing; `SIMMAT_ATTACKS` is the number of its trials."""

import os
import subprocess
import sys

import pytest

from tests.attacks import ATTACKS, ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.shipped_models,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
]


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_loses_nothing(name):
    trials = os.environ.get("SIMMAT_ATTACKS", "2")
    line = [sys.executable, "-m", "tests.attacks", name, "--trials", trials]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
