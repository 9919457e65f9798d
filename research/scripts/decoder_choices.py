"""What each choice of the decoder's training brings, with several seeds.

``python research/scripts/decoder_choices.py --start tiny-5.safetensors --real ../shared/data/real
--folder choices --development development`` trains a short decoder for each choice and seed, its
score included, and finds all objects of the 21 images of the report by it. Each is a line of
``choices.jsonl`` in the folder; what is there is not trained again, and a training that was broken
off goes on. ``--table`` prints the means and the spread of the seeds.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from finish import images_of
from learn import opened, read
from numpy.typing import NDArray
from train_decoder import decoder_sources

from napari_simmat.checkpoints.checkpoint import read_spec
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.everything.generator import segment_everything
from napari_simmat.evaluation.metrics import pairwise_iou
from napari_simmat.models.spec import Model
from napari_simmat.models.tiny import TinyNetwork
from napari_simmat.progress import finish
from simmat_research.decoder_training import DecoderConfig, TrainedDecoder, train_decoder_job
from simmat_research.region_scores import collect_regions_job, train_score

CHOICES: dict[str, dict[str, Any]] = {
    "all": {},
    "no scenes made for it": {"own_share": 0.0},
    "no real images": {"real_share": 0.0},
    "no drawn scenes": {"real_share": 1.0},
    "a quarter of the steps": {"steps": 250},
    "the encoder trained along": {"encoder_along": True},
}
"""Settings of `DecoderConfig` that differ."""
STEPS = 1000
SCORED = 4
"""Images of each source for the score."""
SOURCES = ["blood_smear", "leaf_microct", "mars_rocks", "nanoshapes", "development"]
KEPT = "choices.jsonl"


def main() -> None:
    """Train and judge what is left to do, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, help="the foundation's file, without a decoder")
    parser.add_argument("--real", type=Path, help="folder of the sources")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--development", type=Path, default=Path("development"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--choices", nargs="+", default=list(CHOICES), choices=list(CHOICES))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.table:
        print_table(options.folder / KEPT)
        return
    torch.set_num_threads(1)
    for seed in options.seeds:
        for choice in options.choices:
            if not any((row["choice"], row["seed"]) == (choice, seed) for row in _rows(options)):
                trained = _trained(options, choice, seed, CHOICES[choice])
                row = {"choice": choice, "seed": seed, "images": _found(options, trained)}
                with (options.folder / KEPT).open("a") as file:
                    file.write(json.dumps(row) + "\n")


def _rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    path: Path = options.folder / KEPT
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _trained(
    options: argparse.Namespace, choice: str, seed: int, settings: dict[str, Any]
) -> TrainedDecoder:
    folder = options.folder / f"{choice.replace(' ', '-')}-{seed}"
    folder.mkdir(exist_ok=True)
    sources = decoder_sources(read_spec(options.start), options.real, folder / "sources.csv")
    network = load_model(options.start).network
    assert isinstance(network, TinyNetwork)
    config = DecoderConfig(sources=sources, **{"steps": STEPS, "seed": seed, **settings})
    trained = finish(train_decoder_job(config, network, folder))
    regions = finish(
        collect_regions_job(trained.network, trained.decoder, sources, folder, SCORED, seed)
    )
    train_score(trained.decoder.score, regions, seed)
    for each in folder.glob("regions-*.npz"):
        each.unlink()  # 100 MB
    return trained


def _found(options: argparse.Namespace, trained: TrainedDecoder) -> list[dict[str, Any]]:
    """For each image the shares of its objects found at .75 and .5, and wrong ones for each."""
    decoder, network = trained.decoder.float().eval(), trained.network
    model: Model = replace(load_model("tiny"), decoder=decoder, network=network)
    rows = []
    for source, name in images_of(SOURCES):
        image = read(source, name, options.development)
        truth = np.asarray(image.labels)
        found = segment_everything(opened(model, image)).labels
        rows.append({"image": f"{source} {name}", "found": _judged(found, truth)})
    return rows


def _judged(found: NDArray[np.integer], truth: NDArray[np.int32]) -> list[float]:
    iou = pairwise_iou(found.astype(np.int32), truth)
    best, right = iou.max(0, initial=0), iou.max(1, initial=0)
    count = len(best)
    shares = (best >= 0.75).sum(), (best >= 0.5).sum(), (right < 0.75).sum()
    return [float(each / count) for each in shares]


def print_table(path: Path) -> None:
    """Print the mean of the images for each choice, and the spread of its seeds."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    print("| choice | seeds | 16 of held-out sources | 5 of the development set | all |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for choice in CHOICES:
        own = [row["images"] for row in rows if row["choice"] == choice]
        if own:
            cells = [
                _cell([[each["found"] for each in images if kept(each)] for images in own])
                for kept in (_is_held_out, lambda each: not _is_held_out(each), lambda _: True)
            ]
            print(f"| {choice} | {len(own)} | {' | '.join(cells)} |")


def _is_held_out(row: dict[str, Any]) -> bool:
    return not row["image"].startswith("development")


def _cell(seeds: list[list[list[float]]]) -> str:
    """Found at .75 / .5 and wrong, the mean over images, and in brackets from seed to seed."""
    means = np.array([np.mean(images, axis=0) for images in seeds])
    low, high = means.min(0), means.max(0)
    middle = means.mean(0)
    said = [f"{mean:.2f} ({a:.2f}-{b:.2f})" for mean, a, b in zip(middle, low, high, strict=True)]
    return f"{said[0]} / {said[1]}, {said[2]}"


if __name__ == "__main__":
    main()
