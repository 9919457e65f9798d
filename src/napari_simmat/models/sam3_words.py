"""SAM 3's detector: all objects of an image that words mean, or that are like those in some boxes.

Source: https://github.com/facebookresearch/sam3 (arXiv 2511.16719), ``Sam3Image``. The modules and
their forward pass are those of `transformers.Sam3Model`, without its image encoder, which the
detector shares with the clicks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from napari_simmat.models.network import Concept, FoundMasks
from napari_simmat.models.sam3_encoder import neck_levels, used_neck

PADDING = -10
"""What the library calls a box that is none."""


class Sam3Words(nn.Module):
    """The detector, from a `transformers.Sam3Model` without blocks of an image encoder."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector
        vision = detector.vision_encoder
        vision.backbone = nn.Identity()  # that of the network serves
        used_neck(vision.neck)
        embeddings = detector.text_encoder.text_model.embeddings
        if embeddings.position_ids.is_meta:  # of no file
            count = embeddings.position_ids.shape[-1]
            embeddings.position_ids = torch.arange(count, device="cpu")[None]

    def find(
        self, tokens: Tensor, concept: Concept, size: tuple[int, int], minimum: float
    ) -> FoundMasks:
        """The objects that the concept means, the likeliest first.

        Parameters
        ----------
        tokens
            Output of the last block of the image encoder, (1, d, h, w).
        concept
            What to look for, in pixels of the network's input.
        size
            Height and width of that input.
        minimum
            Least score of an object.
        """
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

        neck = self.detector.vision_encoder.neck
        levels = neck_levels(neck, tokens.float().permute(0, 2, 3, 1))
        places = [neck.position_encoding(each.shape, each.device, each.dtype) for each in levels]
        seen = Sam3VisionEncoderOutput(
            fpn_hidden_states=(*levels, levels[-1]),  # the last one is not read
            fpn_position_encoding=(*places, places[-1]),
        )
        text = self.detector.get_text_features(input_ids=concept.pieces[None], return_dict=True)
        boxes, alike = relative_boxes(concept.boxes, size), concept.alike
        if not len(boxes):
            # Meta's code reads a token of the image also without an example, the library only with
            # one, be it a padding.
            boxes, alike = boxes.new_zeros(1, 4), alike.new_full((1,), PADDING)
        found = self.detector(
            vision_embeds=seen,
            text_embeds=text,
            input_boxes=boxes[None],
            input_boxes_labels=alike[None],
        )
        scores = found.pred_logits[0].sigmoid() * found.presence_logits[0].sigmoid()
        order = scores.argsort(descending=True)
        chosen = order[scores[order] >= minimum]
        return FoundMasks(found.pred_masks[0, chosen].float(), scores[chosen].float())


def relative_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (K, 4) as x0, y0, x1, y1 -> center x, y, width and height as shares of the input."""
    height, width = size
    x0, y0, x1, y1 = (boxes.float() / boxes.new_tensor([width, height] * 2).float()).unbind(1)
    return torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=1)
