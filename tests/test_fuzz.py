"""Mutations of good images and models: each opens, or is refused with a documented exception.

Nothing may hang, take more than 500 MB, open a file elsewhere or print. By default each format is
tried for a fixed time. `SIMMAT_FUZZ` is the number of mutations to try instead,
`SIMMAT_FUZZ_SEED` the first seed; a failure names the seed of its mutation, which makes it again.
"""

import gzip
import os
import random
import re
import shutil
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.io.files import ASSETS
from napari_simmat.progress import finish
from tests.opening import IMAGE_SHAPE, USES, Opener

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="pipes cannot be waited for"),
]

SECONDS = 20
AT_ONCE = 16
"""Files that are written before they are opened: processes that wait for each other are slow."""
STACK = np.random.default_rng(0).integers(0, 4000, (3, 20, 30)).astype(np.uint16)


# --- good files: bytes by name within a folder; the first is given


def tiffs() -> list[dict[str, bytes]]:
    kinds: list[dict[str, Any]] = [
        {"compression": "zlib"},
        {"metadata": None},
        {"imagej": True},
        {"bigtiff": True, "tile": (16, 16), "compression": "lzw"},
        {"byteorder": ">", "rowsperstrip": 4, "compression": "packbits", "metadata": None},
    ]
    return [{"a.tif": written_tiff(**kind)} for kind in kinds]


def ome_tiffs() -> list[dict[str, bytes]]:
    alone = {"a.ome.tif": written_tiff(ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.5})}
    text = tifffile.TiffFile(BytesIO(alone["a.ome.tif"])).ome_metadata
    start, end = re.split(r"<TiffData[^>]*/>", text)
    parts = '<TiffData FirstZ="0" PlaneCount="1"/>' + "".join(
        f'<TiffData FirstZ="{n}" PlaneCount="1">'
        f'<UUID FileName="{n}.tif">urn:uuid:{n}</UUID></TiffData>'
        for n in (1, 2)
    )
    first = written_tiff(STACK[0], metadata=None, description=start + parts + end)
    others = {f"{n}.tif": written_tiff(STACK[n], metadata=None) for n in (1, 2)}
    return [alone, {"a.ome.tif": first, **others}]


def written_tiff(data: Any = STACK, **options: Any) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, data, photometric="minisblack", **options)
    return file.getvalue()


def pictures(kind: str, *modes: str) -> list[dict[str, bytes]]:
    made = []
    for mode in modes:
        file = BytesIO()
        deep = Image.fromarray(STACK[0]) if mode == "I;16" else Image.fromarray(STACK[0] % 256)
        (deep if mode == "I;16" else deep.convert("L").convert(mode)).save(file, kind)
        made.append({f"a.{kind.lower()}": file.getvalue()})
    return made


def npys() -> list[dict[str, bytes]]:
    made = []
    for data in (STACK, np.asfortranarray(STACK[0]).astype(">f4")):
        file = BytesIO()
        np.save(file, data)
        made.append({"a.npy": file.getvalue()})
    return made


def niftis() -> list[dict[str, bytes]]:
    nibabel = pytest.importorskip("nibabel")
    plain = nibabel.Nifti1Image(STACK.astype(np.int16).T, np.eye(4))
    scaled = nibabel.Nifti1Image(STACK.astype(np.int16).T, np.eye(4))
    scaled.header.set_slope_inter(0.5, 3)
    made = [{"a.nii": image.to_bytes()} for image in (plain, scaled)]
    return [*made, {"a.nii.gz": gzip.compress(plain.to_bytes())}]


def itks() -> list[dict[str, bytes]]:
    import tempfile

    sitk = pytest.importorskip("SimpleITK")
    made = []
    with tempfile.TemporaryDirectory() as folder:
        files = (("a.nrrd", True), ("a.mha", False), ("b.mha", True), ("a.mhd", False))
        for name, packed in files:
            sitk.WriteImage(sitk.GetImageFromArray(STACK), f"{folder}/{name}", packed)
            names = ("a.mhd", "a.raw") if name == "a.mhd" else (name,)
            made.append({each: Path(folder, each).read_bytes() for each in names})
    return made


def dicoms() -> list[dict[str, bytes]]:
    import tempfile

    pytest.importorskip("pydicom")
    from tests.io.test_dicom import write_slice

    def slice_(pixels: np.ndarray, number: int = 1, **more: Any) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            write_slice(Path(folder, "a.dcm"), pixels, number, **more)
            return Path(folder, "a.dcm").read_bytes()

    return [
        {f"{n}.dcm": slice_(STACK[n], n + 1) for n in range(3)},
        {"a.dcm": slice_(STACK, NumberOfFrames=3, RescaleSlope="2", RescaleIntercept="-5")},
        {"a.dcm": slice_(STACK[0], packed=True)},
    ]


def zarrs() -> list[dict[str, bytes]]:
    import tempfile

    import zarr

    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [2.0, 0.5, 0.5]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    made = []
    for version, is_ome in ((2, False), (3, False), (2, True), (3, True)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.zarr")
            options: dict[str, Any] = {"data": STACK, "chunks": (1, 20, 16), "zarr_format": version}
            if is_ome:
                group = zarr.open_group(path, mode="w", zarr_format=options.pop("zarr_format"))
                group.create_array("0", **options)
                described = {"multiscales": [{"axes": axes, "datasets": levels, "version": "0.4"}]}
                group.attrs.update(described if version == 2 else {"ome": described})
            else:
                zarr.create_array(path, **options)
            files = sorted(each for each in path.rglob("*") if each.is_file())
            made.append({f"a.zarr/{each.relative_to(path)}": each.read_bytes() for each in files})
    return made


def models() -> list[dict[str, bytes]]:
    import torch

    weights = BytesIO()
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 4, 4, 8)}, weights)
    names = ("thermal", "polarization", "tiny-5")
    checkpoints = [{f"{n}.safetensors": (ASSETS / f"{n}.safetensors").read_bytes()} for n in names]
    return [*checkpoints, {"a.pth": weights.getvalue()}]


def sessions() -> list[dict[str, bytes]]:
    from napari_simmat.annotation import history, prompt_state, session_file
    from napari_simmat.engine.masks import LabelEdit, ObjectMask
    from napari_simmat.engine.prompts import Prompt

    labels = np.zeros(IMAGE_SHAPE, np.int32)
    lines = [session_file.SessionHeader("image", IMAGE_SHAPE, "tiny", ("gray",)).line()]
    empty = prompt_state.PromptState()
    for number in (1, 2, 3):
        mask = np.zeros(IMAGE_SHAPE[1:], bool)
        mask[2 * number : 4 * number, 3 : 9 * number] = True
        pixels = ObjectMask.of(mask, (number - 1, 0, 0))
        clicks = prompt_state.Prompts(((number - 1.0, 3.0 * number, 5.0),), (1,))
        before = prompt_state.PromptState(clicks, ((Prompt(points=[(3, 5)], mask=mask), 2),))
        made = history.Provenance((number - 1,), clicks, "digest", kept=pixels)
        entry = history.ObjectEntry(0.5, "cell", (made,))
        patch = LabelEdit.write(labels, pixels, number)
        edit = history.LayerEdit("a", (patch,), {number: (None, entry)})
        lines.append(session_file.line_of("do", history.Command("commit", before, empty, edit)))
    lines += [session_file.line_of(what) for what in ("undo", "redo", "undo", "drop")]
    lines.append(session_file.line_of("anew", ("a", (1, 2))))
    region = ((0, 0, 0), IMAGE_SHAPE)
    lines += finish(session_file.begin_lines_job("a", labels, region))
    lines += [session_file.line_of("forget", "b"), session_file.line_of("saved")]
    return [{"a_session.jsonl": "".join(lines[:n]).encode()} for n in (4, 7, len(lines))]


def prompts() -> list[dict[str, bytes]]:
    import tempfile

    from napari_simmat.engine.files.object_set import ObjectSection, ObjectSet
    from napari_simmat.engine.files.objects import OBJECT_FORMATS
    from napari_simmat.engine.masks import ObjectMask
    from napari_simmat.engine.prompts import Prompt
    from tests.batch.folders import write_record

    mask = np.zeros(IMAGE_SHAPE[1:], bool)
    mask[3:9, 4:20] = True
    points = "axis-0,axis-1,axis-2,label,object\n0,3,4,1,1\n1,5,6,0,1\n1,6,7.5,1,2\n"
    corners = [("1.5", "2"), ("1.5", "20"), ("12", "20"), ("12.25", "2")]
    shapes = "index,shape-type,vertex-index,axis-0,axis-1,axis-2\n" + "".join(
        f"{index},{kind},{vertex},1,{y},{x}\n"
        for index, kind in enumerate(("rectangle", "ellipse", "polygon"))
        for vertex, (y, x) in enumerate(corners)
    )
    made = [{"a.csv": points.encode()}, {"a.csv": shapes.encode()}]
    sections = [ObjectSection(n, ObjectMask.of(mask, (n, 0, 0)), "cell", 0.5) for n in (1, 2)]
    objects = ObjectSet(sections=sections, shape=IMAGE_SHAPE, axes="ZYX", image="a.tif")
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("coco", "rois", "geojson"):
            path = Path(folder, f"a{OBJECT_FORMATS[kind].ending}")
            OBJECT_FORMATS[kind].write(path, objects)
            made.append({path.name: path.read_bytes()})
        given = [Prompt(points=[(3, 4)], plane=(1,)), Prompt(mask=mask, object=2, plane=(2,))]
        made.append({"a.json": write_record(Path(folder, "a.json"), *given).read_bytes()})
    return made


def datasets() -> list[dict[str, bytes]]:
    labels = np.zeros(STACK.shape, np.uint16)
    labels[:, 4:12, 5:18] = 1
    labels[:, 14:18, 20:28] = 2
    one, two = written_tiff(STACK), written_tiff(labels)
    names = ("a", "b", "c")
    beside = {f"d/{n}{end}.tif": data for n in names for end, data in (("", one), ("_labels", two))}
    apart = {f"d/{k}/{n}.tif": d for n in names for k, d in (("images", one), ("labels", two))}
    split = {
        f"d/{part}/{name.split('/')[-1]}": data
        for part in ("train", "val")
        for name, data in beside.items()
    }
    return [beside, apart, split]


def manifests() -> list[dict[str, bytes]]:
    rows = "image,prompts,channels,channel_axis\na.tif,a.csv,,\nb.tif,auto,0;1,0\n"
    others = {"a.tif": b"", "b.tif": b"", "a.csv": b""}
    return [{"m.csv": rows.encode(), **others}, {"m.csv": b"image\na.tif\n", **others}]


def options() -> list[dict[str, bytes]]:
    text = '[segment]\nmodel = "tiny"\nprompts = "auto"\nchannels = "0,1"\nresume = true\n'
    return [{"o.toml": text.encode()}]


GOOD: dict[str, Callable[[], list[dict[str, bytes]]]] = {
    "TIFF": tiffs,
    "OME-TIFF": ome_tiffs,
    "PNG": lambda: pictures("PNG", "L", "RGB", "P", "I;16", "LA"),
    "JPEG": lambda: pictures("JPEG", "L", "RGB"),
    "BMP": lambda: pictures("BMP", "L", "RGB", "P"),
    "npy": npys,
    "NIfTI": niftis,
    "DICOM": dicoms,
    "NRRD, MetaImage": itks,
    "Zarr": zarrs,
    "model": models,
    "session": sessions,
    "prompts": prompts,
    "dataset": datasets,
    "manifest": manifests,
    "options": options,
}


# --- mutations

NUMBERS = (
    0, 1, 2, 3, 7, 8, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63,
)  # fmt: skip
WORDS = (
    b"0", b"-1", b"1", b"65536", b"2000000", b"99999999999", b"1e400", b"null", b"true", b'""',
    b"[]", b"{}", b"NaN", b"../../secret", b"&#47;etc&#47;passwd", b"|O", b"<U9", b"float64",
)  # fmt: skip


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change a few places of a file, most of them in its first and last 600 bytes."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        near = min(len(data), 600)
        at = chance.choice((chance.randrange(near + 1), len(data) - chance.randrange(near + 1)))
        if chance.random() < 0.2:
            at = chance.randrange(len(data) + 1)
        data = chance.choice(MUTATIONS)(data, at, chance)
    return data


def change_byte(data: bytes, at: int, chance: random.Random) -> bytes:
    return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]


def change_number(data: bytes, at: int, chance: random.Random) -> bytes:
    size, order = chance.choice((2, 4, 8)), chance.choice(("little", "big"))
    number = chance.choice(NUMBERS) % 256**size
    return data[:at] + number.to_bytes(size, order) + data[at + size :]  # type: ignore[arg-type]


def change_word(data: bytes, _: int, chance: random.Random) -> bytes:
    """Replace a number or a quoted word of a text; the quotes of JSON in JSON are escaped."""
    words = list(re.finditer(rb'\d+(\.\d+)?|\\?"[^"\n]{0,60}\\?"', data[:20_000]))
    if not words:
        return data
    word = chance.choice(words)
    return data[: word.start()] + chance.choice(WORDS) + data[word.end() :]


def cut(data: bytes, at: int, chance: random.Random) -> bytes:
    return data[:at]


def remove(data: bytes, at: int, chance: random.Random) -> bytes:
    return data[:at] + data[at + chance.choice((1, 2, 4, 12, 100)) :]


def repeat(data: bytes, at: int, chance: random.Random) -> bytes:
    size = chance.choice((1, 2, 4, 12, 100))
    return data[: at + size] + data[at:]


MUTATIONS = (change_byte, change_byte, change_number, change_number, change_word, change_word, cut,
             remove, repeat)  # fmt: skip


def mutate(files: dict[str, bytes], chance: random.Random) -> dict[str, bytes]:
    """The files of an image with one of them mutated, a packed one inside or outside."""
    described = [name for name in files if re.search(r"/(\.z|zarr\.json)", name)]
    name = chance.choice(described if described and chance.random() < 0.8 else [*files])
    data = files[name]
    if name.startswith("d/") and chance.random() < 0.4:  # of a data set also the names
        others = {each: content for each, content in files.items() if each != name}
        if chance.random() < 0.3:
            return others
        new = name.replace(*chance.choice((("_labels", ""), ("a", "b"), ("d/", "d/e/"), (".", ""))))
        return {**others, new: data}
    if name.endswith(".gz") and chance.random() < 0.5:
        data = gzip.compress(mutated(gzip.decompress(data), chance))
    else:
        data = mutated(data, chance)
    if name.endswith(".safetensors") and chance.random() < 0.7:
        data = with_mutated_header(files[name], chance)
    if name.endswith(".png") and chance.random() < 0.8:
        data = with_checksums(data)
    return {**files, name: data}


def with_mutated_header(model: bytes, chance: random.Random) -> bytes:
    """Mutate the header of a model and correct its length, so that a mutation gets further."""
    end = 8 + int.from_bytes(model[:8], "little")
    header = model[8:end]
    for _ in range(chance.choice((1, 1, 2, 4))):
        kind = chance.choice((change_word, change_word, change_word, change_byte, remove))
        header = kind(header, chance.randrange(len(header) + 1), chance)
    return len(header).to_bytes(8, "little") + header + model[end:]


def with_checksums(png: bytes) -> bytes:
    """Correct the checksums of a PNG, so that a mutation gets further."""
    at, parts = 8, [png[:8]]
    while at + 12 <= len(png):
        end = at + 8 + min(int.from_bytes(png[at : at + 4], "big"), len(png))
        parts.append(png[at:end] + zlib.crc32(png[at + 4 : end]).to_bytes(4, "big"))
        at = end + 4
    return b"".join(parts)


def write(files: dict[str, bytes], folder: Path) -> Path:
    """Write the files of an image into an empty folder; returns what to open."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / next(iter(files)).split("/")[0]


@pytest.mark.parametrize("kind", GOOD)
def test_mutated_file_opens_or_is_refused_without_harm(kind, tmp_path, user_folder):
    wanted = int(os.environ.get("SIMMAT_FUZZ", 0))
    seed = int(os.environ.get("SIMMAT_FUZZ_SEED", 0)) or time.time_ns() % 10**9
    good, faults, counts = GOOD[kind](), [], {"value": 0, "refused": 0}
    slowest, largest, done = 0.0, 0, 0
    with Opener(kind if kind in USES else "image") as opener:
        for files in good:  # unharmed they open
            [found] = opener.open(write(files, tmp_path / "given"))
            assert found.outcome == "value" or "a.pth" in files, found
        until = time.monotonic() + SECONDS
        while done < wanted if wanted else time.monotonic() < until:
            paths = []
            for number in range(done, min(done + AT_ONCE, wanted or sys.maxsize)):
                chance = random.Random(seed + number)
                mutation = mutate(chance.choice(good), chance)
                paths.append(write(mutation, tmp_path / f"given{number % AT_ONCE}"))
            for found in opener.open(*paths):
                if kind == "NRRD, MetaImage":  # SimpleITK prints what it cannot read
                    found = replace(found, noise="")
                if found.fault:
                    faults.append(f"seed {seed + done}: {found.fault}")
                else:
                    counts[found.outcome] += 1
                slowest = max(slowest, found.seconds)
                largest = max(largest, found.megabytes)
                done += 1
    said = (
        f"{kind}: {done} mutations from seed {seed}: {counts}, {len(faults)} faults; at most "
        f"{slowest:.1f} s and {largest} MB"
    )
    sys.stdout.write(said + "\n")
    if "SIMMAT_FUZZ_LOG" in os.environ:
        with Path(os.environ["SIMMAT_FUZZ_LOG"]).open("a") as log:
            log.write("\n".join([said, *faults]) + "\n")
    assert not faults, "\n".join([said, *faults[:20]])
