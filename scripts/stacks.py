"""How well an object is propagated through a stack: one click, then two corrections.

Run ``python scripts/stacks.py``. Each object of three stacks is clicked once, on its innermost
pixel in the middle plane, and propagated through all planes; then twice more on the plane with the
most wrong pixels, at the innermost pixel of the largest wrong region there. It prints the IoU of
the whole volume with the labels, that of the middle plane's mask copied to all planes, and what two
corrections would reach if they made the two worst planes perfect and changed no other. The real
stacks are in the folder named by NAPARI_SIMMAT_DATA; missing ones are skipped.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat import Predictor, Prompt, load_model
from napari_simmat.engine.masks import interior_point, iou
from napari_simmat.engine.propagation import Propagator
from napari_simmat.engine.propagation_tracks import Track
from napari_simmat.io.readers import read_image
from napari_simmat.research.samples import VOXEL_SPACING, draw_volume

DATA = Path(os.environ.get("NAPARI_SIMMAT_DATA", "../shared/data"))
CORRECTIONS = 2
SMALLEST = 30
"""Pixels that an object needs on the middle plane."""


class Case(NamedTuple):
    """A stack (Z, Y, X), its labels, and the distances between its voxels."""

    name: str
    stack: NDArray[Any]
    labels: NDArray[Any]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)


def main() -> None:
    """Evaluate all stacks and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--only", help="only the stacks with this in their name")
    chosen = parser.parse_args()
    predictor = Predictor(load_model(chosen.model))
    columns = ["copied", "one click", *(f"{n + 1} more" for n in range(CORRECTIONS)), "if perfect"]
    print(f"{'stack':<28}{'objects':>8}" + "".join(f"{name:>11}" for name in columns), flush=True)
    for case in cases():
        if chosen.only is None or chosen.only in case.name:
            rows = np.array(list(measured(case, predictor)))
            for name, row in ((case.name, rows.mean(axis=0)), ("  the worst", rows.min(axis=0))):
                shown = "".join(f"{value:11.3f}" for value in row)
                print(f"{name:<28}{len(rows):8d}{shown}", flush=True)


def cases() -> Iterator[Case]:
    """Two drawn stacks and the real ones that are there."""
    for seed in (0, 1):
        yield Case(f"drawn cells, seed {seed}", *draw_volume(seed), VOXEL_SPACING)
    if (DATA / "fluo3d_cho.tif").is_file():
        stack, labels = read("fluo3d_cho.tif"), read("fluo3d_cho_autolabels.tif")
        yield Case("CHO nuclei, 5 planes", stack, labels)
    if (DATA / "mri_t1_mni.nii.gz").is_file():
        stack, matter = read("mri_t1_mni.nii.gz"), read("mri_t1_mni_gm2_wm3.nii.gz")
        brain = np.stack([ndi.binary_fill_holes(plane) for plane in matter > 0]).astype(np.uint8)
        yield Case("brain outline, 48 planes", stack, brain)


def read(name: str) -> NDArray[Any]:
    """The values of one of the real images."""
    return np.asarray(read_image(DATA / name).data)


def measured(case: Case, predictor: Predictor) -> Iterator[list[float]]:
    """For each object: IoU of the copied mask, after the click, each correction, perfect ones."""
    middle = len(case.stack) // 2
    predictor.set_image(case.stack, plane=middle)
    propagator = Propagator(predictor, spacing=case.spacing)
    for label in np.unique(case.labels[case.labels > 0]):
        truth = case.labels == label
        if np.count_nonzero(truth[middle]) < SMALLEST:
            continue
        prompts = [Prompt(points=(interior_point(truth[middle]),), object=1, plane=(middle,))]
        [track] = propagator.propagate(prompts)
        copied = np.broadcast_to(track.mask(middle), truth.shape)
        row = [iou(copied, truth), iou(track.volume(), truth)]
        perfect = mended(track.volume(), truth)
        for _ in range(CORRECTIONS):
            prompts.append(correction(track, truth))
            [track] = propagator.propagate(prompts)
            row.append(iou(track.volume(), truth))
        yield [*row, iou(perfect, truth)]


def mended(volume: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The volume with as many of its worst planes made exact as there are corrections."""
    wrong = np.count_nonzero(volume != truth, axis=(1, 2))
    worst = np.argsort(wrong)[-CORRECTIONS:]
    better = volume.copy()
    better[worst] = truth[worst]
    return better


def correction(track: Track, truth: NDArray[np.bool_]) -> Prompt:
    """The next click of a user: at the largest error of the plane with the most."""
    wrong = track.volume() != truth
    plane = int(np.count_nonzero(wrong, axis=(1, 2)).argmax())
    patches, _ = ndi.label(wrong[plane])
    largest = int(np.bincount(patches.ravel())[1:].argmax()) + 1
    point = interior_point(patches == largest)
    inside = int(truth[plane][int(point[0]), int(point[1])])
    if not truth[plane].any():
        return Prompt(points=(point,), labels=(0,), object=track.object, plane=(plane,))
    return track.correction(plane, [point], [inside])


if __name__ == "__main__":
    main()
