"""What channels show: others derived from them, their registration, and how each moves a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_simmat._text import format_list, pluralize
from napari_simmat.engine.channel_matching import GAP
from napari_simmat.engine.masks import Mask, iou
from napari_simmat.engine.prompts import Prompt
from napari_simmat.models.spec import Normalization
from napari_simmat.progress import Job, Progress, with_progress

if TYPE_CHECKING:
    from napari_simmat.engine.predictor import Predictor

CT_WINDOWS = {"soft tissue": (50, 400), "lung": (-600, 1500), "bone": (400, 1800)}
"""Center and width in Hounsfield units, as radiologists usually set them for these tissues."""
NO_COLORS = (
    "{} has a new first projection in place of a transfer layer, so its foundation sees no three "
    "channels; train with another transfer layer, e.g. simmat."
)
WRONG_CHANNELS = "{} needs {}: {}; {} given. Choose them in this order."
NO_FOCAL = (
    "{} needs the focal length of the depth camera in pixels, above 0; a Kinect's is 0.8 to 0.9 of "
    "the width."
)


class Derivation(NamedTuple):
    """Channels that are computed from others, pixel by pixel.

    Attributes
    ----------
    title
        What it computes, for a menu.
    inputs, outputs
        What the given channels are, in this order, and names of the new ones.
    compute
        From arrays (..., Y, X), numpy or dask, to one array for each output.
    needs_focal
        Whether `compute` takes the camera's focal length in pixels after the channels.
    """

    title: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    compute: Callable[..., Sequence[Any]]
    needs_focal: bool = False


def _polarization(*images: Any) -> tuple[Any, Any, Any]:
    """Intensity; angle of linear polarization in degrees, 0..180; degree of it, 0..1.

    By the Stokes parameters: S0 is half the sum of the four images.
    """
    i0, i45, i90, i135 = (image.astype(np.float64) for image in images)
    s0, s1, s2 = (i0 + i45 + i90 + i135) / 2, i0 - i90, i45 - i135
    angle = np.rad2deg(np.arctan2(s2, s1)) / 2 % 180
    return s0, angle, np.minimum(_ratio(np.hypot(s1, s2), s0), 1)


def _ndvi(red: Any, infrared: Any) -> tuple[Any]:
    red, infrared = red.astype(np.float64), infrared.astype(np.float64)
    return (_ratio(infrared - red, infrared + red),)


def _ct_windows(image: Any) -> list[Any]:
    """Each of `CT_WINDOWS` as 0..1."""
    return [
        np.clip((image.astype(np.float64) - center) / width + 0.5, 0, 1)
        for center, width in CT_WINDOWS.values()
    ]


def _hha(depth: Any, focal: float) -> Any:
    """Depth as disparity, height above ground and angle with gravity, (3, ..., Y, X) of 0..255.

    The code of Gupta, Girshick, Arbelaez and Malik (ECCV 2014, arXiv 1407.5736). The camera looks
    along the middle of the image. All three are 0 where there is no reading.
    """
    if not isinstance(depth, np.ndarray):
        whole = depth.rechunk({-2: -1, -1: -1})
        layout = {"new_axis": 0, "chunks": ((3,), *whole.chunks)}
        return whole.map_blocks(_hha, focal, **layout, dtype=np.float64)
    planes = depth.reshape(-1, *depth.shape[-2:])
    coded = [_hha_of_plane(plane, focal) for plane in planes]
    return np.stack(coded, axis=1).reshape(3, *depth.shape)


def _hha_of_plane(depth: NDArray[Any], focal: float) -> NDArray[np.float64]:
    meters = depth / 1000 if depth.dtype.kind in "iu" else depth.astype(np.float64)
    read = np.isfinite(meters) & (meters > 0)
    if not read.any():
        return np.zeros((3, *depth.shape))
    meters = np.where(read, meters, 1)
    middle = (np.array(read.shape).reshape(2, 1, 1) - 1) / 2
    rows, columns = (np.indices(read.shape) - middle) / focal
    rays = np.stack([columns, rows, np.ones(read.shape)])  # x, y, z at a depth of 1
    down = _gravity(_normals(rays, meters, read, 21)[:, read])
    height = -np.tensordot(down, rays * meters, 1)
    lowest = height[read].min()
    if lowest > -0.9:  # no ground in sight: as from a camera held at 1.3 m
        lowest = -1.3
    cosine = np.tensordot(down, _normals(rays, meters, read, 7), 1).clip(-1, 1)
    angle = np.rad2deg(np.arccos(cosine))
    code = np.stack([310 / np.maximum(meters, 1), 100 * (height - lowest), angle + 38])
    return np.where(read, np.rint(code).clip(0, 255), 0)


def _normals(
    rays: NDArray[np.float64], meters: NDArray[np.float64], read: NDArray[np.bool_], side: int
) -> NDArray[np.float64]:
    """Unit normals (3, Y, X), away from the camera, of planes fitted in squares around pixels.

    On a plane, 1 / z is linear in the direction in which a pixel looks; pixels not read have no
    weight.
    """
    from scipy.ndimage import uniform_filter

    def around(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(uniform_filter(values * read, side, mode="constant"))

    products = np.stack([[around(one * other) for one in rays] for other in rays])
    right = np.stack([around(one / meters) for one in rays])
    inverse = np.linalg.pinv(np.moveaxis(products, (0, 1), (-2, -1)), hermitian=True)
    normals = np.einsum("yxij,jyx->iyx", inverse, right)
    length = np.linalg.norm(normals, axis=0)
    return np.asarray(_ratio(normals, length))


def _gravity(normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """The direction down, a unit vector, to which floors (3, N) are parallel and walls across.

    By Gupta, Arbelaez and Malik (CVPR 2013), starting from the image's vertical.
    """
    down = np.array([0.0, 1.0, 0.0])
    for tolerance in np.deg2rad([45] * 5 + [15] * 5):
        cosine = np.abs(down @ normals)
        floor, wall = normals[:, cosine > np.cos(tolerance)], normals[:, cosine < np.sin(tolerance)]
        _, directions = np.linalg.eigh(wall @ wall.T - floor @ floor.T)
        down = np.copysign(1, down @ directions[:, 0]) * directions[:, 0]
    return down


def _ratio(part: Any, whole: Any) -> Any:
    """The quotient, 0 where there is nothing to divide by."""
    return np.where(whole == 0, 0, part / np.where(whole == 0, 1, whole))


DERIVATIONS = {
    "polarization": Derivation(
        "Intensity, AoLP and DoLP of four polarizer angles",
        ("0 deg", "45 deg", "90 deg", "135 deg"),
        ("intensity", "AoLP", "DoLP"),
        _polarization,
    ),
    "ndvi": Derivation(
        "NDVI of red and near infra-red", ("red", "near infra-red"), ("NDVI",), _ndvi
    ),
    "ct-windows": Derivation(
        "CT windows: soft tissue, lung, bone",
        ("CT in Hounsfield units",),
        tuple(CT_WINDOWS),
        _ct_windows,
    ),
    "hha": Derivation(
        "HHA of depth in meters, or in whole millimeters",
        ("depth",),
        ("disparity", "height", "angle"),
        _hha,
        needs_focal=True,
    ),
}
"""For `derive_channels`, the command line and the window."""


def derive_channels(
    kind: str, channels: Sequence[Any], focal: float | None = None
) -> dict[str, Any]:
    """Channels computed from others, by name, as float32.

    Parameters
    ----------
    kind
        A name in `DERIVATIONS`.
    channels
        Arrays (..., Y, X) of the same shape, in the order of its `inputs`; dask stays lazy.
    focal
        Focal length of the camera in pixels, for those that need it.

    Raises
    ------
    ValueError
        If the kind is unknown, the channels are not as many or not of one shape, or the focal
        length is missing or not above 0.
    """
    if kind not in DERIVATIONS:
        known = format_list(list(DERIVATIONS))
        raise ValueError(f"Channels {kind!r} are unknown; use {known}.")
    made = DERIVATIONS[kind]
    if len(channels) != len(made.inputs) or len({each.shape for each in channels}) > 1:
        shapes = len({each.shape for each in channels})
        were = f"{len(channels)} of {pluralize(shapes, 'shape')} were"
        needed = pluralize(len(made.inputs), "channel"), ", ".join(made.inputs)
        raise ValueError(WRONG_CHANNELS.format(kind, *needed, were))
    if made.needs_focal and not 0 < (focal or 0) < np.inf:
        raise ValueError(NO_FOCAL.format(kind))
    values = made.compute(*channels, *([focal] if made.needs_focal else []))
    return {name: each.astype(np.float32) for name, each in zip(made.outputs, values, strict=True)}


class ChannelShift(NamedTuple):
    """What brings a channel onto the reference.

    Attributes
    ----------
    down, right
        Pixels by which its content is to be moved.
    before, after
        Correlation of its edges with those of the reference, -1..1, without and with the shift.
    """

    down: float
    right: float
    before: float
    after: float


def register_channels_job(
    channels: Sequence[NDArray[Any]], reference: int = 0
) -> Job[list[ChannelShift]]:
    """Propose a shift for each channel (Y, X), to a tenth of a pixel, onto the `reference`.

    Sensors see the same edges, not the same values, so magnitudes of gradients are compared, by
    their cross-correlation (`skimage.registration.phase_cross_correlation`, without the
    normalization, which amplifies noise). A shift after which they agree no better is not proposed.
    """
    from skimage.registration import phase_cross_correlation

    fixed = _edges(channels[reference])
    shifts = []
    for done, channel in enumerate(channels):
        yield Progress(done, len(channels), "registering channels")
        edges = _edges(channel)
        before = _correlation(fixed, edges)
        best = ChannelShift(0.0, 0.0, before, before)
        if done != reference and fixed.any() and edges.any():
            (down, right), *_ = phase_cross_correlation(
                fixed, edges, upsample_factor=10, normalization=None
            )
            after = _correlation(fixed, _edges(shift_channel(channel, (down, right))))
            if after > before:
                best = ChannelShift(float(down), float(right), before, after)
        shifts.append(best)
    return shifts


def _edges(channel: NDArray[Any]) -> NDArray[np.float64]:
    """Magnitude of the gradient, zero on average, that fades out towards the border."""
    from scipy.ndimage import gaussian_gradient_magnitude
    from skimage.filters import window

    values = channel.astype(np.float64)
    finite = np.isfinite(values)
    values[~finite] = values[finite].min(initial=0)
    edges = gaussian_gradient_magnitude(values, 1)
    return np.asarray((edges - edges.mean()) * window("hann", edges.shape))


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    whole = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / whole if whole else 0.0


def shift_channel(channel: Any, shift: tuple[float, float]) -> Any:
    """Move the content of a channel (..., Y, X) down and right by so many pixels.

    Values are interpolated linearly and keep their type; border pixels are repeated. Dask stays
    lazy.
    """
    from scipy import ndimage as ndi

    if not isinstance(channel, np.ndarray):
        whole = channel.rechunk({-2: -1, -1: -1})
        return whole.map_blocks(shift_channel, shift, dtype=channel.dtype)
    steps = (*(0.0,) * (channel.ndim - 2), *shift)
    moved = ndi.shift(channel.astype(np.float64), steps, order=1, mode="nearest")
    return (np.rint(moved) if channel.dtype.kind in "iu" else moved).astype(channel.dtype)


def foundation_colors(predictor: Predictor) -> NDArray[np.float32]:
    """What the foundation sees of the current plane: (3, h, w) of standardized values.

    These are the three channels that the transfer layer makes, at the resolution of the network's
    input. ValueError if there are none: baseline A replaces the first projection.
    """
    import torch

    from napari_simmat.engine.coordinates import InputTransform
    from napari_simmat.engine.device import network_input
    from napari_simmat.models.transfer import BaselineA, Projected

    stack, spec = predictor.stack, predictor.model.spec
    layer = predictor.model.network.projection
    if isinstance(layer, BaselineA):
        raise ValueError(NO_COLORS.format(spec.name))
    transform = InputTransform.of(stack.shape[-2:], spec.input_size, stack.pixel_size)
    values = network_input(spec, stack.normalized(predictor.plane), transform)
    values = values.to(layer.weight.device)
    with torch.no_grad():
        colors = layer.colors(values) if isinstance(layer, Projected) else values
    height, width = transform.resized
    return np.asarray(colors[0, :, :height, :width].cpu().numpy())


class ChannelInfluence(NamedTuple):
    """A channel of the image in one object, and what it does for the object's mask.

    Attributes
    ----------
    channel
        Its name.
    mean, std
        Of its raw values inside the mask; the means of all channels are the object's spectrum.
    influence
        1 minus the IoU of the masks with and without the channel: 0 if the mask stays the same
        without it, 1 if nothing of it stays.
    """

    channel: str
    mean: float
    std: float
    influence: float


def channel_influence_job(
    predictor: Predictor, prompts: Sequence[Prompt]
) -> Job[list[list[ChannelInfluence]]]:
    """How each channel of the current plane moves the mask that a user gets for each prompt.

    One channel after the other is hidden, each of its pixels gets its mean over the plane, and the
    plane is encoded and predicted again: one encoding for each channel (occlusion; Zeiler and
    Fergus, arXiv 1311.2901). The predictor stays as it is.
    """
    from napari_simmat.engine.embeddings import EmbeddingCache
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.refinement import Refiner

    stack, model = predictor.stack, predictor.model
    values = stack.normalized(predictor.plane).astype(np.float32)
    raw = stack.plane(predictor.plane)
    spec = replace(model.spec, normalization=Normalization(method="none"))
    how = asdict(predictor.compute)
    hiding = Predictor(replace(model, spec=spec), cache=EmbeddingCache(0), **how)
    # A repeated channel is hidden as a whole, one that lacks is hidden already.
    hidden = [each for each in dict.fromkeys(stack.selection) if each != GAP]
    masks: list[list[Mask]] = []
    for done, source in enumerate([None, *hidden]):
        here = Progress(done, len(hidden) + 1, "hiding one channel after the other")
        shown = values.copy()
        for number in (n for n, each in enumerate(stack.selection) if each == source):
            shown[number] = values[number].mean()
        job = hiding.set_image_job(shown, 0, pixel_size=stack.pixel_size)
        yield from with_progress(job, here)
        results = yield from with_progress(Refiner().refine_job(hiding, prompts, ()), here)
        masks.append([result.mask for result in results])
    return [
        [
            ChannelInfluence(
                stack.names[stack.selection.index(source)],
                *mean_and_std(raw[stack.selection.index(source)], whole),
                1 - iou(whole, without),
            )
            for source, without in zip(hidden, others, strict=True)
        ]
        for whole, *others in zip(*masks, strict=True)
    ]


def mean_and_std(values: NDArray[Any], mask: Mask) -> tuple[float, float]:
    """Of the finite values (Y, X) inside a mask; NaN if there are none."""
    inside = values[mask].astype(np.float64)
    inside = inside[np.isfinite(inside)]
    if not inside.size:
        return float("nan"), float("nan")
    return float(inside.mean()), float(inside.std())
