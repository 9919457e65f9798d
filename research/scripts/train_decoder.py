"""Make a foundation that finds all objects: train a decoder on a frozen one, and its score.

``python research/scripts/train_decoder.py --start tiny-5.safetensors --real ../shared/data/real
--folder decoder --output tiny-6.safetensors`` takes an hour and a half of one core, and the same
command resumes it from its folder. First it trains the maps (`decoder_training`), then the score of
regions (`region_scores`), whose report it prints, then it writes the foundation: the tensors of the
start, bit for bit, and the decoder in half precision.

The sources are those of the start's own training, but areas, roads and documents' zones, which are
no objects to be counted; what shows one object among others counts half, what is packed with
objects one and a half times.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.checkpoints.loading import load_model, with_decoder_names
from napari_simmat.models.object_decoder import ObjectDecoder
from napari_simmat.models.spec import ModelSpec
from napari_simmat.models.tiny import TinyNetwork
from napari_simmat.progress import finish
from simmat_research.decoder_training import DecoderConfig, train_decoder_job
from simmat_research.real_scenes import RealSource, read_sources
from simmat_research.region_scores import collect_regions_job, train_score

LEFT_OUT = {
    "amazon_forest", "corridor", "fundus_vessels_hrf", "heart_mri_chd", "incunable_regions",
    "landslides", "pv_el_cells", "road_cracks_potholes", "road_indonesia", "seismic_penobscot",
}  # fmt: skip
FEW = {
    "child_drawings", "desk_objects", "mri_ms_lesions", "nasa_meltpools", "pfc_neurons_bf",
    "singles", "us_nerves_vessels",
}  # fmt: skip
PACKED = {
    "axon_sem", "chloroplast_em", "conveyor_rocks", "dsb2018", "granular_ore",
    "gravel_sand_grains", "mushroom_shelf", "plant_ovule_confocal", "powder_sem",
}  # fmt: skip


def main() -> None:
    """Train, resume, or write what is trained."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True, help="the foundation's file")
    parser.add_argument("--real", type=Path, required=True, help="folder of the sources")
    parser.add_argument("--folder", type=Path, required=True, help="state, log and regions")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=DecoderConfig.steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=14, help="of each source, for the score")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    spec = read_spec(options.start)
    sources = decoder_sources(spec, options.real, options.folder / "sources.csv")
    network = load_model(options.start).network
    assert isinstance(network, TinyNetwork)
    config = DecoderConfig(sources=sources, steps=options.steps, seed=options.seed)
    decoder = finish(train_decoder_job(config, network, options.folder)).decoder
    regions = finish(collect_regions_job(network, decoder, sources, options.folder, options.images))
    report = train_score(decoder.score, regions, options.seed)
    print(report)
    export(options.start, decoder, options.output, {"steps": options.steps, "seed": options.seed})


def decoder_sources(spec: ModelSpec, real: Path, table: Path) -> tuple[RealSource, ...]:
    """The sources of a foundation's training that show objects, by a table that is written."""
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["folder", "kind", "share", "complete"])
        writer.writeheader()
        for name, source in spec.training["sources"].items():
            if name in LEFT_OUT:
                continue
            share = source["share"] * (0.5 if source["kind"] == "documents" else 1)
            share *= 0.5 if name in FEW else 1.5 if name in PACKED else 1
            complete = "yes" if source["complete"] else "no"
            writer.writerow(
                {
                    "folder": name,
                    "kind": source["kind"],
                    "share": round(share, 3),
                    "complete": complete,
                }
            )
    return read_sources(real, table)


def export(start: Path, decoder: ObjectDecoder, output: Path, said: dict[str, Any]) -> None:
    """Write the foundation `start` with a decoder, in half precision, under the output's name."""
    spec = read_spec(start)
    half = {name: each.half() for name, each in decoder.state_dict().items()}
    content = hashlib.sha256(start.read_bytes()).hexdigest()
    training = {**spec.training, "continues": {start.stem: content}, "decoder": said}
    base = replace(spec.base, name=output.stem, sha256="")
    new = replace(spec, name=output.stem, instance_decoder="here", training=training, base=base)
    save_checkpoint(output, new, {**read_tensors(start), **with_decoder_names(half)})


if __name__ == "__main__":
    main()
