"""The page for spatial omics: its image, its table, and its lines for scanpy if it is installed."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage as ndi

from tests.test_readme import ROOT, blocks

PAGE = ROOT / "docs/spatial-omics.md"
MARKER_OF = {"tumor": "PanCK", "T cell": "CD3", "B cell": "CD20"}


@pytest.fixture
def codex(tmp_path, monkeypatch):
    """The drawn image, and a label image of its nuclei."""
    monkeypatch.chdir(tmp_path)
    [drawing] = blocks(PAGE, "python")
    exec(compile(drawing, PAGE.name, "exec"), {})
    nuclei, count = ndi.label(tifffile.imread("codex.ome.tif")[0] > 500)
    assert count == 64
    tifffile.imwrite("nuclei.tif", nuclei.astype(np.uint16))
    Path("results").mkdir()
    return ["measure", "codex.ome.tif", "nuclei.tif", "--statistics", "mean,median,p95", "--output"]


def test_spatial_omics_table_has_forty_markers(codex, simmat):
    result = simmat(*codex, "results/codex_objects.csv")
    assert result.status == 0, result.err
    with Path("results/codex_objects.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 64
    for statistic in ("mean", "median", "p95"):
        assert sum(name.startswith(f"{statistic}_") for name in rows[0]) == 40
    for row in rows:  # of each cell, the markers of one kind are bright
        bright = [float(row[f"mean_{marker}"]) > 200 for marker in MARKER_OF.values()]
        assert sum(bright) == 1
        assert 900 < float(row["mean_DAPI"]) < 980


@pytest.mark.filterwarnings("ignore")  # what scanpy and its family remark on each other
def test_spatial_omics_clusters_are_the_kinds(codex, simmat, monkeypatch):
    pytest.importorskip("scanpy")
    pytest.importorskip("igraph")
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert simmat(*codex, "results/codex_objects.h5ad").status == 0
    [lines] = re.findall(r"<!-- scanpy -->\n\n((?:    .*\n|\n)+)", PAGE.read_text("utf-8"))
    names: dict[str, object] = {}
    exec(compile(re.sub(r"^    ", "", lines, flags=re.M), PAGE.name, "exec"), names)
    cells = names["cells"]
    assert cells.shape == (64, 40)
    raw = cells.to_df(layer="raw")[list(MARKER_OF.values())]
    kinds = raw.idxmax(axis=1)
    assert cells.obs["leiden"].nunique() == 3
    assert len(set(zip(kinds, cells.obs["leiden"], strict=True))) == 3
