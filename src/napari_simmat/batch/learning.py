"""Learn from a few objects, or train on labeled images, with one call: `learn` and `train`.

They do what `simmat train` does, with and without ``--few``.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_simmat.batch.given_image import (
    GivenSize,
    channels_of,
    labeled_image_of,
    labeled_images_of,
)
from napari_simmat.batch.shown import ShowProgress, frame, pandas_module, shown, table_html
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.registry import model_reference
from napari_simmat.datasets.dataset import DataConfig
from napari_simmat.datasets.folder import find_images, read_folder_job
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.datasets.split import from_arrays
from napari_simmat.engine.settings import ChannelSelection
from napari_simmat.models.spec import Model, ModelSpec
from napari_simmat.training.config import practical_config

if TYPE_CHECKING:
    import pandas as pd

    from napari_simmat.training.few_shot import FewShotResult

SUFFIX = ".safetensors"
LOG = "log.csv"
NOT_BETTER = "{} Nothing was learned that could be saved; go on with the model as it is."
LABELS_OF_FOLDER = "The labels of the images in {} lie beside them; leave labels out."
NO_CHECKPOINT = "A model is saved in a file that ends in {}; use {}."
EXISTS = "{} exists already; give overwrite=True to replace it, or another name."


@dataclass(frozen=True, eq=False)
class Learned:
    """What a model learned from a few objects; made by `learn`.

    Attributes
    ----------
    sentence
        What it brought, in words.
    better
        Whether it is better on objects that were left out; otherwise there is nothing to save.
    model
        The adapted model for a `Predictor`; None if it is not better.
    """

    sentence: str
    better: bool
    model: Model | None
    _result: FewShotResult = field(repr=False)

    @property
    def table(self) -> pd.DataFrame:
        """Mean IoU in percent on objects left out, by prompt, before and after."""
        return frame(self._rows(), ("prompt", "before", "after"))

    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write the model to a file, which `segment`, the command line and the window take.

        Raises
        ------
        ValueError, OSError
            If it is not better, the file exists, or its name does not end in ``.safetensors``.
        """
        if self._result.checkpoint is None:
            raise ValueError(NOT_BETTER.format(self.sentence))
        path = _checked(path, overwrite)
        self._result.checkpoint.save(path)
        return path

    def _rows(self) -> list[dict[str, object]]:
        before, after = self._result.before._asdict(), self._result.after._asdict()
        return [{"prompt": n, "before": before[n], "after": after[n]} for n in before]

    def __repr__(self) -> str:
        """``<Learned from 8 objects: better>``."""
        state = "better" if self.better else "not better"
        return f"<Learned from {self._result.objects} objects: {state}>"

    def _repr_html_(self) -> str:
        """For notebooks: the sentence and the table."""
        table = table_html(self._rows(), ("prompt", "before", "after"))
        return f"<div><p>{html.escape(self.sentence)}</p>{table}</div>"


@dataclass(frozen=True, eq=False)
class Trained:
    """A model that was trained; made by `train`.

    Attributes
    ----------
    path
        Its file, which `segment`, the command line and the window take.
    spec
        Its description, with its metrics.
    """

    path: Path
    spec: ModelSpec
    _folder: Path = field(repr=False)

    @property
    def table(self) -> pd.DataFrame:
        """Mean IoU in percent on the images kept for validation, by prompt, before and after."""
        return frame(self._rows(), ("prompt", "before", "after"))

    @property
    def log(self) -> pd.DataFrame:
        """The course of the training: a row for each step that was logged, or validated."""
        log: pd.DataFrame = pandas_module().read_csv(self._folder / LOG)
        return log

    def _rows(self) -> list[dict[str, object]]:
        before, after = (dict(self.spec.metrics.get(when, {})) for when in ("before", "after"))
        return [{"prompt": n, "before": before[n], "after": after[n]} for n in after]

    def __repr__(self) -> str:
        """``<Trained sensor.safetensors: sensor on tiny-6>``."""
        return f"<Trained {self.path.name}: {self.spec.name} on {self.spec.base.name}>"

    def _repr_html_(self) -> str:
        """For notebooks: the description and the table."""
        table = table_html(self._rows(), ("prompt", "before", "after"))
        return f"<div><p>{html.escape(self.spec.description)}</p>{table}</div>"


def learn(
    image: Any,
    labels: Any = None,
    *,
    model: str | Path = "tiny",
    complete: bool | NDArray[np.bool_] = False,
    axes: str = "",
    channel_axis: int | None = None,
    channel_names: Sequence[str] | None = None,
    channels: Sequence[int | str] | None = None,
    pixel_size: GivenSize = None,
    device: str = "auto",
    progress: ShowProgress = True,
    **settings: Any,
) -> Learned:
    """Adapt a model to images from a few labeled objects in them, in about a minute.

    Parameters
    ----------
    image
        As for `segment`; or a folder of labeled images, STEM.tif and STEM_labels.tif.
    labels
        (..., Y, X) whole numbers, one for each object, 0 where nothing is labeled: an array, a
        file or a napari layer. At least three objects. Of a folder None.
    model
        The model to adapt: a name that `simmat models list` shows, or a model's file.
    complete
        Whether all objects are labeled: everywhere, nowhere for sure, or in a region (Y, X).
    axes, channel_axis, channel_names, channels, pixel_size, progress
        As for `segment`.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    **settings
        Fields of `FewShotConfig`: ``steps``, ``learning_rate``, ``seed``, ...

    Returns
    -------
    Learned
        What it brought on objects left out, and the model if it is better.

    Raises
    ------
    ValueError, TypeError, OSError
        If there are fewer than three objects, or image, labels and model do not fit.

    Examples
    --------
    >>> from napari_simmat import learn, segment
    >>> result = learn(image, labels)
    >>> if result.better:
    ...     segment(image, model=result.save("cells.safetensors"))
    """
    from napari_simmat.training.adapting import FewShotConfig
    from napari_simmat.training.annotations import annotate
    from napari_simmat.training.few_shot import learn_objects_job
    from napari_simmat.training.tries import Tries

    base = load_model(model_reference(model))
    contents: list[LabeledImage]
    folder = Path(image).expanduser() if isinstance(image, (str, Path)) else None
    if folder is not None and folder.is_dir() and labels is None:
        selection = ChannelSelection(channels=channels_of(channels))
        found = find_images(folder, DataConfig(selection=selection))
        contents = [each.read() for each in found]
        tries = Tries.of_folder(folder)
    else:
        about: dict[str, Any] = {"axes": axes, "channel_axis": channel_axis}
        about["channel_names"] = channel_names
        contents = [labeled_image_of(image, labels, "image", **about, pixel_size=pixel_size)]
        tries = None
    planes = []
    for content in contents:
        planes += annotate(content, base.spec, channels=channels, complete=complete)
    tries = tries or Tries.of_planes(plane.values for plane in planes)
    job = learn_objects_job(base, planes, FewShotConfig(**settings), device=device, tries=tries)
    result = shown(job, progress)
    return Learned(result.sentence, result.checkpoint is not None, result.model, result)


def train(
    data: Path | str | Sequence[tuple[Any, Any]],
    output: Path | str,
    *,
    model: str | Path = "tiny",
    channels: Sequence[int | str] | None = None,
    validation: Sequence[tuple[Any, Any]] = (),
    axes: str = "",
    channel_axis: int | None = None,
    channel_names: Sequence[str] | None = None,
    modality: str = "",
    device: str = "auto",
    overwrite: bool = False,
    progress: ShowProgress = True,
    **settings: Any,
) -> Trained:
    """Train a model for the images of a sensor, as `simmat train --practical` does.

    It can be interrupted; the same call goes on where it was.

    Parameters
    ----------
    data
        A folder of labeled images, STEM.tif and STEM_labels.tif; or pairs of an image and its
        labels, each as for `learn`.
    output
        The file of the model, which ends in ``.safetensors``; its stem becomes the model's name.
    model
        The foundation that it is trained on: a name or a file.
    channels
        Those to use, by name or number; all by default.
    validation
        Pairs to measure on; by default some of those in `data`.
    axes, channel_axis, channel_names, progress
        As for `segment`, of all pairs.
    modality
        What the sensor measures; by default the name of the folder or of the model.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    overwrite
        Replace a file that exists.
    **settings
        Fields of `TrainConfig`: ``steps``, ``batch``, ``learning_rate``, ``strategy``, ...

    Returns
    -------
    Trained
        The file, and how much better the model is than its foundation.

    Raises
    ------
    ValueError, TypeError, OSError
        If images, labels and model do not fit, or the file exists.
    ImportError
        Without Lightning Fabric (``pip install lightning-fabric``).
    """
    from napari_simmat.training.devices import Devices
    from napari_simmat.training.finetune import train_checkpoint_job

    path = _checked(output, overwrite)
    base = load_model(model_reference(model))
    config = practical_config(base.spec, **settings)
    wanted = DataConfig(
        modality=modality,
        seed=config.seed,
        selection=ChannelSelection(channels=channels_of(channels)),
    )
    if isinstance(data, (str, Path)):
        dataset = shown(read_folder_job(Path(data).expanduser(), wanted), progress)
    else:
        about: dict[str, Any] = {"axes": axes, "channel_axis": channel_axis}
        about["channel_names"] = channel_names
        pairs = labeled_images_of(data, **about)
        measured = labeled_images_of(validation, "validation", **about)
        dataset = from_arrays(pairs, wanted, name=path.stem, validation=measured)
    folder = path.with_name(f"{path.stem}-training")
    job = train_checkpoint_job(base, dataset, config, path, folder, Devices(device=device))
    return Trained(path, shown(job, progress), folder)


def _checked(path: Path | str, overwrite: bool) -> Path:
    """The path of a model's file; ValueError if it has another ending, or exists."""
    path = Path(path).expanduser()
    if path.suffix != SUFFIX:
        raise ValueError(NO_CHECKPOINT.format(SUFFIX, f"{path.stem}{SUFFIX}"))
    if path.exists() and not overwrite:
        raise ValueError(EXISTS.format(path))
    return path
