"""What modality checkpoints are trained on: folders, arrays, the AIMS benchmark, drawings."""

from napari_simmat.learn.datasets.aims import AIMS, from_aims
from napari_simmat.learn.datasets.arrays import LabelledArray, from_arrays, reading_arrays
from napari_simmat.learn.datasets.dataset import DataConfig, Dataset, Sample, large_regions
from napari_simmat.learn.datasets.folder import from_folder, reading_folder
from napari_simmat.learn.datasets.generated import GeneratedConfig, from_generated, generating

__all__ = [
    "AIMS",
    "DataConfig",
    "Dataset",
    "GeneratedConfig",
    "LabelledArray",
    "Sample",
    "from_aims",
    "from_arrays",
    "from_folder",
    "from_generated",
    "generating",
    "large_regions",
    "reading_arrays",
    "reading_folder",
]
