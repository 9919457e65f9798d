"""Packages of BioImage.IO: `export_package_job` writes a model, `import_package_job` reads it.

BioImage.IO describes functions of tensors. Of a SimMAT model it can express one prompt on one
plane: an image and a box give a mask (`BoxPromptedNetwork`). It cannot express that an image is
encoded once for many clicks, that clicks refine a mask, that objects are followed through a stack,
that everything is segmented, or that 8-bit values are left as they are while others are scaled.

Needs `bioimageio.spec` to write. Nothing of a package that is read is executed: its weights are
tensors alone, and its description is text.
"""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_simmat import __version__
from napari_simmat.checkpoints.checkpoint import read_description, save_checkpoint
from napari_simmat.checkpoints.library import import_file_job
from napari_simmat.checkpoints.loading import assemble_job
from napari_simmat.checkpoints.registry import ModelEntry, find_model
from napari_simmat.checkpoints.sam_weights import read_sam_weights
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.result import Result
from napari_simmat.io.files import atomic_write, models_folder, sha256_of
from napari_simmat.models.spec import ModelSpec, Normalization
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import Job, Progress, finish

NEEDS_LIBRARY = (
    "Packages of BioImage.IO need the package bioimageio.spec; install it "
    "(pip install bioimageio.spec pyyaml)."
)
DESCRIPTION = "rdf.yaml"
SUFFIX = ".bioimageio.zip"
_WEIGHTS, _DOCUMENT = "weights.pt", "README.md"
_MOST_TEXT = 1 << 24
_SIDE = 256
"""Side of the test image, where the network does not ask for another."""
_LIMITS = (
    "BioImage.IO can express one box on one plane. It cannot express clicks that refine a mask, an "
    "image that is encoded once for many prompts, objects that are followed through a stack, or "
    "segmenting everything: use napari-simmat for these."
)


class BoxPromptedNetwork(nn.Module):
    """A SimMAT network as a function of an image and a box; the parameters are random at first.

    Parameters
    ----------
    description
        What `ModelSpec.to_json` returns.
    """

    def __init__(self, description: str) -> None:
        super().__init__()
        self.spec = spec = read_description(description)
        self.model = build_network(
            spec.base.architecture,
            channels=len(spec.channels),
            transfer=spec.transfer,
            strategy=spec.strategy,
            size=spec.strategy_size or None,
        ).requires_grad_(False)

    @torch.no_grad()
    def forward(self, image: Tensor, box: Tensor) -> Tensor:
        """Segment what a box encloses.

        Parameters
        ----------
        image
            (1, C, Y, X), standardized; sides as the description of the package demands.
        box
            (1, 4): y0, x0, y1, x1 in pixels, half-open.

        Returns
        -------
        (1, 1, Y, X) logits of the mask
        """
        height, width = image.shape[-2:]
        frame = InputTransform.of((height, width), self.spec.input_size)
        encoded = finish(self.model.encode_job(image.float()))
        y0, x0, y1, x1 = box[0].tolist()
        corners = torch.tensor(frame.box_to_input((y0, x0, y1, x1)), device=image.device)
        decoded = self.model.decode(encoded, {"box": corners})
        decoded = decoded._replace(
            logits=decoded.logits.cpu(), predicted_iou=decoded.predicted_iou.cpu()
        )
        result = Result(decoded, frame, self.model.mask_stride)
        return result.image_logits()[None, :1].to(image.device)


def export_package_job(name: str | Path, path: str | Path, *, overwrite: bool = False) -> Job[Path]:
    """Write a model, with the weights of its base, as a package of BioImage.IO.

    Parameters
    ----------
    name
        The model.
    path
        The new zip file, or a folder for it.
    overwrite
        Replace an existing file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If there is no such model, the file exists, or the library is missing.
    OSError
        If the file cannot be written.
    """
    spec_library = _library()
    entry = find_model(name)
    target = Path(path).expanduser()
    if target.is_dir():
        target /= f"{entry.name}{SUFFIX}"
    if target.exists() and not overwrite:
        raise ValueError(f"{target} exists already. Choose another name, or allow to replace it.")
    whole = yield from assemble_job(name)
    spec = whole.spec
    if entry.is_base:
        spec = replace(spec, base=replace(spec.base, sha256=""))
    network = BoxPromptedNetwork(spec.to_json())
    state = {f"model.{key}": each for key, each in whole.tensors.items()}
    network.load_state_dict({key: each.float() for key, each in state.items()})
    network.eval()
    with atomic_write(target) as temporary, TemporaryDirectory() as work:
        folder = Path(work)
        yield Progress(0, 3, "Writing the weights")
        torch.save(state, folder / _WEIGHTS)
        yield Progress(1, 3, "Predicting the test image")
        image, box = _test_input(spec)
        standardized = torch.from_numpy(_preprocessed(image, spec))
        mask = torch.sigmoid(network(standardized, torch.from_numpy(box))).numpy()
        for file, array in (("image", image), ("box", box), ("mask", mask)):
            np.save(folder / f"{file}.npy", array)
        (folder / _DOCUMENT).write_text(_document(spec), encoding="utf-8")
        yield Progress(2, 3, "Writing the package")
        with spec_library.ValidationContext(root=folder, perform_io_checks=False):
            values = spec_library.dump_description(_described(spec, folder))
        # Not by the library, which leaves files open.
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(DESCRIPTION, _yaml().safe_dump(values, sort_keys=False))
            for each in sorted(folder.iterdir()):
                archive.write(each, each.name)
    return target


def import_package_job(path: str | Path, name: str | None = None) -> Job[ModelEntry]:
    """Import a package that `export_package_job` wrote into the user's models.

    Parameters
    ----------
    path
        The zip file.
    name
        The model's name; that in the description by default.

    Raises
    ------
    ValueError
        If it is no such package, or is damaged; one sentence says why.
    """
    path = Path(path).expanduser()
    yield Progress(0, 0, f"Reading {path.name}")
    models_folder().mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".package-", dir=models_folder()) as folder:
        weights = Path(folder) / _WEIGHTS
        try:
            spec = _unpacked(path, weights)
        except (
            OSError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
        ) as error:
            if isinstance(error, OSError) and not path.exists():
                raise
            raise ValueError(not_ours(path.name)) from None
        tensors = read_sam_weights(weights)
        chosen = spec.name if name is None else name
        bundle = Path(folder) / "bundle.safetensors"
        save_checkpoint(bundle, spec, tensors, bundled=bool(spec.base.sha256))
        return (yield from import_file_job(bundle, chosen))


def not_ours(name: str) -> str:
    """Message: a package holds no SimMAT model."""
    return (
        f"{name} is no package of BioImage.IO that napari-simmat wrote, so its network is not "
        "known here; run it with bioimageio.core instead."
    )


def _unpacked(path: Path, weights: Path) -> ModelSpec:
    """Write the weights of a package to a file, and return its description."""
    yaml = _yaml()
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(DESCRIPTION)
        if info.file_size > _MOST_TEXT:
            raise ValueError(not_ours(path.name))
        try:
            values = yaml.safe_load(archive.read(info))
        except yaml.YAMLError:
            raise ValueError(not_ours(path.name)) from None
        entry = values["weights"]["pytorch_state_dict"]
        built = entry["architecture"]
        if built.get("import_from") != __name__ or built["callable"] != BoxPromptedNetwork.__name__:
            raise ValueError(not_ours(path.name))
        spec = read_description(built["kwargs"]["description"])
        with archive.open(entry["source"]) as packed, weights.open("wb") as file:
            left = archive.getinfo(entry["source"]).file_size
            while left > 0 and (chunk := packed.read(min(left, 1 << 22))):
                file.write(chunk)
                left -= len(chunk)
    return spec


def _library() -> Any:
    try:
        return import_module("bioimageio.spec")
    except ImportError:
        raise ValueError(NEEDS_LIBRARY) from None


def _yaml() -> Any:
    try:
        return import_module("yaml")
    except ImportError:
        raise ValueError(NEEDS_LIBRARY) from None


def _described(spec: ModelSpec, folder: Path) -> Any:
    """The description of a package whose files lie in a folder."""
    m: Any = import_module("bioimageio.spec.model.v0_5")

    def file(name: str) -> dict[str, Any]:
        return {"source": name, "sha256": sha256_of(folder / name)}

    batch = m.BatchAxis(size=1)
    names = [_identifier(each.name) for each in spec.channels]
    size = spec.input_size
    fixed = size.method != "native"
    least = math.ceil(size.minimum / size.multiple) * size.multiple
    side = size.size if fixed else m.ParameterizedSize(min=least, step=size.multiple)
    named = (f"{each.name} [{each.unit}]" if each.unit else each.name for each in spec.channels)
    image = m.InputTensorDescr(
        id=m.TensorId("image"),
        description=f"Raw values of one plane, a channel each: {', '.join(named)}",
        axes=[
            batch,
            m.ChannelAxis(channel_names=names),
            m.SpaceInputAxis(id=m.AxisId("y"), size=side),
            m.SpaceInputAxis(id=m.AxisId("x"), size=side),
        ],
        data=m.IntervalOrRatioDataDescr(type="float32"),
        preprocessing=_preprocessing(m, spec),
        test_tensor=m.FileDescr(**file("image.npy")),
    )
    box = m.InputTensorDescr(
        id=m.TensorId("box"),
        description="y0, x0, y1, x1 of the object in pixels, half-open",
        axes=[batch, m.IndexInputAxis(id=m.AxisId("corner"), size=4)],
        data=m.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=m.FileDescr(**file("box.npy")),
    )

    def same(axis: str) -> Any:
        return m.SizeReference(tensor_id=m.TensorId("image"), axis_id=m.AxisId(axis))

    mask = m.OutputTensorDescr(
        id=m.TensorId("mask"),
        description="Probability that a pixel is of the object",
        axes=[
            batch,
            m.ChannelAxis(channel_names=["object"]),
            m.SpaceOutputAxis(id=m.AxisId("y"), size=same("y")),
            m.SpaceOutputAxis(id=m.AxisId("x"), size=same("x")),
        ],
        data=m.IntervalOrRatioDataDescr(type="float32"),
        postprocessing=[m.SigmoidDescr()],
        test_tensor=m.FileDescr(**file("mask.npy")),
    )
    weights = m.PytorchStateDictWeightsDescr(
        **file(_WEIGHTS),
        architecture=m.ArchitectureFromLibraryDescr(
            callable=BoxPromptedNetwork.__name__,
            import_from=__name__,
            kwargs={"description": spec.to_json()},
        ),
        pytorch_version=m.Version(torch.__version__.split("+")[0]),
    )
    return m.ModelDescr(
        name=_title(spec.name),
        description=f"{spec.description or spec.modality}. {_LIMITS}"[:1024],
        authors=[m.Author(name=spec.author or "napari-simmat contributors")],
        cite=[m.CiteEntry(text="SimMAT", url="https://arxiv.org/abs/2409.08083")],
        license=_license(spec),
        documentation=m.FileDescr(**file(_DOCUMENT)),
        tags=["2d", "pytorch", "semantic-segmentation", "instance-segmentation", "napari"],
        inputs=[image, box],
        outputs=[mask],
        weights=m.WeightsDescr(pytorch_state_dict=weights),
        config=m.Config(simmat={"version": __version__}),
    )


def _license(spec: ModelSpec) -> str:
    known: Any = import_module("bioimageio.spec._internal.license_id")
    names = {str(each) for each in getattr(known.LicenseId, "__args__", ())}
    return spec.license if spec.license in names else "BSD-3-Clause"


def _title(name: str) -> str:
    """A model's name in the characters that names of BioImage.IO may have."""
    return "".join(each if each.isalnum() or each in "_+- ()" else "-" for each in name)


def _identifier(name: str) -> str:
    """A channel's name in the characters that such names may have."""
    plain = "".join(each if each.isalnum() else "_" for each in name).strip("_")
    return plain if plain[:1].isalpha() else f"channel_{plain}"


def _preprocessing(m: Any, spec: ModelSpec) -> list[Any]:
    """Percentiles to 0..1, and the standardization of each channel."""
    rule, steps = spec.normalization, []
    if rule.method == "percentile":
        axes = ["y", "x"] if not rule.joint else ["channel", "y", "x"]
        kwargs = m.ScaleRangeKwargs(
            axes=[m.AxisId(axis) for axis in axes],
            min_percentile=rule.low,
            max_percentile=rule.high,
            eps=1e-6,
        )
        steps += [m.ScaleRangeDescr(kwargs=kwargs), m.ClipDescr(kwargs=m.ClipKwargs(min=0, max=1))]
    scale = _scale(rule)
    kwargs = m.FixedZeroMeanUnitVarianceAlongAxisKwargs(
        axis=m.AxisId("channel"),
        mean=[each.mean / scale for each in spec.channels],
        std=[each.std / scale for each in spec.channels],
    )
    return [*steps, m.FixedZeroMeanUnitVarianceDescr(kwargs=kwargs)]


def _scale(rule: Normalization) -> float:
    return rule.scale if rule.method == "percentile" else 1.0


def _preprocessed(image: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.float32]:
    """What `_preprocessing` says, on an image (1, C, Y, X)."""
    rule, values = spec.normalization, image
    if rule.method == "percentile":
        axes = (1, 2, 3) if rule.joint else (2, 3)
        low, high = (
            np.percentile(image, percent, axis=axes, keepdims=True)
            for percent in (rule.low, rule.high)
        )
        values = np.clip((image - low) / (high - low + 1e-6), 0, 1)
    scale = _scale(rule)
    mean, std = (
        np.array([getattr(each, name) / scale for each in spec.channels]).reshape(1, -1, 1, 1)
        for name in ("mean", "std")
    )
    standardized: NDArray[np.float32] = ((values - mean) / std).astype(np.float32)
    return standardized


def _test_input(spec: ModelSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A bright disc in noise (1, C, Y, X), and the box around it (1, 4)."""
    size = spec.input_size
    side = size.size if size.method != "native" else max(_SIDE, size.minimum)
    side = side if size.method != "native" else math.ceil(side / size.multiple) * size.multiple
    y, x = np.mgrid[:side, :side]
    inside = np.hypot(y - side / 2, x - side / 2) < side / 6
    noise = np.random.default_rng(0).normal(0, 8, (1, len(spec.channels), side, side))
    image = np.clip(60 + 120 * inside + noise, 0, 255).astype(np.float32)
    corners = [side / 2 - side / 6, side / 2 + side / 6]
    box = np.round(np.array([[corners[0], corners[0], corners[1], corners[1]]])).astype(np.float32)
    return image, box


def _document(spec: ModelSpec) -> str:
    lines = [
        f"# {spec.name}",
        "",
        spec.description or f"A SimMAT model for {spec.modality}.",
        "",
        _LIMITS,
        "",
        "The percentiles are those of the plane that is given; napari-simmat takes them from the "
        "whole stack."
        + (" It leaves 8-bit values as they are." if spec.normalization.keep_uint8 else "")
        + (" It also clips glare." if spec.normalization.clip_glare else ""),
        "",
        "Import the package with `simmat models import FILE` to use the model with all prompts.",
        "",
        "## Validation",
        "",
        json.dumps(dict(spec.metrics)) if spec.metrics else "No scores are stated.",
    ]
    return "\n".join(lines) + "\n"
