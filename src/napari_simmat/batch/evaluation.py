"""Measure a model, or the labels of any program, with one call: `evaluate`.

It does what `simmat evaluate` does, with the same figures.
"""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_simmat._text import pluralize
from napari_simmat.batch.given_image import channels_of, labeled_images_of, settings_of
from napari_simmat.batch.shown import ShowProgress, frame, shown, table_html
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.checkpoints.registry import model_reference
from napari_simmat.datasets.folder import LabeledFile, find_labeled_files
from napari_simmat.datasets.label_folder import check_complete, match_label_files
from napari_simmat.datasets.labeled_image import LabeledImage
from napari_simmat.engine.settings import AutomaticSettings, ChannelSelection, Compute
from napari_simmat.evaluation.scores import EvaluationPromptKind, ScoreConfig, Scores

if TYPE_CHECKING:
    import pandas as pd

LABELS_NEED_FILES = (
    "Labels of another program are compared with the files of a folder; give the folder of the "
    "images with their true labels instead of pairs."
)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good a model, or the labels of a program, are; made by `evaluate`.

    Attributes
    ----------
    subject
        The model's name, or the folder of the labels.
    figures
        The means over the images, each with equal weight, by column.
    seconds
        How long it took.
    """

    subject: str
    figures: Mapping[str, float]
    seconds: float
    _scores: Scores = field(repr=False)

    @property
    def table(self) -> pd.DataFrame:
        """A row for each image, with the mean over its objects; 0 to 1."""
        return frame(self._rows())

    @property
    def objects(self) -> pd.DataFrame:
        """A row for each object, or for each plane that was segmented as a whole."""
        return frame([row for image in self._scores.images for row in image.rows])

    def _rows(self) -> list[dict[str, object]]:
        return [{"image": i.name, **i.counts, **i.headline} for i in self._scores.images]

    def __repr__(self) -> str:
        """``<Evaluation of tiny-6: 2 images, click 0.71, box 0.84>``."""
        images = pluralize(len(self._scores.images), "image")
        means = ", ".join(f"{name} {value:.2f}" for name, value in self._scores.headline.items())
        return f"<Evaluation of {self.subject}: {images}, {means}>"

    def _repr_html_(self) -> str:
        """For notebooks: the means and the first rows of the table."""
        rows = self._rows()
        return f"<div><p>{html.escape(repr(self))}</p>{table_html(rows, list(rows[0]))}</div>"


@dataclass(frozen=True)
class _GivenPair(LabeledFile):
    """A labeled image that is in memory in place of files."""

    content: LabeledImage | None = None

    def read(self) -> LabeledImage:
        """The image."""
        assert self.content is not None
        return self.content.read()


def evaluate(
    data: Path | str | Sequence[tuple[Any, Any]],
    *,
    model: str | Path = "tiny",
    labels: Path | str | None = None,
    prompts: EvaluationPromptKind = "all",
    clicks: int = 4,
    min_size: int = 0,
    max_objects: int | None = None,
    channels: Sequence[int | str] | None = None,
    axes: str = "",
    channel_axis: int | None = None,
    channel_names: Sequence[str] | None = None,
    automatic: AutomaticSettings | None = None,
    compute: Compute | None = None,
    output: Path | str | None = None,
    progress: ShowProgress = True,
) -> Evaluation:
    """Measure a model, or the labels of any program, on labeled images.

    Parameters
    ----------
    data
        A folder of labeled images, STEM.tif and STEM_labels.tif; or pairs of an image and its
        labels, each as for `learn`.
    model
        A name that `simmat models list` shows, or a model's file.
    labels
        A folder of label images that another program wrote, to measure in place of the model.
    prompts
        ``"click"``, ``"box"``, ``"iterative"`` (a click and its corrections), ``"all"`` of these,
        ``"paper"``; ``"auto"`` segments everything and compares with all objects.
    clicks
        Clicks per object, with corrections: 1 to 20.
    min_size
        Only objects of more pixels than this, if their plane had 1024 x 1024.
    max_objects
        Objects of each image, spread evenly; all by default.
    channels, axes, channel_axis, channel_names, automatic, compute, progress
        As for `segment`.
    output
        A folder for a picture of each image, STEM_overlay.png; none by default.

    Returns
    -------
    Evaluation
        Figures of each image and object, 0 to 1.

    Raises
    ------
    ValueError, TypeError, OSError
        If an image cannot be used, or there is no object to measure on.

    Examples
    --------
    >>> from napari_simmat import evaluate
    >>> evaluate([(image, labels)], model="tiny", prompts="box").figures["box"]
    """
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.evaluation.evaluate import evaluate_job
    from napari_simmat.evaluation.evaluate_labels import evaluate_labels_job

    start = time.monotonic()
    selection = ChannelSelection(channels=channels_of(channels))
    folder = None if output is None else Path(output).expanduser()
    if isinstance(data, (str, Path)):
        files: list[LabeledFile] = find_labeled_files(Path(data).expanduser())
    else:
        about: dict[str, Any] = {"axes": axes, "channel_axis": channel_axis}
        about["channel_names"] = channel_names
        pairs = labeled_images_of(data, **about)
        files = [_GivenPair(p.name, Path(p.name), Path(p.name), content=p) for p in pairs]
    if labels is not None:
        if not isinstance(data, (str, Path)):
            raise ValueError(LABELS_NEED_FILES)
        others = Path(labels).expanduser()
        found = match_label_files(others, files)
        check_complete(others, found, files)
        job = evaluate_labels_job(
            files, found, {}, min_size=min_size, selection=selection, output=folder
        )
        subject = str(labels)
    else:
        config = ScoreConfig(
            prompts=prompts,
            clicks=clicks,
            min_size=min_size,
            max_objects=max_objects,
            selection=selection,
            automatic=settings_of(automatic, AutomaticSettings),
        )
        given = settings_of(compute, Compute)
        predictor = Predictor(load_model(model_reference(model)), **asdict(given))
        job = evaluate_job(predictor, files, config, folder)
        subject = predictor.model.spec.name
    scores = shown(job, progress)
    return Evaluation(subject, scores.over_images, time.monotonic() - start, scores)
