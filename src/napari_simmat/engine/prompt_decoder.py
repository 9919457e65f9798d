"""`PromptDecoder`: one prompt, or words, on an embedding to masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_simmat.engine.coordinates import BoxCorners, InputTransform
from napari_simmat.engine.device import ComputeContext
from napari_simmat.engine.embeddings import Embedding
from napari_simmat.engine.masks import Window
from napari_simmat.engine.prompts import Prompt
from napari_simmat.engine.result import Result, input_mask, shrink
from napari_simmat.engine.scribbles import as_model_sees
from napari_simmat.models.expected_size import ExpectedSize
from napari_simmat.models.instance_decoder import InstanceDecoder
from napari_simmat.models.network import ClickEstimates, Concept, DecodedMasks, PromptTensors
from napari_simmat.progress import Job

if TYPE_CHECKING:
    from napari_simmat.models.sam2_memory import Memories, ObjectMemory
    from napari_simmat.models.spec import Model

NO_MAPS = "{} has no decoder that finds all objects at once; take a model with one, e.g. vit_b_lm."
UNKNOWN_KIND = "{} does not read this kind of prompt: {}. Use another kind, or another model."


class PromptDecoder:
    """Decodes prompts on an embedding, with a model and its compute context."""

    def __init__(self, model: Model, compute: ComputeContext) -> None:
        self.model, self.compute = model, compute

    def check(self, prompt: Prompt, transform: InputTransform) -> None:
        """Raise ValueError if a prompt is outside the image, or its logits are of another image.

        Also if the network does not know one of its kinds.
        """
        prompt.check_inside(transform.image)
        if unknown := prompt.kinds - self.compute.network.prompt_kinds:
            raise ValueError(UNKNOWN_KIND.format(self.model.spec.name, ", ".join(sorted(unknown))))
        if prompt.mask is None or prompt.mask.dtype == bool:
            return
        grid = transform.grid(self.compute.network.mask_stride)
        if prompt.mask.shape != grid:
            raise ValueError(
                f"The mask's logits have shape {prompt.mask.shape}, this image needs {grid}; use "
                "the logits of a result on this image, or a bool mask of the image's size."
            )

    def result(self, embedding: Embedding, prompt: Prompt) -> Result:
        """The masks of a prompt, led by the one that the model's description declares."""
        decoded = self._decoded(embedding, prompt)
        quality = decoded.predicted_iou.cpu()
        lone = len(prompt.points) == 1 and prompt.kinds == {"points"}
        stock = self.model.spec.mask_choice == "stock"
        chosen = 1 + int(quality[1:].argmax()) if stock and lone else 0
        others = range(1, len(quality))  # SAM's candidates have no order of their own
        order = sorted(others, key=lambda n: -float(quality[n])) if stock else list(others)
        if (calibration := self.model.spec.iou_calibration) is not None:
            quality = torch.tensor(calibration.apply(quality.numpy()), dtype=torch.float32)
        decoded = decoded._replace(logits=decoded.logits.cpu(), predicted_iou=quality)
        bounds = self._bounds(prompt, embedding.transform)
        return self._result(embedding, decoded, (chosen, *order), bounds)

    def predict_low_res(self, embedding: Embedding, prompt: Prompt) -> Result:
        """The masks for a prompt, the single-mask token's first; see `Predictor`."""
        return self._result(embedding, self._decoded(embedding, prompt))

    def predict_clicks(
        self,
        embedding: Embedding,
        points: Sequence[tuple[float, float]],
        minimum: float,
        expected: ExpectedSize | None = None,
    ) -> list[Result]:
        """The masks of single positive clicks (y, x), decoded together; see `Predictor`."""
        encoded, transform = embedding
        clicks = torch.tensor(transform.to_input(points), device=self.compute.device)
        with self.compute.inference():
            decoded = self.compute.network.decode_clicks(encoded, clicks, minimum, expected)
        for each in decoded:
            self._check_finite(each)
        return [self._result(embedding, each) for each in decoded]

    def estimate_clicks(
        self, embedding: Embedding, points: Sequence[tuple[float, float]]
    ) -> ClickEstimates | None:
        """Estimates for single positive clicks (y, x), sizes in the image's pixels."""
        encoded, transform = embedding
        clicks = torch.tensor(transform.to_input(points), device=self.compute.device)
        with self.compute.inference():
            estimates = self.compute.network.estimate_clicks(encoded, clicks)
        if estimates is None:
            return None
        size = estimates.size / math.sqrt(math.prod(transform.scale))
        return ClickEstimates(estimates.foreground.cpu(), size.cpu())

    def find_named(
        self,
        embedding: Embedding,
        words: str,
        examples: Sequence[BoxCorners] = (),
        minimum: float = 0.0,
    ) -> list[Result]:
        """All objects that words mean, or that are like examples; see `Predictor.find_named`."""
        encoded, transform = embedding
        device, network = self.compute.device, self.compute.network
        for box in examples:
            Prompt(box=box).check_inside(transform.image)
        pieces = torch.tensor(network.pieces_of(words, self.model.vocabulary_file))
        boxes = torch.tensor([transform.box_to_input(box) for box in examples]).reshape(-1, 4)
        alike = torch.ones(len(boxes), dtype=torch.long)
        concept = Concept(pieces.to(device), boxes.to(device), alike.to(device))
        with self.compute.inference():
            found = network.find(encoded, concept, minimum)
        self.compute.check_finite(self.model.spec.name, found.logits, found.scores)
        return [
            Result(DecodedMasks(mask[None], score[None]), transform, network.mask_stride, (0,))
            for mask, score in zip(found.logits.cpu(), found.scores.cpu(), strict=True)
        ]

    def instance_maps_job(self, embedding: Embedding) -> Job[NDArray[np.float32]]:
        """What micro-sam's decoder predicts of an image (3, Y, X); see `Predictor`."""
        decoder, transform = self.model.decoder, embedding.transform
        if not isinstance(decoder, InstanceDecoder):
            raise ValueError(NO_MAPS.format(self.model.spec.name))
        decoder.to(self.compute.device)
        job = decoder.decode_job(embedding.encoded.embedding)
        maps = yield from self.compute.run_job(job)
        self.compute.check_finite(self.model.spec.name, maps)
        # As SAM's masks return to the image (`UNETRBase.postprocess_masks`).
        bilinear = partial(torch.nn.functional.interpolate, mode="bilinear", align_corners=False)
        if maps.shape[-2:] != transform.padded:
            maps = bilinear(maps, transform.padded)
        height, width = transform.resized
        maps = bilinear(maps[..., :height, :width], transform.image)
        found: NDArray[np.float32] = maps[0].cpu().numpy()
        return found

    def remember(self, embedding: Embedding, mask: NDArray[np.bool_]) -> ObjectMemory:
        """What the network keeps of an object's mask (Y, X)."""
        # Without the rim that resizing leaves, as ``add_new_mask`` of Meta's code.
        whole = (input_mask(mask, embedding.transform) >= 0.5).float().to(self.compute.device)
        with self.compute.inference():
            return self.compute.network.remember(embedding.encoded, whole)

    def recall(self, embedding: Embedding, memories: Memories) -> tuple[Result, ObjectMemory]:
        """The mask of an object that is found by memory, and what the network keeps of it."""
        device = self.compute.device
        given, found = (
            {back: each.to(device) for back, each in known.items()}
            for known in (memories.given, memories.found)
        )
        moved = replace(memories, given=given, found=found)
        with self.compute.inference():
            decoded, memory = self.compute.network.recall(embedding.encoded, moved)
        self._check_finite(decoded)
        logits, quality = decoded.logits.cpu(), decoded.predicted_iou.cpu()
        decoded = decoded._replace(logits=logits, predicted_iou=quality)
        return self._result(embedding, decoded, (0,)), memory

    def _result(
        self,
        embedding: Embedding,
        decoded: DecodedMasks,
        order: Sequence[int] = (0, 1, 2, 3),
        bounds: Window | None = None,
    ) -> Result:
        stride = self.compute.network.mask_stride
        return Result(decoded, embedding.transform, stride, order, bounds=bounds)

    def _bounds(self, prompt: Prompt, transform: InputTransform) -> Window | None:
        """`Prompt.bounds`; None if the mask that the prompt refines reaches beyond them."""
        bounds, mask = prompt.bounds(transform.image), prompt.mask
        if bounds is None or mask is None:
            return bounds
        stride = self.compute.network.mask_stride
        part = bounds if mask.dtype == bool else transform.cells_within(*bounds, stride)
        inside = mask > 0
        return bounds if inside.sum() == inside[part].sum() else None

    def _decoded(self, embedding: Embedding, prompt: Prompt) -> DecodedMasks:
        network, device = self.compute.network, self.compute.device
        tensors = prompt_tensors(prompt, embedding.transform, network.mask_stride)
        moved = {name: each.to(device) for name, each in tensors.items()}
        with self.compute.inference():
            decoded = network.decode(embedding.encoded, moved)
        self._check_finite(decoded)
        return decoded

    def _check_finite(self, decoded: DecodedMasks) -> None:
        self.compute.check_finite(self.model.spec.name, decoded.logits, decoded.predicted_iou)


def prompt_tensors(prompt: Prompt, transform: InputTransform, stride: float) -> PromptTensors:
    """A prompt in the network's coordinates; `stride` is that of its mask grid."""
    prompt = as_model_sees(prompt, transform.image)
    tensors: dict[str, Tensor] = {}
    if prompt.points:
        tensors["points"] = torch.tensor(transform.to_input(prompt.points))
        tensors["labels"] = torch.tensor(prompt.labels)
    if prompt.box is not None:
        tensors["box"] = torch.tensor(transform.box_to_input(prompt.box))
    if prompt.mask is not None and prompt.mask.dtype == bool:
        tensors["mask"] = shrink(prompt.mask, transform, stride)
    elif prompt.mask is not None:
        tensors["mask"] = torch.tensor(prompt.mask, dtype=torch.float32)[None, None]
    if prompt.expected_area is not None:
        tensors["area"] = torch.tensor(prompt.expected_area * math.prod(transform.scale))
    return tensors
