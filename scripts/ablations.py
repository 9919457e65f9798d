"""Ablations of the embedded foundation: equally long trainings that differ in one thing each.

``python scripts/ablations.py --development development --folder ablations`` trains every variant
for `--steps` steps from each of `--seeds`, evaluates it on drawn scenes and on the development set
(`scripts/development_set.py`), and appends a line to ``ablations/results.jsonl``. Results in that
file are skipped; an interrupted training resumes. ``--table`` prints the results, each as the mean
over the seeds and, with two of them, half their difference.

Training starts from random weights, or from a foundation with ``--start``. With ``--real`` and
``--sources``, as for `simmat pretrain`, half of the scenes are real images, which are measured,
too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn
from torch.nn import functional

from napari_simmat.checkpoints.checkpoint import read_spec
from napari_simmat.datasets.folder import find_labeled_files
from napari_simmat.engine.predictor import Predictor
from napari_simmat.evaluation.evaluate import evaluate_job
from napari_simmat.evaluation.scores import ScoreConfig
from napari_simmat.models import tiny, tiny_encoder
from napari_simmat.models.spec import Model
from napari_simmat.models.tiny import TinyNetwork, build_tiny
from napari_simmat.models.tiny_encoder import FirstProjection, Residual
from napari_simmat.progress import Job, Progress, finish
from napari_simmat.research import muon, pretrain
from napari_simmat.research.pretrain import PretrainConfig, tiny_spec, validate_on_scenes
from napari_simmat.research.real_scenes import read_sources, real_drawer
from napari_simmat.research.scene_pool import scene_drawer

KINDS = ("click", "box", "click+3")

MICROSCOPY = (
    "fluorescence",
    "membranes",
    "phase_contrast",
    "adherent_cells",
    "relief",
    "histology",
    "electron",
    "dark_field",
)


class PlainTransformer(nn.Module):
    """A plain vision transformer instead of `TinyEncoder`: patches of 8, some of SAM's blocks.

    Without stages, the features at strides 4 and 2 come from the embedding alone. Attention is
    limited to windows of 256 pixels, as in training, so that large images fit.
    """

    img_size = 256

    def __init__(self, width: int = 192, depth: int = 6, embedding: int = 128) -> None:
        super().__init__()
        half = embedding // 2
        self.patch_embed = FirstProjection(32)  # the transfer layer's slot, as everywhere
        self.patches = nn.Conv2d(32, width, 4, stride=4)
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.blocks = nn.ModuleList(
            Block(width, 6, 4.0, True, partial(nn.LayerNorm, eps=1e-6), window_size=32)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.top = nn.Conv2d(width, embedding, 1)
        self.down4 = nn.Conv2d(embedding, half, 1)
        self.fuse4 = nn.Sequential(nn.ReLU(), nn.Conv2d(half, half, 3, padding=1), Residual(half))
        self.dense = nn.Conv2d(half, 60, 1)

    def stages(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `TinyEncoder.stages`; the maps at strides 2, 4 and 8 hold nothing."""
        two = functional.relu(self.patch_embed.proj(image))
        tokens = self.patches(two)
        tokens = tokens + self.position(tokens)
        return torch.zeros_like(two), two[:0], tokens[:0], tokens.permute(0, 2, 3, 1)

    def fuse(self, four: Tensor, eight: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `TinyEncoder.fuse`."""
        del four, eight  # what the stages would have given
        embedding = self.top(self.norm(tokens).permute(0, 3, 1, 2))
        fine = functional.interpolate(self.down4(embedding), scale_factor=2.0, mode="nearest")
        fine = self.fuse4(fine)
        return embedding, fine, functional.pixel_shuffle(self.dense(fine), 2)


class Nothing(nn.Module):
    """Zeros in the shape that a 1x1 convolution to `width` channels gives."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, H, W)."""
        return maps.new_zeros((len(maps), self.width, *maps.shape[-2:]))


def plain_transformer(network: TinyNetwork) -> None:
    """No convolutional stages."""
    network.image_encoder = PlainTransformer()  # type: ignore[assignment]


def no_attention(network: TinyNetwork) -> None:
    """Convolutions only."""
    network.image_encoder.blocks = nn.ModuleList()


def no_skips(network: TinyNetwork) -> None:
    """Masks from the embedding alone."""
    network.mask_decoder.skip4 = Nothing(32)  # type: ignore[assignment]
    network.mask_decoder.skip2 = Nothing(16)  # type: ignore[assignment]


def no_prior(
    pixels: tiny_encoder.DensePixels, points: Tensor, labels: Tensor, mask: Tensor | None
) -> Tensor:
    """The mask prompt alone, as in stock SAM; a box gives only its corners."""
    del labels
    if mask is not None:
        return mask.float().clamp(-tiny_encoder.MAX_PRIOR_LOGIT, tiny_encoder.MAX_PRIOR_LOGIT)
    return torch.zeros(len(points), 1, *pixels.shape)


def no_filled_box(corners: Tensor, shape: tuple[int, int] | torch.Size) -> Tensor:
    """A box adds nothing to the mask prompt."""
    return torch.full((len(corners), 1, *shape), tiny_encoder.MAX_PRIOR_LOGIT)


class ContextBlock(nn.Module):
    """Attention between averages of 4 x 4 tokens, added to the tokens; nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = tiny_encoder._block(width, 6)
        self.mix = nn.Linear(width, width)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)
        self.window_size = 0

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, d) -> the same shape."""
        maps = tokens.permute(0, 3, 1, 2)
        coarse = functional.avg_pool2d(maps, 4, ceil_mode=True, count_include_pad=False)
        coarse = self.inner(coarse.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        whole = functional.interpolate(coarse, scale_factor=4.0, mode="bilinear")
        whole = whole[..., : maps.shape[-2], : maps.shape[-1]]
        mixed: Tensor = tokens + self.mix(whole.permute(0, 2, 3, 1))
        return mixed


def context(network: TinyNetwork) -> None:
    """A second attention scale before the blocks: context at a sixty-fourth of the resolution."""
    encoder = network.image_encoder
    blocks = [ContextBlock(encoder.norm.normalized_shape[0]), *encoder.blocks]
    # The others keep their names, so that a foundation's weights load.
    encoder.blocks = nn.ModuleList([*blocks[1:], blocks[0]])


@dataclass(frozen=True)
class Variant:
    """What a training changes: the network, functions, or settings."""

    change: Callable[[TinyNetwork], None] | None = None
    functions: tuple[tuple[Any, str, Any], ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()


UNTRAINED = "untrained"
"""The foundation with which training starts, for comparison."""
VARIANTS = {
    "complete": Variant(),
    UNTRAINED: Variant(),
    "no dense prior": Variant(functions=((tiny, "prompt_prior", no_prior),)),
    "no filled box in the mask prompt": Variant(
        functions=((tiny_encoder, "filled_box", no_filled_box),)
    ),
    "no high-resolution skips": Variant(change=no_skips),
    "no attention in the encoder": Variant(change=no_attention),
    "plain transformer as encoder": Variant(change=plain_transformer),
    "AdamW for all matrices": Variant(
        functions=tuple((each, "muon_is_available", lambda: False) for each in (pretrain, muon))
    ),
    "microscopy families only": Variant(settings=(("families", MICROSCOPY),)),
    "natural family only": Variant(settings=(("families", ("natural",)),)),
    "no training on corrections": Variant(settings=(("corrections", 0.0),)),
    "drawn only": Variant(settings=(("sources", ()),)),
    "real only": Variant(settings=(("real_share", 1.0),)),
    "no crops off scale": Variant(settings=(("off_scale", 0.0),)),
    "context": Variant(change=context),
    "consistency": Variant(settings=(("consistency", 0.25),)),
}


def measured(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train a variant from one seed and measure it."""
    variant = VARIANTS[name]

    def build(architecture: str) -> TinyNetwork:
        network = build_tiny(architecture)
        if variant.change is not None:
            variant.change(network)
        return network

    begun = 0 if options.start is None else int(read_spec(options.start).training["steps"])
    config = PretrainConfig(
        steps=begun + options.steps,
        warmup=min(200, options.steps // 10),
        decay=0.5 if begun else 0.3,
        seed=seed,
        sources=read_sources(options.real, options.sources) if options.real else (),
        precision=options.precision,
        validate_every=100_000,
    )
    config = replace(config, **dict(variant.settings))
    patches = [(pretrain, "build_tiny", build), *variant.functions]

    patches.append((pretrain, "validate_on_scenes", lambda *_: {"click": 0.0}))
    for where, attribute, value in patches:
        patcher = patch.object(where, attribute, value)
        patcher.start()
    try:
        folder = options.folder / f"{name.replace(' ', '-')}-{seed}"
        if name == UNTRAINED:
            task = pretrain.Pretraining(config)
            task.begin(options.start)
            network = task.averaged
        else:
            job = pretrain.pretrain_job(config, folder, options.start)
            network = finish(job, lambda p: tell(name, p)).network
        drawn = validate_on_scenes(network, scene_drawer())
        model = Model(tiny_spec("ablation-0"), network, name)
        development = finish(developed(model, options.development, options.most))
    finally:
        patch.stopall()
    what = {"variant": name, "seed": seed, "steps": options.steps}
    measured = {"drawn": drawn, **development}
    if options.real:
        sources = {
            source.name: validate_on_scenes(network, real_drawer([source], validation=True), 12)
            for source in read_sources(options.real, options.sources)
        }
        measured["by_source"] = sources
        measured["real"] = {
            kind: round(float(np.mean([each[kind] for each in sources.values()])), 2)
            for kind in drawn
        }
    return {**what, **measured}


def developed(model: Model, folder: Path, most: int) -> Job[dict[str, Any]]:
    """Mean IoU in percent over the images of the development set."""
    predictor = Predictor(model, device="cpu", precision="exact")
    scores = yield from evaluate_job(
        predictor, find_labeled_files(folder), ScoreConfig(max_objects=most)
    )
    return {"development": {kind: round(100 * v, 1) for kind, v in scores.headline.items()}}


def tell(name: str, progress: Progress) -> None:
    """Print progress now and then."""
    if progress.done % 50 == 0:
        print(f"{name}: {progress.done} of {progress.total}, {progress.message}", flush=True)


def table(path: Path) -> str:
    """The results as a Markdown table: per variant the mean over its seeds, and their spread."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    sets = [each for each in ("drawn", "real", "development") if each in rows[0]]
    heads = [f"{each}: click | box | click + 3" for each in sets]
    lines = ["| variant | seeds | " + " | ".join(heads) + " |"]
    lines.append("| --- |" + " ---: |" * (1 + 3 * len(sets)))
    for name in dict.fromkeys(row["variant"] for row in rows):
        runs = [row for row in rows if row["variant"] == name]
        figures = np.array([[run[on][k] for on in sets for k in KINDS] for run in runs])
        half = np.ptp(figures, axis=0) / 2
        several = (
            f"{mean:.1f} ± {far:.1f}" for mean, far in zip(figures.mean(0), half, strict=True)
        )
        cells = list(several) if len(runs) > 1 else [f"{figure:.1f}" for figure in figures[0]]
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train and evaluate what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--development", type=Path, required=True, help="the development set")
    parser.add_argument("--folder", type=Path, required=True, help="trainings and results")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--most", type=int, default=8, help="objects per image")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--start", type=Path, help="a foundation to continue from")
    parser.add_argument("--real", type=Path, help="folder with sources of labeled images")
    parser.add_argument("--sources", type=Path, help="table of the sources")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--table", action="store_true", help="only print the results")
    options = parser.parse_args()
    results = options.folder / "results.jsonl"
    if not options.table:
        torch.set_num_threads(1)
        options.folder.mkdir(parents=True, exist_ok=True)
        done = set()
        if results.exists():
            rows = map(json.loads, results.read_text().splitlines())
            done = {(row["variant"], row["seed"]) for row in rows}
        for name, seed in ((name, seed) for seed in options.seeds for name in options.variants):
            if (name, seed) not in done:
                row = measured(name, seed, options)
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
