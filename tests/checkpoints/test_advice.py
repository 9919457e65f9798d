"""Which published model is named for an image, by what its file says of its pixels."""

from dataclasses import replace

import numpy as np
import pytest

from napari_simmat.checkpoints.advice import (
    BY_WINDOW,
    MODEL_FOR,
    better_model,
    download_sentence,
    image_modality,
)
from napari_simmat.checkpoints.catalog import PUBLISHED_WEIGHTS
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.io.files import user_folder
from napari_simmat.io.reference import ImageReference, World


def pixels(size, unit, **more):
    return ImageReference(scale={"X": size, "Y": size}, units={"X": unit, "Y": unit}, **more)


@pytest.mark.parametrize(
    ("reference", "rgb", "bright", "modality"),
    [
        (pixels(0.3, "um"), False, False, "light microscopy"),
        (pixels(0.5, "um"), True, True, "histopathology"),
        (pixels(8, "nm"), False, False, "electron microscopy"),
        (pixels(0.1, "mm"), False, False, ""),
        (pixels(1, "s"), False, False, ""),
        (ImageReference(), False, False, ""),
        (pixels(0.3, "um", world=World(affine=np.eye(4), space="patient")), False, False, ""),
        (pixels(0.5, "um"), True, False, "light microscopy"),
        (pixels(8, "nm"), True, True, ""),
    ],
)
def test_kind_of_image_follows_from_pixel_size_and_light(reference, rgb, bright, modality):
    assert image_modality(reference, rgb=rgb, bright=bright) == modality


def test_each_named_model_is_published_and_finds_all_objects():
    for modality, name in MODEL_FOR.items():
        assert PUBLISHED_WEIGHTS[name].modality == modality
        assert PUBLISHED_WEIGHTS[name].decoder is not None


def test_a_model_that_is_here_is_not_named(tmp_path):
    tiny = find_model("tiny").spec
    reference = pixels(0.3, "um")
    assert better_model(reference, tiny, rgb=False, bright=False) == "vit_b_lm"
    file = user_folder("bases") / PUBLISHED_WEIGHTS["vit_b_lm"].file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"here")
    assert better_model(reference, tiny, rgb=False, bright=False) == ""


def test_who_chose_another_model_is_told_of_none():
    chosen = replace(find_model("tiny").spec, name="mine")
    assert better_model(pixels(0.3, "um"), chosen, rgb=False, bright=False) == ""


def test_size_license_and_way_are_told():
    sentence = download_sentence("vit_b_lm")
    assert sentence.startswith("For cells and nuclei in fluorescence")
    assert "there is vit_b_lm (419 MB, license CC-BY-4.0), which is not here." in sentence
    assert sentence.endswith("`simmat models fetch vit_b_lm` downloads it.")
    assert download_sentence("vit_b_lm", BY_WINDOW).endswith("to download it.")
