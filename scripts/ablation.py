"""Compare encoders, sources and shares of drawn scenes: the ablation of the report on foundations.

``python scripts/ablation.py train POOL SEED FOLDER`` trains the arms of a pool; a killed run
resumes. They see the same crops and prompts and train in turn, step by step, so that their
processor seconds compare. Each starts with the decoder of one foundation and imitates nothing. The
rate rises, then stays constant, and the result of a step is the running average of the weights.
``python scripts/ablation.py score SETS TABLE FILES...`` measures results on crops of 192 pixels, of
held-out sources (h), validation images of trained sources (v) and drawn scenes (d).

DATA holds `real` (labeled sources), sources.csv, the foundation, and published weights.
"""

import copy
import csv
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import _muon

from napari_simmat.checkpoints.checkpoint import read_tensors
from napari_simmat.datasets.folder import find_labeled_files
from napari_simmat.evaluation.prompting import add_correction, draw_prompts
from napari_simmat.models import tiny_encoder
from napari_simmat.models.tiny import TinyNetwork, build_tiny
from napari_simmat.models.tiny_encoder import MASK_STRIDE
from napari_simmat.research.pretrain import (
    MuonAdamW,
    PretrainBatch,
    PretrainConfig,
    PretrainModule,
)
from napari_simmat.research.real_scenes import RealSource, read_sources, real_drawer
from napari_simmat.research.scene_pool import (
    MEAN,
    STD,
    VALIDATION_SEED,
    CropBatch,
    ScenePool,
    augment_scene,
    known_cells,
    repeated,
    scene_drawer,
)
from napari_simmat.training.losses import mask_loss

DATA = Path(os.environ.get("ABLATION_DATA", "."))
DECODER = DATA / "tiny-4.safetensors"
STEPS, EVERY = 2000, 500
SIZES = 96, 128, 160, 192
PIXELS_PER_STEP = 2 * 128**2
SMALL: dict[str, Any] = {
    "objects": 2,
    "affinity_objects": 4,
    "corrections": 0.3,
    "consistency": 0.0,
    "off_scale": 0.15,
    "precision": "bfloat16",
}
COUNTS = {"h": 10, "v": 2, "d": 30}
"""Batches of four crops with four objects each, by set and source."""
LITE0 = tiny_encoder._STAGES
LITE2 = {
    "stage2": ((32, 16, 3, 1, 1, 1),),
    "stage4": ((16, 24, 3, 2, 6, 3),),
    "stage8": ((24, 48, 5, 2, 6, 3),),
    "stage16": ((48, 88, 3, 2, 6, 4), (88, 120, 5, 1, 6, 4)),
    "stage32": ((120, 208, 5, 2, 6, 5),),
}
TEN = [
    "dsb2018",
    "axon_sem",
    "nasa_materials",
    "nasa_meltpools",
    "powder_sem",
    "pv_el_cells",
    "road_cracks_potholes",
    "mri_ms_lesions",
    "plant_ovule_confocal",
    "chloroplast_em",
]
LITE: dict[str, tuple[str, str | None]] = {"lite0": ("lite0", "efficientnet-lite0.pth")}
ENCODERS = LITE | {
    "tiny": ("tiny", None),
    "lite0-random": ("lite0", None),
    "lite2": ("lite2", "efficientnet-lite2.pth"),
}
POOLS = {
    "encoders": (0.65, False, ENCODERS),
    "ten": (0.65, True, LITE),
    "drawn0": (1.0, False, LITE),
    "drawn70": (0.3, False, LITE),
}
"""Share of real scenes, whether of ten sources, and the arms: encoder, file of its weights."""


def muon_by_shape(
    params: list[Tensor], grads: list[Tensor], buffers: list[Tensor], **settings: Any
) -> None:
    """What `torch.optim.Muon` does, with the matrices of a shape together, which is faster."""
    a, b, c = settings["ns_coefficients"]
    lr, momentum = settings["lr"], settings["momentum"]
    groups: dict[tuple[int, ...], list[tuple[Tensor, Tensor, bool]]] = {}
    torch._foreach_lerp_(buffers, grads, 1 - momentum)
    updates = torch._foreach_lerp(grads, buffers, momentum)
    for param, update in zip(params, updates, strict=True):
        tall = update.shape[0] > update.shape[1]
        member = param, update.T if tall else update, tall
        groups.setdefault(tuple(update.shape), []).append(member)
    for shape, members in groups.items():
        x = torch.stack([update for _, update, _ in members]).bfloat16()
        x /= x.norm(dim=(1, 2), keepdim=True).clamp(min=settings["eps"])
        for _ in range(settings["ns_steps"]):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        rate = _muon._adjust_lr(lr, settings["adjust_lr_fn"], torch.Size(shape))
        for (param, _, tall), update in zip(members, x, strict=True):
            param.mul_(1 - lr * settings["weight_decay"]).add_(
                update.T if tall else update, alpha=-rate
            )


def build(encoder: str, weights: str | None, seed: int) -> tuple[TinyNetwork, list[nn.Parameter]]:
    """A network with the foundation's decoder, and the parameters with published weights."""
    torch.manual_seed(seed)
    stages = LITE2 if encoder == "lite2" else LITE0
    tiny_encoder._STAGES = stages
    tiny_encoder.LITE_WIDTHS = (32, stages["stage4"][-1][1], stages["stage8"][-1][1])
    network = build_tiny("tiny_deep" if encoder == "tiny" else "tiny_lite")
    decoder = {
        name: tensor.float()
        for name, tensor in read_tensors(DECODER).items()
        if not name.startswith("image_encoder.")
    }
    network.load_state_dict(network.state_dict() | decoder)
    if not weights:
        return network, []
    published = torch.load(DATA / weights, map_location="cpu", weights_only=True)
    tensors = tiny_encoder.efficientnet_tensors(published, MEAN, STD)
    assert not network.image_encoder.load_state_dict(tensors, strict=False).unexpected_keys
    assert isinstance(network.image_encoder, tiny_encoder.LiteEncoder)
    return network, network.image_encoder.pretrained()


class Arm:
    """A network in training, with the processor seconds of its steps."""

    def __init__(self, name: str, encoder: str, weights: str | None, config: PretrainConfig):
        network, slow = build(encoder, weights, config.seed)
        self.name, self.config, self.seconds = name, config, 0.0
        self.network = network.train().to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.module = PretrainModule(self.network, self.averaged, config)
        self.optimizer = MuonAdamW(self.network, config.learning_rate, config.weight_decay, slow)

    def step(self, crops: CropBatch, step: int) -> None:
        """One step of the training."""
        config, begun = self.config, time.thread_time()
        rng = np.random.default_rng([config.seed, 2, step])
        rising = min(1.0, (step + 1) / config.warmup)
        self.optimizer.param_groups[0]["lr"] = config.learning_rate * rising
        loss, _ = self.module(PretrainBatch(crops, step / STEPS, rng))
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            decay = min(config.average, (1 + step) / (10 + step))
            ours = list(self.averaged.parameters())
            torch._foreach_lerp_(ours, list(self.network.parameters()), 1 - decay)
        self.seconds += time.thread_time() - begun

    def state(self) -> dict[str, Any]:
        """What `load` continues from."""
        networks = {"network": self.network.state_dict(), "averaged": self.averaged.state_dict()}
        return networks | {"optimizer": self.optimizer.state_dict(), "seconds": self.seconds}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seconds = state["seconds"]


def train(pool: str, seed: int, folder: Path) -> None:
    """Train a pool's arms; results every `EVERY` steps, their seconds in seconds.csv."""
    _muon._single_tensor_muon = muon_by_shape  # type: ignore[assignment]
    folder.mkdir(parents=True, exist_ok=True)
    share, few, arms = POOLS[pool]
    sources = read_sources(DATA / "real", DATA / "sources.csv")
    trained = tuple(each for each in sources if not few or each.name in TEN)
    config = PretrainConfig(steps=STEPS, seed=seed, sources=trained, real_share=share, **SMALL)
    running = [Arm(name, *arm, config) for name, arm in arms.items()]
    scenes = ScenePool(seed, config.scene_drawer(), augment_scene, off_scale=config.off_scale)
    scenes.pixels_per_step = PIXELS_PER_STEP
    path, first = folder / f"{pool}-{seed}.pt", 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        first = state["step"]
        for arm in running:
            arm.load(state[arm.name])
    for step in range(first, STEPS):
        crops = scenes.crops(step, config.affinity_objects, SIZES)
        for arm in running:
            arm.step(crops, step)
        done = step + 1
        if done % 50 == 0:
            print(pool, seed, done, *(f"{a.name} {a.seconds / done:.3f}" for a in running))
        if done % EVERY == 0:
            for arm in running:
                tensors = {n: t.to(torch.float16) for n, t in arm.averaged.state_dict().items()}
                torch.save(tensors, folder / f"{pool}-{seed}-{arm.name}-{done}.pt")
                with (folder / "seconds.csv").open("a") as file:
                    csv.writer(file).writerow((pool, seed, arm.name, done, f"{arm.seconds:.1f}"))
        if done % 250 == 0:
            whole = {"step": done} | {arm.name: arm.state() for arm in running}
            torch.save(whole, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)


def scored_scenes() -> dict[tuple[str, str], list[CropBatch]]:
    """The crops to score, by set and source."""
    drawers = {("d", "drawn"): scene_drawer()}
    for name in (DATA / "real/held_out.txt").read_text().split():
        files = tuple(find_labeled_files(DATA / "real" / name))
        own = RealSource(name=name, share=1, train=files, validation=files)
        drawers["h", name] = real_drawer([own], validation=True)
    for own in read_sources(DATA / "real", DATA / "sources.csv"):
        if own.validation:
            drawers["v", own.name] = real_drawer([own], validation=True)
    scenes = {}
    for key, draw in drawers.items():
        count = COUNTS[key[0]]
        pool = ScenePool(VALIDATION_SEED, draw, augment_scene, size=4 * count, fresh=0)
        scenes[key] = [pool.crops(number, 4, sizes=(192,)) for number in range(count)]
    return scenes


@torch.no_grad()
def ious(network: TinyNetwork, crops: CropBatch, seed: int) -> list[float]:
    """Mean IoU of a click, the best of its masks, three corrections, and a box."""
    encoded = network.encode((crops.images - MEAN) / STD)
    flat = crops.masks.reshape(-1, *crops.masks.shape[-2:])
    known = repeated(known_cells(crops.labels), crops.masks.shape[1])
    target = functional.avg_pool2d(torch.tensor(flat[:, None]).float(), 2)
    rng = np.random.default_rng([VALIDATION_SEED, seed])
    box, click = draw_prompts("box", flat, rng), draw_prompts("click", flat, rng)
    boxed = network.decode_batch(encoded, *box)[0]
    answers = first = network.decode_batch(encoded, *click)[0]
    for _ in range(3):
        click = add_correction(click, answers[:, :1], target, MASK_STRIDE, known)
        answers = network.decode_batch(encoded, *click)[0]
    reached = [mask_loss(logits, target, known=known).iou for logits in (first, answers, boxed)]
    columns = reached[0][:, 0], reached[0].amax(1), reached[1][:, 0], reached[2][:, 0]
    return [float(column.mean()) for column in columns]


def score(sets: str, table: Path, files: list[str]) -> None:
    """Append a row for each file, set and source to the table."""
    scenes = scored_scenes()
    for file in files:
        name = Path(file).stem
        tensors = {key: tensor.float() for key, tensor in torch.load(file).items()}
        lite = "image_encoder.stage32.0.project.weight" in tensors
        network, _ = build("lite2" if "lite2" in name else "lite0" if lite else "tiny", None, 0)
        network.load_state_dict(tensors)
        network.eval()
        for (kind, source), batches in scenes.items():
            if kind in sets:
                rows = [ious(network, crops, number) for number, crops in enumerate(batches)]
                means = [f"{100 * mean:.2f}" for mean in np.mean(rows, axis=0)]
                with table.open("a") as out:
                    csv.writer(out).writerow((name, f"{kind}:{source}", *means))


if __name__ == "__main__":
    torch.set_num_threads(1)
    action, *words = sys.argv[1:]
    if action == "train":
        train(words[0], int(words[1]), Path(words[2]))
    else:
        score(words[0], Path(words[1]), words[2:])
