"""Train a modality checkpoint: labeled planes and a foundation in, the best network out.

The network is validated while it trains, and compared with its base afterwards.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from torch import Tensor

from napari_simmat._text import pluralize
from napari_simmat.checkpoints.checkpoint import read_spec, read_tensors, save_checkpoint
from napari_simmat.datasets.dataset import Dataset, Sample
from napari_simmat.datasets.labeled_image import resize_nearest
from napari_simmat.engine.masks import Window, iou, label_windows
from napari_simmat.engine.predictor import Predictor
from napari_simmat.evaluation.metrics import dice
from napari_simmat.evaluation.prompting import UserProtocol
from napari_simmat.models.network import Encoded, Network
from napari_simmat.models.spec import (
    InputSize,
    IoUCalibration,
    Model,
    ModelSpec,
    Normalization,
)
from napari_simmat.models.transfer import MAT, Projected
from napari_simmat.models.tuning import STRATEGIES, build_network, tune
from napari_simmat.progress import Job, Progress
from napari_simmat.training.batches import (
    MAX_OBJECT_SHARE,
    Batches,
    LabeledPlane,
    LabeledPlanes,
    as_rgb,
    equal_parts,
    halve_until_fits,
    pad_image,
    round_up,
)
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.losses import TrainingModule, to_mask_grid
from napari_simmat.training.trainer import (
    BEST_FILE,
    Devices,
    RunFolder,
    Trainer,
    is_first_process,
    read_state,
    settings_in,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MAX_PLANES = 24
OBJECTS_PER_PLANE = 12
"""Planes compared, and objects of each, spread evenly."""
MAX_PIXELS = 2**25
"""Pixels of large planes compared, so that this takes less time than the training."""
DECODED_AT_ONCE = 16
MIN_CALIBRATED = 20
"""Masks of a validation to which the predicted IoU is fitted."""


@dataclass
class ValidationScores:
    """IoU and Dice of each object, 0..1, in order."""

    ious: list[float] = field(default_factory=list)
    dices: list[float] = field(default_factory=list)

    @property
    def iou(self) -> float:
        """Mean over the objects."""
        return float(np.mean(self.ious))


def validate_network_job(
    network: Network, planes: LabeledPlanes, side: int, max_objects: int = 400
) -> Job[ValidationScores]:
    """Prompt objects as the paper does: one click each, the single mask, on the mask's grid.

    The click is the middle one of the object's pixels in row-major order (arXiv 2409.08083,
    authors' evaluation). A native network sees the object as in training: at the level at which it
    fits, in a part of the plane of at most `side` pixels. About `max_objects` are prompted, one of
    each plane at least; 0 for all. The network is used in evaluation mode, then put back into its
    mode.
    """
    reached, was = ValidationScores(), network.training
    network.eval()
    native = planes.native
    total = sum(len(planes[index].objects) for index in range(len(planes)))
    share = max_objects / total if max_objects and total else 1.0
    try:
        for index in range(len(planes)):
            plane = planes[index]
            count = len(plane.objects)
            kept = min(count, max(1, round(count * share)))  # spread evenly, at least one
            objects = [plane.objects[number * count // kept] for number in range(kept)]
            for level, labels in _levels_for_objects(plane, objects, side, native):
                for part, seen in _parts(level, labels, side if native else None):
                    _measure(network, part, seen, reached, native)
            yield Progress(index + 1, len(planes), "validating")
    finally:
        network.train(was)
    return reached


def compare_with_base_job(
    base: Model,
    spec: ModelSpec,
    network: Network,
    dataset: Dataset,
    samples: Sequence[Sample],
    device: str,
) -> Job[tuple[dict[str, dict[str, float]], IoUCalibration | None]]:
    """Mean IoU in percent of a click and of a box, ``before`` with the base and ``after``.

    Also the calibration of the IoU that the trained network predicts (`fit_calibration`).
    Both networks get the data set's normalized values as in the window, at all scales; the base
    without transfer layer gets three channels (`as_rgb`). Each of the `samples` holds an object;
    `spec` and `network` are the checkpoint's.
    """
    given = Normalization(method="none")
    models = {
        "before": Model(replace(base.spec, normalization=given), base.network, "before"),
        "after": Model(replace(spec, normalization=given), network, "after"),
    }
    predictors = {name: Predictor(model, device) for name, model in models.items()}
    reached: dict[str, dict[str, list[float]]] = {
        name: {"click": [], "box": []} for name in predictors
    }
    predicted: list[float] = []
    true: list[float] = []
    values, labels = samples[0].load()
    count = min(len(samples), MAX_PLANES, max(2, MAX_PIXELS // labels.size))
    for done in range(count):
        sample = samples[done * len(samples) // count]
        if done:
            values, labels = sample.load()
        objects = dataset.regions(labels)
        objects = objects[:: -(-len(objects) // OBJECTS_PER_PLANE)]
        for name, predictor in predictors.items():
            rgb = models[name].spec.transfer == "zeroshot"
            given_values = values[as_rgb(len(values))] if rgb else values
            yield from predictor.set_image_job(given_values, 0)
            scores = yield from UserProtocol(clicks=1).score_job(predictor, labels, objects)
            for kind, ious in reached[name].items():
                ious += [score.iou[kind] for score in scores]
                if name == "after":
                    predicted += [score.predicted[kind] for score in scores]
                    true += [score.iou[kind] for score in scores]
        yield Progress(done + 1, count, f"comparing on {sample.name}")
    means = {
        name: {kind: round(100 * float(np.mean(ious)), 2) for kind, ious in kinds.items()}
        for name, kinds in reached.items()
    }
    return means, fit_calibration(np.array(predicted), np.array(true))


def fit_calibration(
    predicted: NDArray[np.float64], true: NDArray[np.float64]
) -> IoUCalibration | None:
    """The calibration of predicted IoUs (N,) to the true ones, by least squares.

    None for fewer than `MIN_CALIBRATED` masks.
    """
    if len(predicted) < MIN_CALIBRATED:
        return None

    def calibration(values: NDArray[np.float64]) -> IoUCalibration:
        return IoUCalibration(slope=float(values[0]), offset=float(values[1]))

    fit = least_squares(
        lambda values: calibration(values).apply(predicted) - true,
        (1.0, 0.0),
        bounds=((0.05, -10), (20, 10)),
    )
    return calibration(fit.x)


def protocol_mask(
    network: Network, plane: LabeledPlane, label: int, side: int, native: bool
) -> tuple[NDArray[np.bool_], tuple[float, float]]:
    """The mask (H, W) of the protocol's click on one object, and the click (y, x)."""
    ((level, _),) = _levels_for_objects(plane, [label], side, native)
    encoded = _encoded(network, level, native)
    masks, clicks = _masks(network, encoded, level, [label])
    stride, (height, width) = network.mask_stride, level.labels.shape
    seen = masks[0].repeat(stride, axis=0).repeat(stride, axis=1)[:height, :width]
    x, y = clicks[0].tolist()
    factor = plane.labels.shape[0] / height
    whole = resize_nearest(seen, (plane.labels.shape[0], plane.labels.shape[1]))
    return whole, ((y + 0.5) * factor - 0.5, (x + 0.5) * factor - 0.5)


def _measure(
    network: Network,
    plane: LabeledPlane,
    labels: list[int],
    reached: ValidationScores,
    native: bool,
) -> None:
    encoded = _encoded(network, plane, native)
    for start in range(0, len(labels), DECODED_AT_ONCE):
        some = labels[start : start + DECODED_AT_ONCE]
        masks, _ = _masks(network, encoded, plane, some)
        for mask, label in zip(masks, some, strict=True):
            own = torch.from_numpy(plane.labels == label)
            truth = to_mask_grid(own[None], network.mask_stride)[0, 0].numpy() > 0
            seen = mask[: truth.shape[0], : truth.shape[1]]
            reached.ious.append(iou(seen, truth))
            reached.dices.append(dice(seen, truth))


@torch.no_grad()
def _encoded(network: Network, plane: LabeledPlane, native: bool) -> Encoded:
    image = plane.image
    if native:
        image = pad_image(image, round_up(image.shape[1]), round_up(image.shape[2]))
    return network.encode(image[None].to(network.projection.weight.device))


@torch.no_grad()
def _masks(
    network: Network, encoded: Encoded, plane: LabeledPlane, labels: list[int]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Masks (N, h, w) on the grid for clicks on N objects, and the clicks (N, 2) as x, y."""
    middles = []
    for label in labels:
        places = np.flatnonzero(plane.labels == label)
        y, x = divmod(int(places[len(places) // 2]), plane.labels.shape[1])
        middles.append((x, y))
    clicks = np.array(middles, np.float32)
    points = torch.tensor(clicks, device=encoded.embedding.device)[:, None]
    points = torch.cat([points, torch.zeros_like(points)], dim=1)
    kinds = torch.tensor([[1, -1]] * len(labels), device=points.device)
    logits, _ = network.decode_batch(encoded, points, kinds)
    return (logits[:, 0] > 0).cpu().numpy(), clicks


def _levels_for_objects(
    plane: LabeledPlane, objects: list[int], side: int, native: bool
) -> Iterator[tuple[LabeledPlane, list[int]]]:
    """The plane at the levels that its objects need, each with those objects."""
    if not native:
        yield plane, objects
        return
    boxes = dict(label_windows(plane.labels))
    groups: dict[tuple[int, ...], tuple[LabeledPlane, list[int]]] = {}
    for label in objects:
        fits = max(length.stop - length.start for length in boxes[label]) <= MAX_OBJECT_SHARE * side
        level = plane if fits else halve_until_fits(plane, label, side)[0]
        groups.setdefault(level.labels.shape, (level, []))[1].append(label)
    yield from groups.values()


def _parts(
    plane: LabeledPlane, objects: list[int], side: int | None
) -> Iterator[tuple[LabeledPlane, list[int]]]:
    """Parts of a plane of at most `side` pixels a side, each with the objects that it shows.

    So the cost of a validation depends on its objects, not on the size of the planes.
    """
    if side is None or max(plane.labels.shape) <= side:
        yield plane, objects
        return
    boxes, left, shape = dict(label_windows(plane.labels)), list(objects), plane.labels.shape
    margin = int((1 - MAX_OBJECT_SHARE) / 2 * side)  # around an object that just fits

    def contains(part: Window, box: Window) -> bool:
        """Whether a box lies in a part, away from edges inside the plane."""
        return all(
            seen.start <= max(length.start - margin, 0)
            and min(length.stop + margin, whole) <= seen.stop
            for seen, length, whole in zip(part, box, shape, strict=True)
        )

    while left:
        window = _part_at(boxes[left[0]], shape, side, margin)
        if not (plane.labels[window] == left[0]).any():  # too long, and too thin to be halved
            rows, columns = np.nonzero(plane.labels == left[0])
            y, x = int(rows[len(rows) // 2]), int(columns[len(rows) // 2])
            window = _part_at((slice(y, y + 1), slice(x, x + 1)), shape, side, margin)
        shown = [left[0], *(n for n in left[1:] if contains(window, boxes[n]))]
        left = [label for label in left if label not in shown]
        image = plane.image[:, window[0], window[1]]
        yield LabeledPlane(plane.name, image, plane.labels[window], tuple(shown)), shown


def _part_at(box: Window, shape: tuple[int, ...], side: int, margin: int) -> Window:
    """The part of a plane of at most `side` pixels a side with a box in its upper left corner.

    As objects are numbered by rows, others often lie to the right and below.
    """
    rows, columns = (
        max(min(length.start - margin, whole - side), 0)
        for length, whole in zip(box, shape, strict=True)
    )
    return slice(rows, rows + side), slice(columns, columns + side)


ROWS = 200
"""Approximate number of training rows in a run's log."""


@dataclass(frozen=True)
class TrainedModel:
    """The best network of a training run, in evaluation mode.

    The metrics of `spec` are the best validation, mean IoU in percent, and its step; `validation`
    are the validation samples that hold an object.
    """

    student: TrainableNetwork
    spec: ModelSpec
    validation: tuple[Sample, ...]
    fabric: Fabric


def train_checkpoint_job(
    base: Model,
    dataset: Dataset,
    config: TrainConfig,
    output: Path,
    folder: Path,
    devices: Devices | None = None,
) -> Job[ModelSpec]:
    """Train a checkpoint (`train_job`) and write the best one to `output`; returns its description.

    The metrics are mean IoU in percent on the validation planes: of the best validation, and of a
    click and a box, ``before`` with the base alone and ``after``.

    Raises
    ------
    ValueError, OSError
        See `train_job`. The best checkpoint so far stays in `folder`.
    """
    trained = yield from train_job(base, dataset, config, output.stem, folder, devices)
    spec, student, fabric = trained.spec, trained.student, trained.fabric
    if fabric.is_global_zero:
        compared, calibration = yield from compare_with_base_job(
            base, spec, student.network, dataset, trained.validation, str(fabric.device)
        )
        metrics = {**spec.metrics, **compared}
        if config.auxiliary:  # the prediction was trained along, and is no worse as it is
            calibration = None
        spec = replace(spec, metrics=metrics, iou_calibration=calibration)
        student._replace(spec=spec).save(output, metrics)
    fabric.barrier()
    return spec


def train_job(
    base: Model,
    dataset: Dataset,
    config: TrainConfig,
    name: str,
    folder: Path,
    devices: Devices | None = None,
) -> Job[TrainedModel]:
    """Train a network for a data set's modality on `base`; returns it at its best validation.

    Parameters
    ----------
    base
        A foundation.
    dataset
        Provides training and validation planes.
    config
        Settings.
    name
        The model's name.
    folder
        Holds the state, from which an interrupted training resumes with the same bits; the best
        checkpoint so far; ``log.csv``. A file called ``stop`` in it ends the training early. All
        nodes have to see it.
    devices
        Where to compute; by default on one device, a GPU if there is one.

    Raises
    ------
    ValueError
        If data, base and settings do not fit together, the folder holds another training, or the
        training diverges.
    OSError
        If the disk is full; what was saved before is kept.
    """
    devices = devices or Devices()
    config = _resolved(config, folder, devices)
    learner = make_trainable(base, dataset, config, name)
    # The heads of the predicted quality and of the other masks are not part of every loss.
    heads = learner.network.mask_decoder.iou_prediction_head.parameters()
    fabric = devices.fabric(config.precision, partly=any(p.requires_grad for p in heads))
    side = config.side_for(base.spec)
    train = LabeledPlanes(dataset, dataset.train, learner.spec, side)
    validation = LabeledPlanes(dataset, dataset.validation, learner.spec, side)
    yield from train.scan_job("train on")
    yield from validation.scan_job("validate on")
    words = (
        f"{dataset.modality}: transfer layer {config.transfer}, {config.strategy} on "
        f"{base.spec.name}, trained on {pluralize(len(train), 'labeled plane')} of {dataset.name}."
    )
    learner = learner._replace(spec=replace(learner.spec, description=words))
    run_folder = RunFolder(folder) if is_first_process() else None
    try:
        settings = {**asdict(config), "base": learner.spec.base.sha256}
        settings["data"] = {  # tells data sets apart
            "channels": [asdict(channel) for channel in dataset.channels],
            "train": [sample.name for sample in dataset.train],
            "validation": [sample.name for sample in dataset.validation],
            "min_size": dataset.min_size,
            "content": [train.digest, validation.digest],
        }
        state = read_state(folder, settings, needs=BEST_FILE)
        fabric.launch()
        tuning = FineTuning(learner, config, config.total(len(train)), validation)
        trainer = tuning.trainer(Batches(train, config), fabric, run_folder, settings)
        if state is not None:
            trainer.restore(state)
        if run_folder is not None:
            run_folder.resume_from(-1 if state is None else trainer.step)
        if state is None:
            yield from trainer.measure_job()
        else:
            yield Progress(trainer.step, trainer.total, f"resuming at step {trainer.step}")
        yield from trainer.run_job()
        fabric.barrier()
        learner.load(read_tensors(folder / BEST_FILE))
        learner.network.eval()
        spec = replace(learner.spec, metrics=read_spec(folder / BEST_FILE).metrics)
        return TrainedModel(learner, spec, validation.samples, fabric)
    finally:
        if run_folder is not None:
            run_folder.close()


class FineTuning:
    """What fine-tuning keeps beside the weights: how good the best validation was.

    Parameters
    ----------
    student
        Its best state is written to the run's folder.
    config, total
        Settings; optimizer steps in all.
    validation
        Planes, after `LabeledPlanes.scan_job`.
    """

    def __init__(
        self, student: TrainableNetwork, config: TrainConfig, total: int, validation: LabeledPlanes
    ) -> None:
        self.student, self.config, self.total, self.validation = student, config, total, validation
        self.best_iou, self.stale = -1.0, 0

    def trainer(
        self,
        batches: Batches,
        fabric: Fabric,
        folder: RunFolder | None,
        settings: Mapping[str, Any],
    ) -> Trainer:
        """A trainer on a launched `fabric`; the folder is None in processes that write nothing."""
        config, total = self.config, self.total
        trained = [p for p in self.student.network.parameters() if p.requires_grad]
        count = fabric.world_size * config.accumulate
        return Trainer(
            module=TrainingModule(self.student.network, config.auxiliary, config.smoothing),
            optimizer=torch.optim.Adam(trained, lr=config.learning_rate),
            fabric=fabric,
            folder=folder,
            settings=settings,
            total=total,
            seed=config.seed,
            rate=lambda step: config.rate(step, total),
            batch=lambda step, part: batches.batch(step, part).to(fabric.device),
            parts=equal_parts(config.batch, count)[fabric.global_rank :: fabric.world_size],
            state=self.state,
            load=self.load,
            log=self.log,
            log_every=max(1, total // ROWS),
            validate_job=self.validate_job,
            due=config.validations(total),
            # The last validations brought no improvement.
            is_finished=lambda: bool(config.patience) and self.stale >= config.patience,
        )

    def validate_job(self, trainer: Trainer) -> Job[tuple[str, dict[str, float]]]:
        """Validate; write the checkpoint if it is the best so far."""
        value, folder = 0.0, trainer.folder
        if folder is not None:
            planes, count = self.validation, self.config.validation_objects
            measured = yield from validate_network_job(
                self.student.network, planes, planes.side, count
            )
            value = measured.iou
        value = trainer.fabric.broadcast(value)
        if value > self.best_iou:
            self.best_iou, self.stale = value, 0
            if folder is not None:
                reached = {"validation": {"click": round(100 * value, 2)}, "step": trainer.step}
                self.student.save(folder.path / BEST_FILE, reached)
        else:
            self.stale += 1
        return f"validation IoU {100 * value:.1f} %", self._row(trainer, validation_iou=100 * value)

    def log(self, trainer: Trainer, rate: float, means: Mapping[str, float]) -> dict[str, float]:
        """Write a row; the mean IoU of the single mask, 0..1, is logged in percent."""
        figures = {"learning_rate": rate, "loss": means["loss"], "train_iou": 100 * means["iou"]}
        return self._row(trainer, **figures)

    def state(self) -> dict[str, Any]:
        """The trained tensors, and how good the best validation was."""
        tensors = self.student.tensors()
        return {"tensors": tensors, "best_iou": self.best_iou, "stale": self.stale}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.student.load(state["tensors"])
        self.best_iou, self.stale = state["best_iou"], state["stale"]

    def _row(self, trainer: Trainer, **figures: float) -> dict[str, float]:
        epoch = round(trainer.step * self.config.epochs / self.total, 3)
        row: dict[str, float] = {"step": trainer.step, "epoch": epoch}
        # NaN and infinity, as in a run that diverges, stay empty.
        row |= {n: float(f"{v:.6g}") for n, v in figures.items() if math.isfinite(v)}
        if trainer.folder is not None:
            trainer.folder.log(row)
        return row


class TrainableNetwork(NamedTuple):
    """A network, whose trained parameters require a gradient, and the content of its checkpoint.

    Attributes
    ----------
    spec
        Description without metrics.
    network
        The network.
    names
        State-dict names of the checkpoint's tensors.
    """

    spec: ModelSpec
    network: Network
    names: tuple[str, ...]

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the checkpoint's current tensors."""
        state = self.network.state_dict()
        return {name: state[name].detach().cpu().clone() for name in self.names}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set some of the network's tensors."""
        self.network.load_state_dict({**self.network.state_dict(), **tensors})

    def save(self, path: Path, metrics: Mapping[str, Any]) -> None:
        """Write the network's current state as a checkpoint."""
        spec, whole = replace(self.spec, metrics=metrics), STRATEGIES[self.spec.strategy].whole
        save_checkpoint(path, spec, self.tensors(), bundled=whole)


def make_trainable(
    base: Model, dataset: Dataset, config: TrainConfig, name: str
) -> TrainableNetwork:
    """The base with a new transfer layer and strategy, initialized by the seed.

    Raises
    ------
    ValueError
        If the base is not a foundation, or the channels do not suit the transfer layer.
    """
    below = base.spec
    if below.transfer != "zeroshot" or below.strategy != "frozen":
        raise ValueError(
            f"{below.name} is a modality checkpoint, not a foundation; train on its base, "
            f"{below.base.name}."
        )
    channels = 3 if config.transfer == "zeroshot" else len(dataset.channels)
    torch.manual_seed(config.seed)
    network = build_network(below.base.architecture, channels=channels, transfer=config.transfer)
    layer = network.projection
    if not STRATEGIES[config.strategy].whole:
        # The transfer layer stays new, except for what it takes over from the base's projection.
        own = set() if isinstance(layer, Projected) else network.transfer_names()
        fits = {n: w for n, w in base.network.state_dict().items() if n not in own}
        network.load_state_dict({**network.state_dict(), **fits})
        if isinstance(layer, Projected):
            layer.start_from_base()
    if config.start == "zeroshot" and isinstance(layer, MAT):
        layer.pass_on(as_rgb(channels), *_as_base_expects(below, dataset))
    tuned = tune(network, config.strategy, config.size)
    network.recompute = config.recompute
    network.to(memory_format=torch.channels_last)
    size = below.input_size
    spec = replace(
        below,
        name=name,
        modality=dataset.modality,
        # Without a transfer layer the base's channels, as its weights expect them.
        channels=below.channels if config.transfer == "zeroshot" else dataset.channels,
        normalization=dataset.normalization,
        # SAM's input is stretched, as in the paper; an embedded base takes images at their size.
        input_size=size if size.method == "native" else InputSize(method="stretch", size=size.size),
        transfer=config.transfer,
        strategy=config.strategy,
        strategy_size=tuned.size,
        mask_choice="single",
        description="",  # until it is known which planes are trained on
        training={n: list(v) if isinstance(v, tuple) else v for n, v in asdict(config).items()},
        metrics={},
        license="",
        author="",
        date=datetime.date.today().isoformat(),
    )
    return TrainableNetwork(spec, network, tuned.names)


def _resolved(config: TrainConfig, folder: Path, devices: Devices) -> TrainConfig:
    """The settings with a definite precision: a resumed training keeps the one it began with."""
    multiple = devices.processes * config.accumulate
    if config.batch % multiple:
        raise ValueError(
            f"A batch of {config.batch} cannot be divided among {devices.processes} devices in "
            f"{config.accumulate} parts each; choose a multiple of {multiple}."
        )
    if config.precision != "auto":
        return config
    begun = settings_in(folder).get("precision")
    return replace(config, precision=begun or devices.precision("auto"))


def _as_base_expects(below: ModelSpec, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Scale and shift (3,) from values standardized for the data set to those for the base."""
    taken = as_rgb(len(dataset.channels))
    range_ = below.normalization.scale / dataset.normalization.scale
    ours = [dataset.channels[index] for index in taken]
    pairs = list(zip(ours, below.channels, strict=True))
    scale = torch.tensor([range_ * our.std / base.std for our, base in pairs])
    shift = torch.tensor([(range_ * our.mean - base.mean) / base.std for our, base in pairs])
    return scale, shift
