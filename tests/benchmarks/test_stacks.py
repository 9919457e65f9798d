"""AP of 3D objects; `pytest -m slow -s tests/benchmarks/test_stacks.py` prints a table."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.io import imread

from napari_simmat.batch.plan import SegmentConfig, plan
from napari_simmat.batch.run_plan import run_plan_job
from napari_simmat.engine.settings import Compute, LinkSettings
from napari_simmat.evaluation.metrics import match_at_thresholds
from napari_simmat.io.readers import read_labels
from napari_simmat.progress import finish
from tests.drawn_volume import draw_volume

pytest.importorskip("laptrack")
pytestmark = pytest.mark.slow
DATA = Path(os.environ.get("NAPARI_SIMMAT_DATA", "../shared/data"))


def average_precision(found: np.ndarray, truth: np.ndarray) -> list[float]:
    """At IoUs of 0.5 and 0.25."""
    return [each.average_precision for each in match_at_thresholds(found, truth, (0.5, 0.25))]


def linked_truth(planes: list[np.ndarray]) -> np.ndarray:
    """Objects (Z, Y, X) of planes that were labeled one by one: those that overlap by a half."""
    volume, last = [planes[0].astype(np.uint16)], int(planes[0].max())
    for plane in planes[1:]:
        named = np.zeros(plane.shape, np.uint16)
        for label in np.unique(plane[plane > 0]):
            mask = plane == label
            ids, counts = np.unique(volume[-1][mask & (volume[-1] > 0)], return_counts=True)
            before = int(ids[counts.argmax()]) if len(ids) else 0
            smaller = min(mask.sum(), (volume[-1] == before).sum())
            if not before or counts.max() < smaller / 2 or (named == before).any():
                last = before = last + 1
            named[mask] = before
        volume.append(named)
    return np.stack(volume)


def embryo(name: str) -> tuple[np.ndarray, np.ndarray]:
    files = sorted((DATA / "real/mouse_embryo_nuclei").glob(f"{name}_z*_labels.png"))
    images = [imread(str(file).replace("_labels", "")) for file in files]
    return np.stack(images), linked_truth([imread(file) for file in files])


STACKS = {
    "fluo3d_cho": lambda: (
        tifffile.imread(DATA / "fluo3d_cho.tif"),
        tifffile.imread(DATA / "fluo3d_cho_autolabels.tif"),
    ),
    "embryo, 8 cells": lambda: embryo("s8"),
    "embryo, 16 cells": lambda: embryo("s16"),
    "drawn cells": lambda: draw_volume(0),
}


def segmented(folder: Path, link: LinkSettings | None) -> np.ndarray:
    output = folder / ("planes" if link is None else "3d")
    config = SegmentConfig(model="tiny", compute=Compute(device="cpu"), link=link)
    finish(run_plan_job(plan([folder / "a.tif"], output=output, prompts="auto"), config))
    return np.asarray(read_labels(output / "a_labels.tif").data)


@pytest.mark.parametrize("name", STACKS)
def test_objects_3d_beside_plane_by_plane(name, tmp_path, capsys):
    if "drawn" not in name and not (DATA / "real").is_dir():
        pytest.skip("the stacks are not part of the package")
    image, truth = STACKS[name]()
    options = {"metadata": {"axes": "ZYX"}, "photometric": "minisblack", "ome": True}
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    line = [name, f"{len(image)} planes", f"{len(np.unique(truth)) - 1} objects"]
    scores = []
    for link in (None, LinkSettings(divisions=False, along="depth")):
        found = segmented(tmp_path, link)
        matched = average_precision(found, truth)
        flat = [average_precision(*each)[0] for each in zip(found, truth, strict=True)]
        scores.append(matched[0])
        line.append(
            f"{len(np.unique(found)) - 1} found, AP {matched[0]:.3f}, at .25 {matched[1]:.3f}"
        )
    line.append(f"mean AP of the planes {np.mean(flat):.3f}")
    assert scores[1] > scores[0]
    with capsys.disabled():
        sys.stdout.write("\n" + " | ".join(line) + "\n")
