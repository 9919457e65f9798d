"""What learning from a few objects brings on the other objects of real images that no model saw.

``python scripts/few.py --output few`` learns from 3, 5, 10, 20 objects of each image, drawn by a
seed, and scores a click and a box on up to twelve of its other objects, before and after. Each row
is added to ``few.jsonl``, and rows that are there are not repeated. ``few.csv`` and ``few.md`` are
written from them. ``--compare`` adds the ways of the paper: zero-shot, from scratch, baselines A and
B, and SimMAT, each trained by ``simmat train --practical`` on the same objects.

Images: the development set (``scripts/development_set.py``), the folder named by
NAPARI_SIMMAT_DATA and its subfolder ``real``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_simmat import Predictor, load_model
from napari_simmat.datasets.dataset import DataConfig, label_areas
from napari_simmat.datasets.labelled_image import ImageContent
from napari_simmat.datasets.split import LabelledArray, from_arrays
from napari_simmat.engine.embeddings import EmbeddingCache
from napari_simmat.evaluation.protocols import UserProtocol
from napari_simmat.io.readers import read_image
from napari_simmat.models.spec import Model, Normalization
from napari_simmat.progress import finish
from napari_simmat.scenes.scene import NoObjectsError
from napari_simmat.training.adapting import FewShotConfig
from napari_simmat.training.annotations import AnnotatedPlane, annotate
from napari_simmat.training.batches import as_rgb
from napari_simmat.training.few_shot import learn_objects_job

DATA = Path(os.environ.get("NAPARI_SIMMAT_DATA", "../shared/data"))
