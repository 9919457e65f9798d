"""The model library: import, export, share and remove models; needs no torch.

`push_job` uploads a model with its card to the Hugging Face Hub, `fetch_job` downloads one. They
need `huggingface_hub`, whose access token and address (`HF_TOKEN`, `HF_ENDPOINT`) apply. What is
downloaded is checked like any other file: its hash, then its header, then its tensors.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from napari_simmat import __version__
from napari_simmat._text import format_list, import_problem
from napari_simmat.checkpoints.catalog import OF_SAM, PUBLISHED_WEIGHTS, foundation_title, sam_spec
from napari_simmat.checkpoints.checkpoint import save_checkpoint
from napari_simmat.checkpoints.loading import (
    VOCABULARY,
    BaseMissingError,
    assemble_job,
    model_file,
    with_decoder_names,
)
from napari_simmat.checkpoints.model_file import ModelFile
from napari_simmat.checkpoints.registry import (
    ModelEntry,
    find_model,
    list_models,
    name_problem,
    own_models,
)
from napari_simmat.checkpoints.sam_weights import published_decoder_job
from napari_simmat.io.files import copy_job, format_size, hash_job, user_folder
from napari_simmat.models.spec import ModelSpec
from napari_simmat.progress import Job, Progress

PREFIX = "hf:"
CARD = "README.md"
_FILE = re.compile(r"[\w][\w .-]*\.safetensors")
NEEDS_LIBRARY = (
    "Sharing models on the Hugging Face Hub needs the package huggingface_hub; install it "
    "(pip install huggingface_hub)."
)
NOT_ALLOWED = (
    "The Hugging Face Hub does not let you use {repository}; log in (hf auth login) with a token "
    "that may."
)
NOT_REACHED = "The Hugging Face Hub cannot be reached ({error}); check the network."
NOT_AS_EXPECTED = "The Hugging Face Hub did not answer as it should ({error}); try again later."
HUB_ERRORS = {
    "GatedRepoError": "{repository} asks you to accept its terms first: open it on the Hugging "
    "Face Hub, accept them, and fetch it again.",
    "RepositoryNotFoundError": "There is no repository {repository} on the Hugging Face Hub, or it "
    "is private and you are not logged in (hf auth login).",
    "RevisionNotFoundError": "{repository} has no such revision; look at its history.",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set; unset it to reach the Hugging Face Hub.",
    "HfHubHTTPError": "The Hugging Face Hub refused ({error}).",
    "OSError": NOT_AS_EXPECTED,
    "ValueError": NOT_AS_EXPECTED,
    "RuntimeError": NOT_AS_EXPECTED,
}
"""Messages by the name of the library's error, or of a class it derives from."""
_LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0", "cc0-1.0")
"""What the Hub calls licenses, of those that occur here; any other is named in the card."""
_BASES = {
    "vit_b": "facebook/sam-vit-base",
    "vit_l": "facebook/sam-vit-large",
    "vit_h": "facebook/sam-vit-huge",
}
"""Foundations that the Hub has."""


def import_file_job(
    path: str | Path,
    name: str | None = None,
    *,
    preprocessing: str | None = None,
) -> Job[ModelEntry]:
    """Copy a checkpoint, a base or SAM weights into the user's folder.

    A decoder that micro-sam publishes is put beside its model.

    Parameters
    ----------
    path
        The file; it is read completely before it is copied.
    name
        The model's name; by default the file's stem, or the name of published weights.
    preprocessing
        How images were preprocessed for SAM weights that do not tell: one of `PREPROCESSINGS`. The
        weights are written with that description, as a checkpoint that holds them all.

    Raises
    ------
    ValueError
        If the file cannot be used, or the name is taken or not allowed.
    OSError
        If the file cannot be read or the folder cannot be written.
    """
    path = Path(path).expanduser()
    file = ModelFile.read(path)
    chosen = path.stem if name is None else name
    if preprocessing is not None:
        return (yield from _import_described_job(file, chosen, preprocessing))
    if file.kind == "torch":
        row = yield from published_decoder_job(path)
        if row is not None and row.decoder is not None:
            yield from copy_job(path, user_folder("bases") / row.decoder.file)
            return find_model(row.name)
    suffix = ".pth" if file.kind == "torch" else ".safetensors"
    words = None
    try:
        whole = yield from assemble_job(path)
    except BaseMissingError as error:  # the base may be imported later
        logging.getLogger(__name__).warning("%s", error)
    else:
        words = whole.vocabulary if file.is_base else None
        row = whole.published
        if row is not None and name in (None, row.name):
            yield from copy_job(path, user_folder("bases") / row.file)
            return find_model(row.name)
    check_name_free(chosen)
    target = (user_folder("bases") if file.is_base else user_folder("models")) / f"{chosen}{suffix}"
    yield from copy_job(path, target)
    if words is not None and words.is_file():
        yield from copy_job(words, target.with_name(f"{chosen}.{VOCABULARY}"))
    return find_model(chosen)


PREPROCESSINGS = tuple(name.replace("_", "-") for name in OF_SAM)
"""Names that a user gives."""
UNKNOWN_PREPROCESSING = "There is no preprocessing {!r}; use one of {}."
SAYS_ITSELF = "{} describes itself, its preprocessing too; import it without --preprocessing."
IS_PUBLISHED = (
    "{} is published as {}, whose preprocessing is known; import it without --preprocessing."
)
NOT_OF_SAM = "{} is no SAM of ViT-B, L or H, but {}, which has one preprocessing; leave it out."


def _import_described_job(file: ModelFile, name: str, preprocessing: str) -> Job[ModelEntry]:
    """Write SAM weights into the user's folder with a description that names a preprocessing."""
    if preprocessing not in PREPROCESSINGS:
        known = format_list(PREPROCESSINGS)
        raise ValueError(UNKNOWN_PREPROCESSING.format(preprocessing, known))
    path = file.path
    if file.card is not None:
        raise ValueError(SAYS_ITSELF.format(path.name))
    check_name_free(name)
    whole = yield from assemble_job(path)
    if whole.published is not None:
        raise ValueError(IS_PUBLISHED.format(path.name, whole.published.name))
    base = whole.spec.base
    if base.is_sam2 or base.architecture == "sam3":
        raise ValueError(NOT_OF_SAM.format(path.name, foundation_title(base.architecture)))
    spec = sam_spec(
        name,
        base.architecture,
        base.sha256,
        with_decoder=whole.decoder is not None,
        preprocessing=preprocessing.replace("-", "_"),
    )
    described = f"Your own weights, for images preprocessed as by {preprocessing}."
    target = user_folder("models") / f"{name}.safetensors"
    tensors = {**whole.tensors, **with_decoder_names(whole.decoder or {})}
    save_checkpoint(target, replace(spec, description=described), tensors, bundled=True)
    return find_model(name)


def remove(name: str) -> None:
    """Delete a downloaded base or an own model.

    Raises ValueError if there is none of that name, or it is built in, OSError if the file cannot
    be deleted.
    """
    namesakes = [entry for entry in list_models() if entry.name == name]
    entry = namesakes[-1] if namesakes else find_model(name)  # the user's own come last
    if sum(each.kind == "own" for each in namesakes) > 1:
        raise ValueError(entry.problem)
    if not namesakes or entry.kind == "built in":  # `find_model` also accepts paths of files
        why = "is built in" if entry.kind == "built in" else "is not among your models"
        raise ValueError(f"{name} {why} and cannot be removed.")
    if entry.path is None:
        raise ValueError(f"{name} is not downloaded, so there is nothing to remove.")
    row = PUBLISHED_WEIGHTS.get(name) if entry.kind == "downloaded" else None
    try:
        if row is not None and row.decoder is not None:
            entry.path.with_name(row.decoder.file).unlink(missing_ok=True)
        entry.path.unlink(missing_ok=True)
        entry.path.with_name(f"{entry.path.stem}.{VOCABULARY}").unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f"{entry.path} could not be deleted ({error.strerror}). Close what uses it, or check "
            "its folder's permissions."
        ) from error


def export_job(
    name: str | Path, path: str | Path, *, bundle: bool = False, overwrite: bool = False
) -> Job[Path]:
    """Write a model to a file that can be shared, and return its path.

    Parameters
    ----------
    name
        The model.
    path
        The new file, or a folder for it.
    bundle
        Include the tensors of the base: a larger file that needs no other.
    overwrite
        Replace an existing file.

    Raises
    ------
    ValueError
        If there is no such model, or the file exists.
    OSError
        If the disk is full or the folder cannot be written.
    """
    entry = find_model(name)
    source = model_file(entry)
    target = Path(path).expanduser()
    if target.is_dir():
        target /= f"{entry.name}{'.safetensors' if bundle else source.suffix}"
    if target.exists() and not overwrite:
        raise ValueError(f"{target} exists already. Choose another name, or allow to replace it.")
    if bundle:
        whole = yield from assemble_job(name)
        tensors = {**whole.tensors, **with_decoder_names(whole.decoder or {})}
        save_checkpoint(target, whole.spec, tensors, bundled=True, pixels=whole.pixels)
        yield Progress(100, 100, f"Wrote {target.name}")
    else:
        yield from copy_job(source, target)
    return target


def check_name_free(name: str) -> None:
    """Refuse a name that is not allowed or belongs to another model of the user."""
    if problem := name_problem(name):
        raise ValueError(problem)
    if any(each.name.casefold() == name.casefold() for each in own_models()):
        raise ValueError(
            f"There is a model called {name} already. Choose another name, or remove it first "
            f"with `simmat models remove {name}`."
        )


# ------------------------------------------------------------ the Hugging Face Hub


def repository_of(address: str) -> tuple[str, str | None]:
    """``OWNER/NAME`` and the revision of ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION``.

    Raises ValueError if it is no such address.
    """
    found = re.fullmatch(r"hf:([\w.-]{1,96}/[\w.-]{1,96})(?:@([\w./-]{1,96}))?", address)
    if found is None:
        raise ValueError(
            f"{address} is no address on the Hugging Face Hub; write hf:OWNER/NAME, or "
            "hf:OWNER/NAME@REVISION."
        )
    return found[1], found[2]


def push_job(name: str | Path, address: str, *, private: bool = False) -> Job[str]:
    """Upload a checkpoint and its card to a repository, which is created if needed.

    Parameters
    ----------
    name
        A model that is one safetensors file.
    address
        ``hf:OWNER/NAME``.
    private
        Create the repository so that only its owner sees it.

    Returns
    -------
    str
        The address of the commit.

    Raises
    ------
    ValueError
        If the model cannot be shared, or the library is missing.
    OSError
        If the Hub cannot be reached or refuses.
    """
    hub = _hub()
    repository, revision = repository_of(address)
    entry = find_model(name)
    path = model_file(entry)
    described = ModelFile.read(path).card
    if described is None:
        raise ValueError(
            f"{entry.name} is a foundation that its authors publish, not a checkpoint of yours; "
            "share what you trained on it."
        )
    spec = described.spec
    file = f"{entry.name}.safetensors"
    yield Progress(0, 2, f"Preparing {file}")
    card = model_card(spec, repository, file)
    yield Progress(1, 2, f"Uploading {file} ({format_size(path.stat().st_size)})")
    with _explained(repository), _quiet():
        api = _api(hub)
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.create_commit(
            repository,
            [
                hub.CommitOperationAdd(file, str(path)),
                hub.CommitOperationAdd(CARD, card.encode()),
            ],
            commit_message=f"Upload {entry.name}",
            revision=revision,
        )
    yield Progress(2, 2, f"Uploaded {file}")
    return str(commit.commit_url)


def fetch_job(address: str, name: str | None = None) -> Job[ModelEntry]:
    """Download the checkpoint of a repository into the user's models.

    Parameters
    ----------
    address
        ``hf:OWNER/NAME`` or ``hf:OWNER/NAME@REVISION``.
    name
        The model's name; that of its file by default.

    Raises
    ------
    ValueError
        If the repository does not hold exactly one checkpoint, it is damaged or cannot be used, or
        the name is taken.
    OSError
        If the Hub cannot be reached or refuses.
    """
    hub = _hub()
    repository, revision = repository_of(address)
    yield Progress(0, 0, f"Looking at {repository}")
    with _explained(repository):
        api = _api(hub)
        info = api.model_info(repository, revision=revision, files_metadata=True)
    # Names with folders, or leading out of the one it is downloaded into, are left out.
    files = [each for each in info.siblings or () if _FILE.fullmatch(each.rfilename)]
    if len(files) != 1:
        held = format_list(each.rfilename for each in files[:8]) or "none"
        raise ValueError(
            f"{repository} holds {len(files)} safetensors files ({held}), but a SimMAT model is "
            "one; choose another repository."
        )
    [file] = files
    user_folder("models").mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(user_folder("models")).free
    if (file.size or 0) * 2 > free:
        raise OSError(
            f"{file.rfilename} has {format_size(file.size)}, and the disk has {format_size(free)} "
            "free; free some space, or set NAPARI_SIMMAT_HOME to a folder on another disk."
        )
    with TemporaryDirectory(prefix=".hub-", dir=user_folder("models")) as folder:
        yield Progress(0, 0, f"Downloading {file.rfilename} ({format_size(file.size or 0)})")
        with _explained(repository), _quiet():
            # The commit that was looked at, whatever is pushed meanwhile.
            path = Path(
                api.hf_hub_download(repository, file.rfilename, revision=info.sha, local_dir=folder)
            )
        digest = yield from hash_job(path)
        if file.lfs is not None and digest != file.lfs.sha256:
            raise ValueError(
                f"{file.rfilename} of {repository} has another checksum than the Hub says, so it "
                "was not kept; fetch it again."
            )
        chosen = Path(file.rfilename).stem if name is None else name
        return (yield from import_file_job(path, chosen))


def model_card(spec: ModelSpec, repository: str, file: str) -> str:
    """The text of ``README.md``: metadata as YAML, and what `spec` says, in Markdown."""
    hub = _hub()
    license_name = spec.license.strip().lower()
    known = license_name in _LICENSES
    modality = re.sub(r"[^a-z0-9]+", "-", spec.modality.lower()).strip("-")
    tags = ["napari", "simmat", "segment-anything", "image-segmentation", modality]
    metadata = hub.ModelCardData(
        license=license_name if known else "other",
        license_name=None if known else spec.license or "not stated",
        library_name="napari-simmat",
        pipeline_tag="mask-generation",
        base_model=_BASES.get(spec.base.name),
        tags=[tag for tag in tags if tag],
    )
    rule = spec.normalization
    stretched = "values as they are"
    if rule.method != "none":
        ends = f"percentiles {rule.low:g} and {rule.high:g} of the image"
        stretched = f"{ends} become 0 and {rule.scale:g}"
    base = f"`{spec.base.name}` ({spec.base.architecture})"
    if spec.base.sha256:
        base += f", SHA-256 `{spec.base.sha256}`"
    lines = [
        "---",
        metadata.to_yaml().strip(),
        "---",
        "",
        f"# {_plain(spec.name)}",
        "",
        _plain(spec.description) or f"A SimMAT model for {_plain(spec.modality)}.",
        "",
        "Segments images with clicks, boxes and masks in napari-simmat:",
        "",
        "```sh",
        f"simmat models fetch {PREFIX}{repository}",
        f"simmat segment image.tif --prompts image.csv --model {Path(file).stem} --output results",
        "```",
        "",
        "## What it reads",
        "",
        "| channel | unit | mean | standard deviation |",
        "| --- | --- | ---: | ---: |",
        *(
            f"| {_plain(each.name)} | {_plain(each.unit)} | {each.mean:.6g} | {each.std:.6g} |"
            for each in spec.channels
        ),
        "",
        f"Mean and standard deviation are those of normalized values ({stretched}).",
        "",
        "## What it is",
        "",
        *(
            f"- {title}: {text}"
            for title, text in {
                "Modality": _plain(spec.modality),
                "Base": base,
                "Transfer layer": spec.transfer,
                "Trained besides": spec.strategy,
                "License": _plain(spec.license) or "not stated",
                "Author": _plain(spec.author),
                "Date": _plain(spec.date),
                "Written by": f"napari-simmat {__version__}",
            }.items()
            if text
        ),
        *_section("Metrics", spec.metrics),
        *_section("Training", spec.training),
    ]
    return "\n".join(lines) + "\n"


def _section(title: str, values: Mapping[str, Any]) -> list[str]:
    rows = [f"- {_plain(key)}: {_plain(json.dumps(value))}" for key, value in values.items()]
    return ["", f"## {title}", "", *rows] if rows else []


def _plain(text: str) -> str:
    """Text in one line that is no markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _hub() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise ValueError(import_problem(error, "huggingface_hub", NEEDS_LIBRARY)) from error


def _api(hub: Any) -> Any:
    return hub.HfApi(
        endpoint=os.environ.get("HF_ENDPOINT"),
        library_name="napari-simmat",
        library_version=__version__,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The library's own progress bars are not shown beside ours."""
    bars: Any = import_module("huggingface_hub.utils")
    bars.disable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bars()


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Turn errors of the library into one sentence."""
    try:
        yield
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        known = next((HUB_ERRORS[kind] for kind in kinds if kind in HUB_ERRORS), None)
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if known == HUB_ERRORS["HfHubHTTPError"] and status in (401, 403):
            known = NOT_ALLOWED
        if known is None:  # connection errors of its HTTP library, which changed in 1.0
            if not type(error).__module__.startswith(("httpx", "httpcore", "requests")):
                raise
            known = NOT_REACHED
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        words = {"repository": repository, "error": text[:200].rstrip(".")}
        raise OSError(known.format(**words)) from None
