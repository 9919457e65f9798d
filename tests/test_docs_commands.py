"""Every command of the documentation: the offline ones run, the others have a reason not to."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from skimage.data import coins

from napari_simmat.cli import main
from napari_simmat.engine.files.object_set import ObjectSet
from napari_simmat.engine.files.objects import write_objects
from napari_simmat.engine.files.prompt_csv import write_points_csv
from napari_simmat.engine.prompts import Prompt
from tests.slides import drawn_slide, write_svs
from tests.test_readme import PAGES, ROOT

NOT_RUN = {
    r"\bpip install\b|venv\b|^\.venv|^source ": "installs",
    r"^tox$|^python tests/|^pre-commit": "runs tests",
    r"--gui": "opens the window",
    r"vit_[bhlt]|sam2|edgetam|sam3|hf:|^hf ": "needs a download",
    r"my-finetuned|checkpoint_best|rgb-nir": "needs a file that one brings",
    r"--scheduler|^dask|^for |^CUDA_|^done$|^wait$": "needs a cluster",
    r"--device cuda": "needs a GPU",
    r"^simmat (pretrain|benchmark)|generated:": "needs the research, whose tests try it",
    r"\.fits": "needs astropy, of which its tests are",
    r"^podman|^git ": "is another program's",
    r"--anndata|--parquet": "needs a package for tables, whose tests try it",
}
"""Of the other commands all are run; a pattern that no command meets is a fault."""
SHORTER = {
    r"--steps \d+": "--steps 2",
    r"(simmat train (?!.*--steps).*)": r"\1 --steps 2",
    r"(simmat train (?!.*--few).*)": r"\1 --side 64",
    r"(simmat channels register \S+ --output registered .*)": r"\1 --overwrite",
}
"""Trainings are cut short, and a folder of later commands is there already; nothing else of a
command is changed."""


def blocks(page):
    """The commands of each shell block; those of lists and tabs are indented."""
    found = re.findall(r"^( *)```sh\n(.*?)^ *```", page.read_text("utf-8"), re.M | re.S)
    texts = [text.replace("\\\n", " ") for _, text in found]
    return [
        [part.strip() for line in text.splitlines() for part in line.split("&&") if part.strip()]
        for text in texts
    ]


def reason(command):
    """Why a command is not run; empty if it is."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, command)), "")


def test_commands_of_the_pages_are_of_known_kinds():
    commands = [command for page in PAGES for block in blocks(page) for command in block]
    for pattern in NOT_RUN:
        assert any(re.search(pattern, command) for command in commands), pattern
    run = [command for command in commands if not reason(command)]
    assert {command.split()[0] for command in run} <= {"simmat", "touch"}
    assert len(run) > len(commands) / 2


def fill_folder():
    """The files that the pages name, small, in the current folder."""
    photo = coins()[180:276, 0:128]
    labels = np.zeros(photo.shape, np.uint16)
    labels[10:50, 20:60], labels[55:90, 70:110] = 1, 2
    brighter = 10 * np.arange(4, dtype=np.uint8)[:, None, None]
    for stem in ("image", "nuclei", "colony", "a-scan"):
        tifffile.imwrite(f"{stem}.tif", photo)
    for stem, axes in {"cells": "CYX", "stack": "ZYX", "series": "TYX", "frames": "ZYX"}.items():
        about = {"metadata": {"axes": axes}, "photometric": "minisblack", "ome": True}
        tifffile.imwrite(f"{stem}.tif", np.stack([photo] * 3), **about)
    tifffile.imwrite("angles.tif", photo + brighter, photometric="minisblack")
    bands = np.concatenate([photo + brighter, photo + brighter[:2]])
    tifffile.imwrite("bands.tif", bands, photometric="minisblack")
    names = ("blue", "green", "red", "nir", "swir1", "swir2")
    described = "".join(
        f'<Item name="DESCRIPTION" sample="{number}" role="description">{name}</Item>'
        for number, name in enumerate(names)
    )
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632)  # UTM, zone 32
    place = [
        (33550, "d", 3, (10.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 5e6, 0.0), True),
        (34735, "H", len(keys), keys, True),
        (42112, "s", 0, f"<GDALMetadata>{described}</GDALMetadata>", True),
    ]
    field = {"photometric": "minisblack", "planarconfig": "contig", "extratags": place}
    tifffile.imwrite("field.tif", np.moveaxis(bands, 0, -1), **field)
    clicks = [Prompt(points=[(30, 40)], object=1), Prompt(points=[(70, 90)], object=2)]
    write_points_csv(Path("points.csv"), clicks)
    Path("stack.csv").write_text("index,axis-0,axis-1,axis-2,label,object\n0,1,30,40,1,1\n")
    corners = [("0", "rectangle", str(n), y, x) for n, (y, x) in enumerate(BOX)]
    with Path("boxes.csv").open("w", newline="") as file:
        header = ("index", "shape-type", "vertex-index", "axis-0", "axis-1")
        csv.writer(file).writerows([header, *corners])
    for folder in ("data", "images", "cells", "my-images", "my-labeled-images", "my-sources/mine"):
        Path(folder).mkdir(parents=True)
        for number in range(3):
            shifted = np.roll(photo, 8 * number, axis=1)
            tifffile.imwrite(f"{folder}/{number}.tif", shifted)
            if folder in ("data", "images"):
                write_points_csv(Path(folder, f"{number}.csv"), clicks)
            else:
                tifffile.imwrite(
                    f"{folder}/{number}_labels.tif", np.roll(labels, 8 * number, axis=1)
                )
    shutil.copytree(ROOT / "docs/tutorials/flight", "flight")
    Path("registered").mkdir()
    for number in range(1, 5):
        paths = [Path(f"flight/IMG_{number:04}_{band}.tif") for band in range(1, 6)]
        about = {"axes": "CYX", "Channel": {"Name": ["blue", "green", "red", "nir", "rededge"]}}
        values = np.stack([tifffile.imread(path) for path in paths])
        tifffile.imwrite(f"registered/IMG_{number:04}.tif", values, ome=True, metadata=about)
    shutil.copy("flight/IMG_0001_labels.tif", "registered")
    for stem in ("cells", "nuclei"):
        tifffile.imwrite(f"{stem}_labels.tif", labels)
    write_objects(Path("plots.geojson"), ObjectSet.of_labels(labels, "YX"))
    for folder in ("others", "five", "labels"):
        Path(folder).mkdir()
        for number in range(3):
            shifted = np.roll(labels // 2 if folder == "five" else labels, 8 * number, axis=1)
            tifffile.imwrite(f"{folder}/{number}.tif", shifted)
    for folder, names in {"my-stained-images": ["DAPI", "GFP"], "angles": list("0123")}.items():
        Path(folder).mkdir()
        for number in range(2):
            values = photo + brighter[: len(names)]
            about = {"axes": "CYX", "Channel": {"Name": names}}
            path = f"{folder}/{number}.ome.tif"
            tifffile.imwrite(path, values, metadata=about, photometric="minisblack")
            tifffile.imwrite(f"{folder}/{number}_labels.tif", labels)
    taught = labels.copy()
    taught[10:50, 70:110] = 3
    tifffile.imwrite("stars.tif", photo)
    tifffile.imwrite("sem.tif", np.zeros((943, 1024), np.uint8))
    Image.fromarray(photo).save("particles.png")
    shutil.copy("stack.tif", "ct.tif")
    fill_with_scans(photo)
    stains = {"axes": "CYX", "Channel": {"Name": ["DAPI", "membrane"]}}
    tifffile.imwrite("stained.tif", np.stack([photo, photo]), ome=True, metadata=stains)
    markers = {"axes": "CYX", "Channel": {"Name": ["DAPI", "PanCK", "CD45"]}}
    tifffile.imwrite("codex.ome.tif", np.stack([photo] * 3), metadata=markers)
    tifffile.imwrite("five-cells.tif", taught)
    tifffile.imwrite(
        "strokes.tif", np.pad(np.ones((6, photo.shape[1]), np.uint8), ((0, 90), (0, 0)))
    )
    Path("plate").mkdir()
    tifffile.imwrite("plate/a.tif", photo)
    Path("list.csv").write_text("image\nimage.tif\nnuclei.tif\n")
    Path("options.toml").write_text(
        '[segment]\nmodel = "tiny"\nprompts = "auto"\noutput = "results"\n'
    )
    zarr.create_array("slide.ome.zarr", data=photo)
    write_svs(Path("slide.svs"), drawn_slide())
    write_points_csv(Path("slide-clicks.csv"), [Prompt(points=[(300, 300)], object=1)])
    ring = [[150, 150], [700, 150], [700, 600], [150, 600], [150, 150]]
    area = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}
    Path("annotations.geojson").write_text(json.dumps(area))
    for name in ("sensor.safetensors", "from-a-colleague.safetensors"):
        assert main(["models", "export", "thermal", "--output", name]) == 0, name
    assert main(["models", "import", "sensor.safetensors", "--name", "my-model"]) == 0


def fill_with_scans(photo):
    """Three slices, frames of ultrasound and one of their pictures, clicks and a box in them."""
    import nibabel

    from tests.io.test_dicom import write_slice

    planes = np.stack([photo.astype(np.uint16)] * 3)
    nibabel.Nifti1Image(planes.T.copy(), np.eye(4)).to_filename("scan.nii.gz")
    cine = {"Modality": "US", "NumberOfFrames": 3, "FrameTime": "33.3"}
    write_slice(Path("cine.dcm"), planes, 1, **cine)
    write_slice(Path("picture.dcm"), planes[0], 1, Modality="US", PixelSpacing=None)
    shutil.copy("stack.csv", "clicks.csv")
    rows = [("0", "rectangle", str(number), 0, y, x) for number, (y, x) in enumerate(BOX)]
    with Path("cine-boxes.csv").open("w", newline="") as file:
        header = ("index", "shape-type", "vertex-index", "axis-0", "axis-1", "axis-2")
        csv.writer(file).writerows([header, *rows])


BOX = [(10, 20), (10, 60), (50, 60), (50, 20)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(not reason(each) for block in blocks(page) for each in block)],
    ids=lambda page: page.stem,
)
def test_offline_commands_of_a_page_succeed(page, tmp_path, monkeypatch, capsys):
    """Block by block, each in a folder with the files that the pages name."""
    failed = []
    for number, block in enumerate(blocks(page)):
        commands = [command for command in block if not reason(command)]
        if not commands:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("NAPARI_SIMMAT_HOME", str(folder / "home"))
        fill_folder()
        for command in commands:
            for pattern, shorter in SHORTER.items():
                command = re.sub(pattern, shorter, command)
            shutil.rmtree("results", ignore_errors=True)
            program, *words = shlex.split(command.partition(" > ")[0], comments=True)
            capsys.readouterr()
            if program == "touch":
                Path(words[0]).parent.mkdir(exist_ok=True)
                Path(words[0]).touch()
            elif main(words) != 0:
                failed.append(f"{command}\n{capsys.readouterr().err[-600:]}")
            if "--few" in words and not Path("my-images.safetensors").exists():
                shutil.copy("sensor.safetensors", "my-images.safetensors")  # no gain in two steps
    assert not failed, "\n".join(failed)
