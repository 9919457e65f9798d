"""How often "it is unsure of some more objects" is rightly and wrongly said after *Everything*.

``python research/scripts/unsure.py --development development`` finds all objects of the development
set, whose sources no training has seen, and of validation images of all sources that are not held
out, where all objects are labeled, five at least. It prints on how many of those with less than
three quarters found, and on how many of the others, the sentence is said, or that of another rule;
and what the threshold that it names brings.
"""

from __future__ import annotations

import argparse
import csv
from itertools import islice
from pathlib import Path

import numpy as np
from finish import DEVELOPMENT
from learn import DATA, opened, read

from napari_simmat import load_model
from napari_simmat.engine.everything.generator import segment_everything
from napari_simmat.engine.everything.next_step import UNSURE, SeenPlane
from napari_simmat.engine.settings import MIN_PREDICTED_IOU, AutomaticSettings
from napari_simmat.evaluation.metrics import pairwise_iou

INCOMPLETE = (
    "chloroplast_em", "hand_tools", "incunable_regions", "nasa_materials", "nasa_meltpools",
    "pfc_neurons_bf", "road_cracks_potholes",
)  # fmt: skip
"""Sources where not all objects are labeled."""
LEAST_OBJECTS, ENOUGH, SAME = 5, 0.75, 0.5
SAID = UNSURE.split("{", maxsplit=1)[0]


def main() -> None:
    """Print a line for each image, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--development", type=Path, default=Path("development"))
    parser.add_argument("--most", type=int, default=8, help="images of each source")
    options = parser.parse_args()
    model = load_model(options.model)
    rows = []
    for source, name, is_new in _images(options.most):
        image = read(source, name, options.development)
        truth = np.asarray(image.labels)
        if len(np.unique(truth[truth > 0])) < LEAST_OBJECTS:
            continue
        predictor = opened(model, image)
        found = segment_everything(predictor)
        seen = SeenPlane.of(predictor.stack)
        step = seen.next_step(found.labels, AutomaticSettings(), found.unsure)
        said = step is not None and step.why.startswith(SAID)
        usual = pairwise_iou(found.labels.astype(np.int32), truth)
        more = segment_everything(predictor, AutomaticSettings(quality=MIN_PREDICTED_IOU))
        all_met = pairwise_iou(more.labels.astype(np.int32), truth)
        share, at_lowest = ((each.max(0, initial=0) >= SAME).mean() for each in (usual, all_met))
        added = len(more) - len(found)
        right = [int((each.max(1, initial=0) >= SAME).sum()) for each in (usual, all_met)]
        rows.append((is_new, share, said, step is not None, at_lowest, added, right[1] - right[0]))
        told = "said" if said else "another step" if step else "-"
        print(f"{source} {name}: {share:.2f} found, {told}, "
              f"{at_lowest:.2f} at the lowest threshold, {added} more, {rows[-1][-1]} right",
              flush=True)  # fmt: skip
    print(
        "| images | too few found: it is said | any step is | enough found: it is said | any is |"
    )
    table = np.array(rows)
    for title, kept in (("all", table[:, 0] >= 0), ("of the development set", table[:, 0] == 1)):
        few, enough = (table[kept & (table[:, 1] < ENOUGH)], table[kept & (table[:, 1] >= ENOUGH)])
        counts = [f"{each[:, at].sum():.0f} of {len(each)}"
                  for each, at in ((few, 2), (few, 3), (enough, 2), (enough, 3))]  # fmt: skip
        print(f"| {title} | {' | '.join(counts)} |")
        told = table[kept & (table[:, 2] == 1)]
        print(f"where it is said: found {told[:, 1].mean():.2f}, at the lowest threshold "
              f"{told[:, 4].mean():.2f}; of {told[:, 5].sum():.0f} more are right "
              f"{told[:, 6].sum():.0f}")  # fmt: skip


def _images(most: int) -> list[tuple[str, str, bool]]:
    """Source, name, and whether no training has seen the source."""
    real = DATA / "real"
    held_out = (real / "held_out.txt").read_text().split()
    found = [("development", name, True) for name in DEVELOPMENT]
    for folder in sorted(each for each in real.iterdir() if each.is_dir()):
        if folder.name in INCOMPLETE or folder.name in held_out:
            continue
        with (folder / "split.csv").open() as file:
            rows = csv.DictReader(file)
            chosen = [Path(row["file"]).stem for row in rows if row["split"] != "train"]
        found += [(folder.name, name, False) for name in islice(chosen, most)]
    return found


if __name__ == "__main__":
    main()
