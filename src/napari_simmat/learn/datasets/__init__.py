"""What modality checkpoints are trained on: folders, arrays and the AIMS benchmark."""

from napari_simmat.learn.datasets.aims import AIMS, from_aims
from napari_simmat.learn.datasets.arrays import LabelledArray, from_arrays, reading_arrays
from napari_simmat.learn.datasets.dataset import DataConfig, Dataset, Sample, large_regions
from napari_simmat.learn.datasets.folder import from_folder, reading_folder

__all__ = [
    "AIMS",
    "DataConfig",
    "Dataset",
    "LabelledArray",
    "Sample",
    "from_aims",
    "from_arrays",
    "from_folder",
    "large_regions",
    "reading_arrays",
    "reading_folder",
]
