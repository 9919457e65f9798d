"""Runs in one folder that are killed at random moments and begun again, until all have ended.

A program of its own: it forks, so that a run begins without importing anything.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.plan import SegmentConfig, plan
from napari_simmat.batch.run_plan import run_plan_job
from napari_simmat.engine import predictor  # noqa: F401  # imports what a run needs
from napari_simmat.engine.settings import Compute
from napari_simmat.progress import finish

AT_ONCE = 4
PAUSE = 0.5
"""Seconds between two kills, at most."""


def begin(data: Path, output: Path) -> int:
    """The number of a new process that segments the images of a folder."""
    if number := os.fork():
        return number
    status = 1
    try:
        prompts = str(data.parent / "clicks.csv")
        made = plan(find_inputs([data]), output=output, prompts=prompts, existing="resume")
        config = SegmentConfig(model="tiny", compute=Compute(device="cpu"))
        outcomes = finish(run_plan_job(made, config))
        status = int(any(one.status == "failed" for one in outcomes))
    finally:
        os._exit(status)


def main(data: Path, output: Path, kills: int, seed: int) -> int:
    """Kill so many runs, or fewer if they have all ended before; how many."""
    chance = random.Random(seed)
    living = [begin(data, output) for _ in range(AT_ONCE)]
    killed = 0
    while living:
        time.sleep(chance.uniform(0, PAUSE))
        for number in list(living):
            ended, status = os.waitpid(number, os.WNOHANG)
            if ended:
                assert status == 0, f"a run failed: {status}"
                living.remove(number)
        if not living or killed >= kills:
            continue
        count = AT_ONCE if chance.random() < 0.1 else 1  # all of them, as a power cut does
        victims = chance.sample(living, min(count, len(living), kills - killed))
        for number in victims:
            os.kill(number, signal.SIGKILL)
        for number in victims:
            os.waitpid(number, 0)
            living.remove(number)
        killed += len(victims)
        living += [begin(data, output) for _ in victims]
    return killed


if __name__ == "__main__":
    folder, results, *numbers = sys.argv[1:]
    sys.stdout.write(str(main(Path(folder), Path(results), *map(int, numbers))))
