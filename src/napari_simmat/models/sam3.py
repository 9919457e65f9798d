"""SAM 3 behind the project's interface: clicks, boxes and masks, words, and a stack's memory.

Source: https://github.com/facebookresearch/sam3 (arXiv 2511.16719), ``Sam3TrackerBase`` and
``SAM3InteractiveImagePredictor``. Prompt encoder, mask decoder and memory are those of SAM 2 with
tensors of their own, on a grid of 72 x 72 tokens of 14 pixels: a cell of the masks has 3.5 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from segment_anything.modeling import PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from napari_simmat.models import sam3_encoder
from napari_simmat.models.hiera_encoder import EMBEDDING
from napari_simmat.models.network import Concept, Encoded, FoundMasks
from napari_simmat.models.sam import full_precision
from napari_simmat.models.sam2 import Sam2MaskDecoder, Sam2Network
from napari_simmat.models.sam2_memory import Sam2Memory
from napari_simmat.models.sam3_encoder import (
    MOST_PIECES,
    PATCH,
    Sam3Encoder,
    build_detector,
    build_tracker,
)
from napari_simmat.models.sam3_words import Sam3Words
from napari_simmat.models.vocabulary import pieces_of
from napari_simmat.progress import Job, Progress

ARCHITECTURE = "sam3"


def build_sam3(*, initialize: bool = True) -> Sam3Network:
    """SAM 3 with random weights; `initialize` as in `models.sam.build_sam`.

    Raises ValueError if `transformers` is not installed.
    """
    with nullcontext() if initialize else torch.device("meta"):
        whole, detector = build_tracker(), build_detector()
        side = sam3_encoder.SIDE
        grid = side // PATCH
        prompts = PromptEncoder(EMBEDDING, (grid, grid), (side, side), 16)
        transformer = TwoWayTransformer(depth=2, embedding_dim=EMBEDDING, mlp_dim=2048, num_heads=8)
        masks = Sam2MaskDecoder(transformer)
        encoder = Sam3Encoder(whole.vision_encoder)
    network = Sam3Network(encoder, prompts, masks, Sam2Memory(whole), Sam3Words(detector))
    network.eval()
    return network


class Sam3Network(Sam2Network):
    """SAM 3 on single images; `memory` carries an object on to other images, `words` finds all."""

    slot = "image_encoder.patch_embed.projection"
    mask_stride = PATCH / 4
    reads_words = True

    def __init__(
        self,
        image_encoder: Sam3Encoder,
        prompt_encoder: PromptEncoder,
        mask_decoder: Sam2MaskDecoder,
        memory: Sam2Memory,
        words: Sam3Words,
    ) -> None:
        super().__init__(image_encoder, prompt_encoder, mask_decoder, memory)
        self.words = words

    def position_parameters(self) -> Iterator[nn.Parameter]:
        """The table of positions."""
        yield self.image_encoder.pos_embed

    def encode_job(self, image: Tensor, averaged: bool = False) -> Job[Encoded]:
        """Encode (B, C, 1008, 1008); maps: the decoder's ``s0`` and ``s1``, and ``tokens``."""
        del averaged
        features = yield from self._features_job(image)
        encoded = self.with_decoder_maps(features)
        return replace(encoded, maps={**encoded.maps, "tokens": features.maps["tokens"]})

    def features(self, image: Tensor) -> Encoded:
        """As `Sam2Network.features`: without what only words need."""
        features = super().features(image)
        kept = {name: each for name, each in features.maps.items() if name != "tokens"}
        return replace(features, maps=kept)

    def find(self, encoded: Encoded, concept: Concept, minimum: float) -> FoundMasks:
        """As `Network.find`; the scores are those of the detector times that of any being there."""
        with full_precision(encoded.embedding.device):
            return self.words.find(encoded.maps["tokens"], concept, encoded.input_size, minimum)

    def pieces_of(self, words: str, vocabulary: Path) -> list[int]:
        """As `Network.pieces_of`."""
        return pieces_of(words, vocabulary, MOST_PIECES, self.words.detector.vocab_size)

    def _features_job(self, image: Tensor) -> Job[Encoded]:
        """The embedding, and maps ``fine``, ``middle`` and ``tokens``, of (B, C, 1008, 1008)."""
        encoder = self.image_encoder
        tokens = encoder.embed(image)
        for done, block in enumerate(encoder.blocks, start=1):
            tokens = self.run_block(block, tokens)
            yield Progress(done, len(encoder.blocks) + 1, "encoding")
        fine, middle, coarse = encoder.pyramid(tokens)
        embedding = (coarse + self.no_mem_embed[0, :, :, None, None]).float()
        height, width = image.shape[-2:]
        maps = {"fine": fine, "middle": middle, "tokens": tokens.permute(0, 3, 1, 2)}
        return Encoded(embedding, (height, width), maps)
