"""The color-blind tell apart what only its color tells apart."""

from itertools import combinations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab
from vispy.color import Color

from napari_simmat.widgets.segment.layers.outputs import CHOSEN_COLOR, CLASS_COLORS, NO_CLASS_COLOR
from napari_simmat.widgets.segment.layers.prompt_adapters import NEGATIVE, OUTLINE, POSITIVE
from napari_simmat.widgets.tones import TONES

SEEN_BY = {
    "all": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB."""
CANVASES = ("black", "gray", "white")
APART = 10
"""CIEDE2000; about 2 is just noticeable side by side."""


@pytest.mark.parametrize("eyes", SEEN_BY)
@pytest.mark.parametrize(
    "colors",
    [
        (*CLASS_COLORS, CHOSEN_COLOR, *CANVASES),
        (*CLASS_COLORS, CHOSEN_COLOR, NO_CLASS_COLOR),
        (POSITIVE, NEGATIVE, OUTLINE, *CANVASES),
        *([pair[theme] for tone, pair in TONES.items() if tone != "muted"] for theme in (0, 1)),
    ],
    ids=["classes", "no class", "prompts", "dark tones", "light tones"],
)
def test_colors_seen_by_the_color_blind_are_apart(colors, eyes):
    rgb = np.array([Color(color).rgb for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(SEEN_BY[eyes]), 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
    named = zip(colors, lab, strict=True)
    near = {
        (one, other): round(float(deltaE_ciede2000(here, there)), 1)
        for (one, here), (other, there) in combinations(named, 2)
    }
    assert not {pair: distance for pair, distance in near.items() if distance < APART}
