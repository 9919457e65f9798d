"""Segment everything: a model is asked at many places, and what it answers becomes objects.

`proposing` (`proposing.py`) asks and keeps all masks; `sift` (`sifting.py`) makes objects of them,
again and again with other thresholds where wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_simmat.engine.automatic.settings import AutomaticSettings
from napari_simmat.engine.automatic.sifting import Instances, sift
from napari_simmat.engine.automatic.tiled import segmenting_tiles
from napari_simmat.progress import Job, finish

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.prompts import Prompt


def segment_everything(
    predictor: Predictor,
    settings: AutomaticSettings | None = None,
    plane: tuple[int, ...] = (),
    prompts: Sequence[Prompt] | None = None,
) -> Instances:
    """Find all objects of a plane.

    Parameters
    ----------
    predictor
        With an image.
    settings
        The model's defaults where left out.
    plane
        Index along the image's axes before Y and X.
    prompts
        Where to ask instead of on a grid, e.g. from `engine.automatic.seeds`; crop layers are not
        used then.

    Returns
    -------
    Instances
        Label image and scores. The same image, model and settings give the same labels.

    Examples
    --------
    >>> from napari_simmat import Predictor, load_model, segment_everything
    >>> from skimage.data import coins
    >>> predictor = Predictor(load_model("tiny"))
    >>> predictor.set_image(coins())
    >>> segment_everything(predictor).labels.shape
    (303, 384)
    """
    return finish(segmenting_everything(predictor, settings, plane, prompts))


def segmenting_everything(
    predictor: Predictor,
    settings: AutomaticSettings | None = None,
    plane: tuple[int, ...] = (),
    prompts: Sequence[Prompt] | None = None,
) -> Job[Instances]:
    """`segment_everything` as a job that yields after every few prompts."""
    from napari_simmat.engine.automatic.proposing import proposing

    settings = (settings or AutomaticSettings()).for_model(predictor.model.spec)
    size = (predictor.shape[-2], predictor.shape[-1])
    if prompts is None and settings.is_tiled(size):
        labels = np.zeros(size, np.uint32)
        scores = yield from segmenting_tiles(predictor, labels, settings, plane)
        return Instances(labels, scores)
    candidates = yield from proposing(predictor, settings, plane, prompts, keep_all=False)
    return sift(candidates, settings)
