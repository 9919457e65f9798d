"""Good files of every format that is read: bytes by name within a folder; the first is given."""

import gzip
import re
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.io.files import ASSETS
from napari_simmat.progress import finish
from tests.opening import IMAGE_SHAPE

STACK = np.random.default_rng(0).integers(0, 4000, (3, 20, 30)).astype(np.uint16)


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


def fits_files() -> list[dict[str, bytes]]:
    fits = pytest.importorskip("astropy.io.fits")
    made = []
    for data in (STACK, STACK[0].astype(np.float32)):
        for units in ([fits.PrimaryHDU(data)], [fits.PrimaryHDU(), fits.CompImageHDU(data)]):
            file = BytesIO()
            fits.HDUList(units).writeto(file)
            made.append({"a.fits": file.getvalue()})
    return made


def niftis() -> list[dict[str, bytes]]:
    nibabel = pytest.importorskip("nibabel")
    plain = nibabel.Nifti1Image(STACK.astype(np.int16).T, np.eye(4))
    scaled = nibabel.Nifti1Image(STACK.astype(np.int16).T, np.eye(4))
    scaled.header.set_slope_inter(0.5, 3)
    made = [{"a.nii": image.to_bytes()} for image in (plain, scaled)]
    return [*made, {"a.nii.gz": gzip.compress(plain.to_bytes())}]


def itks() -> list[dict[str, bytes]]:
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
    names = ("thermal", "polarization", "tiny-6")
    checkpoints = [{f"{n}.safetensors": (ASSETS / f"{n}.safetensors").read_bytes()} for n in names]
    return [*checkpoints, {"a.pth": weights.getvalue()}]


def sessions() -> list[dict[str, bytes]]:
    from napari_simmat.annotation import history, prompt_state, session_lines
    from napari_simmat.engine.label_edit import LabelEdit
    from napari_simmat.engine.masks import ObjectMask
    from napari_simmat.engine.prompts import Prompt

    labels = np.zeros(IMAGE_SHAPE, np.int32)
    lines = [session_lines.SessionHeader("image", IMAGE_SHAPE, "tiny", ("gray",)).line()]
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
        lines.append(session_lines.line_of("do", history.Command("commit", before, empty, edit)))
    lines += [session_lines.line_of(what) for what in ("undo", "redo", "undo", "drop")]
    lines.append(session_lines.line_of("anew", ("a", (1, 2))))
    region = ((0, 0, 0), IMAGE_SHAPE)
    lines += finish(session_lines.begin_lines_job("a", labels, region))
    lines += [session_lines.line_of("forget", "b"), session_lines.line_of("saved")]
    return [{"a_session.jsonl": "".join(lines[:n]).encode()} for n in (4, 7, len(lines))]


def prompts() -> list[dict[str, bytes]]:
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
    "GIF": lambda: pictures("GIF", "L", "P"),
    "WebP": lambda: pictures("WEBP", "RGB", "RGBA"),
    "JPEG 2000": lambda: pictures("JPEG2000", "L", "RGB", "I;16"),
    "npy": npys,
    "FITS": fits_files,
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
