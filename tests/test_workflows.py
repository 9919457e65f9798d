"""The workflows of the repository are whole; Snakemake's runs where it is installed."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

WORKFLOWS = Path(__file__).parents[1] / "workflows"
MODULE = WORKFLOWS / "nextflow" / "modules" / "simmat" / "segment"


def images(folder: Path, count: int) -> Path:
    """Discs on dark ground; the name of the last has a space."""
    folder.mkdir()
    y, x = np.indices((96, 112))
    for number in range(count):
        image = np.where(np.hypot(y - 30 - number, x - 30) < 12, 200, 40)
        image[np.hypot(y - 60, x - 70) < 14] = 160
        name = f"image {number}" if number == count - 1 else f"image{number}"
        tifffile.imwrite(folder / f"{name}.tif", image.astype(np.uint8))
    return folder


def test_nextflow_module_describes_its_channels():
    """Names of the process and of its documentation agree; nf-core's own tools are not here."""
    described = yaml.safe_load((MODULE / "meta.yml").read_text("utf-8"))
    script = (MODULE / "main.nf").read_text("utf-8")
    assert described["name"] == "simmat_segment"
    assert "process SIMMAT_SEGMENT {" in script
    for name in described["output"]:
        assert f"emit: {name}" in script
    assert script.count("emit:") == len(described["output"])
    for ending in ("_labels.*", "_objects.csv", ".json"):
        assert f'path("*{ending}")' in script


@pytest.mark.slow
def test_snakemake_with_four_jobs_gives_the_bytes_of_one_run(tmp_path):
    snakemake = os.environ.get("SIMMAT_SNAKEMAKE") or shutil.which("snakemake")
    if not snakemake:
        pytest.skip("needs snakemake")
    folder = images(tmp_path / "images", 4)
    place = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{place}{os.pathsep}{os.environ['PATH']}"}
    words = ["--snakefile", str(WORKFLOWS / "snakemake" / "Snakefile"), "--cores", "4"]
    given = ["--config", "images=images", "results=results", "options=--overlay"]
    run = {"cwd": tmp_path, "env": environment, "check": True, "capture_output": True}
    subprocess.run([snakemake, *words, *given], **run)
    once = [sys.executable, "-m", "napari_simmat", "segment", str(folder), "--model", "tiny"]
    subprocess.run([*once, "--prompts", "auto", "--output", "once", "--overlay"], **run)
    for image in folder.iterdir():
        stem = image.stem
        for ending in ("_labels.tif", "_objects.csv", "_overlay.png"):
            found = tmp_path / "results" / stem / f"{stem}{ending}"
            assert found.read_bytes() == (tmp_path / "once" / f"{stem}{ending}").read_bytes()
    with (tmp_path / "results" / "objects.csv").open(newline="") as file:
        joined = list(csv.DictReader(file))
    with (tmp_path / "once" / "simmat-objects.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    areas = sorted((row["image"], row["label"], row["area_px"]) for row in joined)
    wanted = sorted((Path(r["image"]).stem, r["label"], r["area_px"]) for r in expected)
    assert areas == wanted
