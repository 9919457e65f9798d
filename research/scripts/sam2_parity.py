"""SAM 2 and EdgeTAM here against Meta's own code, both with the same random weights.

``python research/scripts/sam2_parity.py --sam2 CHECKOUT`` prints the largest differences, beside
the largest value: names of all four sizes, embedding and maps, masks of each kind of prompt, and a
film of each size whose object is outlined on two images and followed forwards and backwards.
CHECKOUT is a clone of https://github.com/facebookresearch/sam2, which needs ``hydra-core`` and
``iopath``; nothing of it is installed. With ``--edgetam CHECKOUT``, a clone of https://github.com/facebookresearch/EdgeTAM,
it compares names, embedding and masks of EdgeTAM instead.
"""

from __future__ import annotations

import argparse
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_simmat import Predictor, Prompt
from napari_simmat.checkpoints.sam2_names import renamed_sam2
from napari_simmat.engine.settings import PropagationSettings
from napari_simmat.engine.tracking.propagation import Propagator
from napari_simmat.models.edgetam import build_edgetam
from napari_simmat.models.sam2 import Sam2ImageNetwork, Sam2Network, build_sam2
from napari_simmat.models.spec import Base, Channel, InputSize, Model, ModelSpec, Normalization

CONFIGS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
SIDE, LENGTH, GIVEN = 1024, 6, (1, 3)
SIZES = (512, 512), (SIDE, SIDE), (480, 854), (300, 700), (1365, 1024)
"""Height and width of films; both programs stretch them to `SIDE`."""
NEVER_ENDS = PropagationSettings(
    min_score=0.0,
    min_overlap=0.0,
    max_change=1e6,
    min_contrast=0.0,
    min_evidence=0.0,
    min_likeness=0.0,
    reach=1e3,
)
POINTS, LABELS = torch.tensor([[300.0, 400.0], [500.0, 100.0]]), torch.tensor([1, 0])
BOX = torch.tensor([100.0, 120.0, 400.0, 500.0])
PROMPTS: dict[str, dict[str, Tensor]] = {
    "two points": {"points": POINTS, "labels": LABELS},
    "box": {"box": BOX},
    "box and point": {"box": BOX, "points": POINTS[:1], "labels": LABELS[:1]},
    "mask": {"mask": torch.linspace(-4, 4, 256 * 256).view(1, 1, 256, 256)},
}


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    clone = parser.add_mutually_exclusive_group(required=True)
    clone.add_argument("--sam2", type=Path, help="a clone of Meta's repository")
    clone.add_argument("--edgetam", type=Path, help="a clone of Meta's repository of EdgeTAM")
    parser.add_argument("--films", action="store_true", help="compare the films alone")
    given = parser.parse_args()
    sys.path.insert(0, str(given.sam2 or given.edgetam))
    if given.edgetam:
        compare_edgetam()
        return
    if not given.films:
        for size in CONFIGS:
            compare_names(size)
    torch.manual_seed(0)
    theirs = with_random_numbers(meta_model("tiny"))
    ours = build_sam2("hiera_tiny", initialize=False)
    ours.load_state_dict(renamed_sam2(theirs.state_dict()), strict=True, assign=True)
    ours.requires_grad_(False)
    with torch.inference_mode():
        if not given.films:
            compare_masks(theirs, ours, torch.randn(1, 3, SIDE, SIDE))
        for extent in SIZES:
            compare_film(theirs, ours, extent)


def compare_edgetam() -> None:
    """Print differences of EdgeTAM's names, embedding and masks."""
    import timm
    from sam2.build_sam import build_sam2_video_predictor  # type: ignore[import-not-found]
    from sam2.modeling.backbones import timm as trunk  # type: ignore[import-not-found]

    def without_weights(name: str, **named: Any) -> Any:
        return timm.create_model(name, **(named | {"pretrained": False}))

    trunk.create_model = without_weights  # it would download them
    torch.manual_seed(0)
    theirs = build_sam2_video_predictor("configs/edgetam.yaml", ckpt_path=None, device="cpu")
    theirs = with_random_numbers(theirs.eval())
    renamed = renamed_sam2(theirs.state_dict())
    ours = build_edgetam(initialize=False)
    ours.load_state_dict(renamed, strict=True, assign=True)
    ours.requires_grad_(False)
    left_out = len(theirs.state_dict()) - len(renamed)
    print(f"edgetam: {len(renamed)} tensors, all equal; {left_out} of the memory left out")
    with torch.inference_mode():
        compare_masks(theirs, ours, torch.randn(1, 3, SIDE, SIDE))


def meta_model(size: str) -> Any:
    """Meta's model with random weights."""
    from sam2.build_sam import build_sam2_video_predictor

    config = f"configs/sam2.1/sam2.1_hiera_{CONFIGS[size]}.yaml"
    return build_sam2_video_predictor(config, ckpt_path=None, device="cpu").eval()


def with_random_numbers(model: Any) -> Any:
    """Also where a network starts with zeros and ones, and with an object that is present."""
    with torch.no_grad():
        for name, each in model.named_parameters():
            if each.ndim > 1 and "embed" not in name:
                each.mul_(1.5)
            elif "norm" in name or name.endswith(("bias", "gamma")):
                each.add_(0.1 * torch.randn_like(each))
            if not each.any() or "embed" in name or name.startswith(("no_", "maskmem")):
                each.normal_(0, 0.3)
        model.sam_mask_decoder.pred_obj_score_head.layers[2].bias += 1.5
    return model


def compare_names(size: str) -> None:
    """Print whether all tensors of a size have their place here."""
    theirs = renamed_sam2(meta_model(size).state_dict())
    ours = build_sam2(f"hiera_{size}", initialize=False).state_dict()
    equal = {n: each.shape for n, each in theirs.items()} == {n: e.shape for n, e in ours.items()}
    print(f"{size}: {len(theirs)} tensors, {'all equal' if equal else 'NOT EQUAL'}")


def compare_masks(theirs: Any, ours: Sam2ImageNetwork, image: Tensor) -> None:
    """Print differences of embedding and masks on one image."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor  # type: ignore[import-not-found]

    predictor = SAM2ImagePredictor(theirs)
    _, features, _, _ = theirs._prepare_backbone_features(theirs.forward_image(image))
    features[-1] = features[-1] + theirs.no_mem_embed
    quarter, half, coarse = (
        each.permute(1, 2, 0).view(1, -1, *size)
        for each, size in zip(features, predictor._bb_feat_sizes, strict=True)
    )
    encoded = ours.encode(image)
    for name, found, expected in (
        ("embedding", encoded.embedding, coarse),
        ("map at stride 8", encoded.maps["s1"], half),
        ("map at stride 4", encoded.maps["s0"], quarter),
    ):
        print(f"{name}: {difference(found, expected)}")
    predictor._features = {"image_embed": coarse, "high_res_feats": [quarter, half]}
    predictor._is_image_set, predictor._orig_hw = True, [(SIDE, SIDE)]
    for name, prompt in PROMPTS.items():
        decoded = ours.decode(encoded, prompt)
        for several, masks in ((False, decoded.logits[:1]), (True, decoded.logits[1:])):
            given = {key: each[None] for key, each in prompt.items() if key != "mask"}
            _, _, expected = predictor._predict(
                given.get("points"),
                given.get("labels"),
                boxes=given.get("box"),
                mask_input=prompt.get("mask"),
                multimask_output=several,
                return_logits=True,
            )
            print(f"{name}, {'three masks' if several else 'one mask'}: ", end="")
            print(f"{difference(masks, expected[0])}, {cells(masks, expected[0])} cells differ")


def compare_film(theirs: Any, ours: Sam2Network, size: tuple[int, int]) -> None:
    """Print differences of an object that is outlined on images `GIVEN` and followed.

    Meta's code is shown the pixels that the network is shown here.
    """
    rng = np.random.default_rng(0)
    film = rng.normal(120, 40, (1, *size, 3)) + rng.normal(0, 12, (LENGTH, *size, 3))
    film = film.clip(0, 255).astype(np.uint8)
    shown: list[Tensor] = []
    found: dict[int, Tensor] = {}
    encode, recall = ours.encode_job, ours.recall

    def noting_input(image: Tensor, *others: Any) -> Any:
        shown.append(image)
        return encode(image, *others)

    def noting_logits(*given: Any) -> Any:
        masks, memory = recall(*given)
        found[predictor.plane[0]] = masks.logits[0]
        return masks, memory

    watched: Any = ours
    watched.encode_job, watched.recall = noting_input, noting_logits
    predictor = Predictor(model_of(ours), "cpu", "exact")
    predictor.set_image(film, channel_axis=-1)
    for index in range(1, LENGTH):
        predictor.set_plane(index)
    height, width = size
    outlines = np.zeros((LENGTH, *size), bool)
    for index in GIVEN:
        outlines[index, height // 3 : height // 2 + index, width // 3 : 3 * width // 5] = True
    prompts = [Prompt(mask=outlines[index], object=1, plane=(index,)) for index in GIVEN]
    [track] = Propagator(predictor, NEVER_ENDS).propagate(prompts)
    watched.encode_job, watched.recall = encode, recall
    state = film_state(torch.cat(shown), size)
    for index in GIVEN:
        theirs.add_new_mask(state, index, 1, torch.from_numpy(outlines[index]))
    for reverse in (False, True):
        for index, _, masks in theirs.propagate_in_video(state, GIVEN[0], reverse=reverse):
            if index in GIVEN:
                continue
            kept = state["output_dict_per_obj"][0]["non_cond_frame_outputs"][index]
            logits, mask = kept["pred_masks"][0, 0], masks[0, 0].numpy() > 0
            print(
                f"{height} x {width}, image {index}: {difference(found[index], logits)}, ", end=""
            )
            print(f"{cells(found[index], logits)} cells differ, ", end="")
            pixels = np.count_nonzero(track.mask(index) != mask)
            print(f"{pixels} of {mask.size} pixels", flush=True)


def model_of(network: Sam2Network) -> Model:
    """The network as a model that stretches images to its input, as Meta's code does."""
    channels = tuple(Channel(name=name, mean=120.0, std=60.0) for name in ("r", "g", "b"))
    spec = ModelSpec(
        name="sam2",
        modality="RGB",
        channels=channels,
        normalization=Normalization(keep_uint8=True),
        input_size=InputSize(method="stretch", size=SIDE, minimum=SIDE),
        base=Base(name="sam2", architecture="hiera_tiny", sha256="0" * 64),
        mask_choice="stock",
    )
    return Model(spec, network, "fingerprint")


def film_state(film: Tensor, size: tuple[int, int]) -> dict[str, Any]:
    """What Meta's ``init_state`` makes of a video's file."""
    device = torch.device("cpu")
    sizes = {"video_height": size[0], "video_width": size[1], "num_frames": len(film)}
    offloaded = {"offload_video_to_cpu": False, "offload_state_to_cpu": False}
    tables: dict[str, Any] = {
        name: {}
        for name in (
            "point_inputs_per_obj", "mask_inputs_per_obj", "cached_features", "constants",
            "output_dict_per_obj", "temp_output_dict_per_obj", "frames_tracked_per_obj",
        )
    }  # fmt: skip
    numbers: dict[str, Any] = {
        "obj_id_to_idx": OrderedDict(),
        "obj_idx_to_id": OrderedDict(),
        "obj_ids": [],
    }
    places = {"device": device, "storage_device": device}
    return {"images": film, **sizes, **offloaded, **tables, **numbers, **places}


def difference(found: Tensor, expected: Tensor) -> str:
    """The largest difference, beside the largest value."""
    return f"{float((found - expected).abs().max()):.1e} of {float(expected.abs().max()):.1f}"


def cells(found: Tensor, expected: Tensor) -> int:
    """How many cells of masks are inside one and outside the other."""
    return int(((found > 0) != (expected > 0)).sum())


if __name__ == "__main__":
    main()
