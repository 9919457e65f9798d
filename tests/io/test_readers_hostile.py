"""Files made to hang, to exhaust the memory or to read other files: each is one sentence."""

import gzip
import json
import os
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_simmat.checkpoints.loading import load_model
from napari_simmat.io.image_file import TURNED
from napari_simmat.io.readers import read_image
from tests.opening import Opener

PLANE = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30)


@pytest.fixture(scope="module")
def opener():
    if sys.platform == "win32":
        pytest.skip("pipes cannot be waited for")
    with Opener() as opener:
        yield opener


def tiff(
    path: Path, *pages: dict[int, tuple[int, int, Any]], chain: list[int] | None = None
) -> Path:
    """Write a little-endian TIFF from tags ``{code: (type, count, value)}``.

    `chain` gives for each page the number of the next; by default they follow each other.
    """
    places, body, end = [], b"", 8
    for tags in pages:
        places.append(end)
        body += struct.pack("<H", len(tags))
        extra, beyond = b"", end + 2 + 12 * len(tags) + 4
        for code, (kind, count, value) in sorted(tags.items()):
            if isinstance(value, bytes) and len(value) > 4:
                body += struct.pack("<HHII", code, kind, count, beyond + len(extra))
                extra += value
            else:
                held = value if isinstance(value, bytes) else struct.pack("<I", value)
                body += struct.pack("<HHI", code, kind, count) + held.ljust(4, b"\0")
        body += b"\xee\xee\xee\xee" + extra
        end = 8 + len(body)
    following = chain or [*range(1, len(pages)), -1]
    for n, place in enumerate(places):
        at = place - 8 + 2 + 12 * len(pages[n])
        after = struct.pack("<I", places[following[n]] if following[n] >= 0 else 0)
        body = body[:at] + after + body[at + 4 :]
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + body + bytes(4096))
    return path


def tags(height: int = 20, width: int = 30, **more: tuple[int, int, Any]) -> dict[int, Any]:
    """Tags of a gray page of 8 bits in one strip."""
    own = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
        273: (4, 1, 64), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, height * width % 2**32),
    }  # fmt: skip
    return own | {int(code[1:]): value for code, value in more.items()}


def huge_tiff(folder: Path) -> Path:
    return tiff(folder / "huge.tif", tags(2**31, 2**31))


def tiles_of_one_pixel(folder: Path) -> Path:
    tiled = tags(15_000, 15_000, t322=(4, 1, 16), t323=(4, 1, 1), t324=(4, 1, 64), t325=(4, 1, 16))
    return tiff(folder / "tiles.tif", {k: v for k, v in tiled.items() if k not in (273, 278, 279)})


def circle_of_pages(folder: Path) -> Path:
    pages = [tags() for _ in range(300)]
    return tiff(folder / "circle.tif", *pages, chain=[*range(1, 300), 150])


def million_pages(folder: Path) -> Path:
    """Each page is 6 bytes: no tags, and where the next is."""
    first = tiff(folder / "million.tif", tags(), tags()).read_bytes()
    start = len(first) + len(first) % 2
    chain = b"".join(struct.pack("<HI", 0, start + 6 * (n + 1)) for n in range(1_000_000))
    head = bytearray(first.ljust(start, b"\0"))
    head[8 + 2 + 12 * 9 : 8 + 2 + 12 * 9 + 4] = struct.pack("<I", start)
    (folder / "million.tif").write_bytes(bytes(head) + chain + bytes(6))
    return folder / "million.tif"


def bursting_strip(folder: Path) -> Path:
    """A strip of 600 pixels that unpacks to 500 MB."""
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes(2**24)) for _ in range(32)) + packer.flush()
    path = tiff(folder / "strip.tif", tags(t259=(3, 1, 8)) | {279: (4, 1, len(packed))})
    data = path.read_bytes()
    at = data.index(struct.pack("<HHII", 273, 4, 1, 64)) + 8
    path.write_bytes(data[:at] + struct.pack("<I", len(data)) + data[at + 4 :] + packed)
    return path


def long_description(folder: Path) -> Path:
    path = tiff(folder / "words.tif", tags(t270=(2, 10**9, 64)))
    with path.open("ab") as file:
        file.truncate(2 * 10**9)
    return path


def empty_tiff(folder: Path) -> Path:
    return tiff(folder / "empty.tif", tags(0, 30))


def ome(folder: Path, pixels: str, rest: str = "", name: str = "image.ome.tif") -> Path:
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
        f'SizeX="30" SizeY="20" SizeC="1" SizeT="1" {pixels}</Pixels></Image>{rest}</OME>'
    )
    tifffile.imwrite(folder / name, PLANE, description=xml, metadata=None)
    return folder / name


def many_planes(folder: Path) -> Path:
    return ome(folder, 'SizeZ="900000"><TiffData IFD="0" PlaneCount="900000"/>')


def foreign(folder: Path, name: str) -> Path:
    (folder.parent / "secret.tif").unlink(missing_ok=True)
    tifffile.imwrite(folder.parent / "secret.tif", PLANE)
    uuid = f'<UUID FileName="{name}">urn:uuid:7</UUID>'
    one = '<TiffData FirstZ="0" IFD="0" PlaneCount="1"/>'
    return ome(folder, f'SizeZ="2">{one}<TiffData FirstZ="1" PlaneCount="1">{uuid}</TiffData>')


def foreign_link(folder: Path) -> Path:
    path = foreign(folder, "link.tif")
    (folder / "link.tif").symlink_to(folder.parent / "secret.tif")
    return path


def foreign_index(folder: Path) -> Path:
    """NDTiff keeps the names of its files in an index beside them."""
    tifffile.imwrite(folder.parent / "secret.tif", PLANE)
    path = folder / "a_NDTiffStack.tif"
    tifffile.imwrite(path, PLANE, metadata=None)
    data = path.read_bytes()  # its own header marks NDTiff: a version behind TIFF's
    magic = struct.pack("<IIIII", 483729, 3, 1, 2355492, 4) + b"{  }"
    shift = len(magic)
    with tifffile.TiffFile(path) as file:
        [page] = file.pages
        strip = page.dataoffsets[0]
        own = {tag.code: (tag.dtype.value, tag.count, tag.value) for tag in page.tags.values()}
    plain = {
        code: (kind, 1, int(value[0] if isinstance(value, tuple) else value))
        for code, (kind, _, value) in own.items()
        if code in (256, 257, 258, 259, 262, 273, 277, 278, 279)
    }
    plain |= {273: (4, 1, 512), 51123: (2, 4, 28)}
    written = tiff(path, plain).read_bytes()
    page_bytes = written[8 : 8 + 2 + 12 * len(plain) + 4]
    moved = b"II*\0" + struct.pack("<I", 8 + shift) + magic + page_bytes
    path.write_bytes(moved.ljust(512, b"\0") + data[strip : strip + PLANE.nbytes])
    entry = b""
    for number, name in enumerate((path.name, "../secret.tif")):
        axes = json.dumps({"z": number}).encode()
        entry += struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name.encode()
        entry += struct.pack("<IIIIIIII", 512, 30, 20, 1, 0, 0, 0, 0)
    (folder / "NDTiff.index").write_bytes(entry)
    return path


def npy(path: Path, shape: str, kind: str = "|u1", size: int = 0) -> Path:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode())
    with path.open("ab") as file:
        file.truncate(size or 4096)
    return path


def picture(folder: Path) -> Path:
    """A PNG of 13,000 x 13,000 zeros: 160 KB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size, packer = 13_000, zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(size + 1)) for _ in range(size)) + packer.flush()
    head = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    path = folder / "zeros.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return path


def zarr_folder(path: Path, shape: list[int], chunks: list[int], kind: str = "|u1") -> Path:
    path.mkdir()
    described = {
        "zarr_format": 2, "shape": shape, "chunks": chunks, "dtype": kind, "compressor": None,
        "fill_value": "" if "U" in kind else 0, "order": "C", "filters": None,
    }  # fmt: skip
    (path / ".zarray").write_text(json.dumps(described))
    (path / ".zattrs").write_text("{}")
    return path


def zarr_link(folder: Path) -> Path:
    (folder.parent / "secret.bin").write_bytes(bytes(range(64)))
    path = zarr_folder(folder / "link.zarr", [8, 8], [8, 8])
    (path / "0.0").symlink_to(folder.parent / "secret.bin")
    return path


def dicom(path: Path, **changes: Any) -> Path:
    from tests.io.test_dicom import write_slice

    write_slice(path, PLANE, **changes)
    return path


def long_header(path: Path) -> Path:
    """A NIfTI or .npy whose header has a gigabyte."""
    if path.suffix == ".nii":
        data = bytearray(nifti(path, (30, 20)).read_bytes())
        struct.pack_into("<f", data, 108, 10**9)
        data[348:352] = b"\1\0\0\0"  # extensions follow
        data[352:360] = struct.pack("<ii", 10**9 - 352, 6)
    else:
        data = bytearray(b"\x93NUMPY\x02\0" + struct.pack("<I", 10**9))
    path.write_bytes(data)
    with path.open("ab") as file:
        file.truncate(2 * 10**9)
    return path


def nifti(path: Path, shape: tuple[int, ...], kind: int = 4, slope: float = 0.0) -> Path:
    """NIfTI-1 that claims `shape` of 16 bits, and holds 20 x 30."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, len(shape), *shape, *([1] * (7 - len(shape))))
    struct.pack_into("<hh", head, 70, kind, {4: 16, 64: 64}[kind])
    struct.pack_into("<8f", head, 76, *([1.0] * 8))
    struct.pack_into("<fff", head, 108, 352, slope, 0)
    head[344:348] = b"n+1\0"
    content = bytes(head) + PLANE.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def text_nifti(folder: Path) -> Path:
    return nifti(folder / "a.nii", (30, 20), slope=3e38)


def made(make: Callable[..., Path], name: str, *given: Any, **named: Any) -> Callable[[Path], Path]:
    """Makes a file of this name in a folder."""
    return lambda folder: make(folder / name, *given, **named)


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "TIFF of absurd size": (huge_tiff, "claims"),
    "TIFF in tiles of a pixel": (tiles_of_one_pixel, "pieces"),
    "TIFF whose pages go round": (circle_of_pages, "in a circle"),
    "TIFF of a million pages": (million_pages, "pages"),
    "TIFF strip that bursts": (bursting_strip, ""),
    "TIFF of a gigabyte of words": (long_description, "claims 1 GB of metadata in tag 270"),
    "TIFF without rows": (empty_tiff, "no pixel"),
    "OME-TIFF of absurd length": (many_planes, "planes"),
    "OME-TIFF that names /etc/passwd": (lambda p: foreign(p, "/etc/passwd"), "outside its folder"),
    "OME-TIFF that names a neighbor": (lambda p: foreign(p, "../secret.tif"), "outside its fold"),
    "OME-TIFF that hides a slash": (
        lambda p: foreign(p, "..&#47;secret.tif"),
        "outside its folder",
    ),
    "OME-TIFF that names a link": (foreign_link, "outside its folder"),
    "OME-TIFF of a companion": (
        lambda p: ome(p, 'SizeZ="1">', '<BinaryOnly MetadataFile="../x.ome" UUID="urn:uuid:1"/>'),
        "outside its folder",
    ),
    "NDTiff index that names a neighbor": (foreign_index, "outside its folder"),
    "npy of absurd shape": (made(npy, "a.npy", f"({2**40}, {2**20})"), "claims 1.15 EB"),
    "npy with a long header": (made(long_header, "a.npy"), "has a header of 1 GB"),
    "NIfTI with a long header": (made(long_header, "a.nii"), "claims 1 GB of header"),
    "npy that is a hole": (made(npy, "a.npy", "(1000, 10000, 10000)", size=10**11 + 128), "hole"),
    "npy without columns": (made(npy, "a.npy", "(20, 0)"), "no pixel"),
    "npy of text": (made(npy, "a.npy", "(20, 30)", "<U1"), "text"),
    "npy of records": (
        lambda p: np.save(p / "a.npy", np.zeros((20, 30), "i2,f4")) or p / "a.npy",
        "numbers",
    ),
    "PNG of 169 million zeros": (picture, "pixels"),
    "Zarr in chunks of a pixel": (made(zarr_folder, "a.zarr", [15_000, 15_000], [1, 1]), "pieces"),
    "Zarr that is a hole": (
        made(zarr_folder, "a.zarr", [3, 65_536, 30], [1, 20, 16]),
        "hole: of its 19,662 pieces the disk holds 0",
    ),
    "Zarr that is a wide hole": (
        made(zarr_folder, "a.zarr", [3, 20, 65_536], [1, 20, 16]),
        "hole: of its 12,288 pieces the disk holds 0",
    ),
    "Zarr of absurd chunks": (
        made(zarr_folder, "a.zarr", [2**31, 2**31], [2**31, 2**31]),
        "claims",
    ),
    "Zarr without rows": (made(zarr_folder, "a.zarr", [0, 8], [1, 8]), "no pixel"),
    "Zarr of text": (made(zarr_folder, "a.zarr", [8, 8], [8, 8], "<U4"), "text"),
    "Zarr with a link": (zarr_link, "outside"),
    "DICOM of 200 million frames": (made(dicom, "a.dcm", NumberOfFrames=200_000_000), "frames"),
    "DICOM of 2 million frames": (made(dicom, "a.dcm", NumberOfFrames=2_000_000), "frames"),
    "DICOM without columns": (made(dicom, "a.dcm", Columns=0), "no pixel"),
    "DICOM without rows": (made(dicom, "a.dcm", Rows=0), "no pixel"),
    "DICOM whose values overflow": (
        made(dicom, "a.dcm", RescaleSlope="1e38", RescaleIntercept="0"),
        "overflow",
    ),
    "NIfTI of absurd size": (made(nifti, "a.nii", (32767,) * 5), "claims"),
    "NIfTI scaled, of 2 GB": (made(nifti, "a.nii", (1000, 1000, 1000), slope=2), "claims"),
    "NIfTI packed, of 2 GB": (made(nifti, "a.nii.gz", (1000, 1000, 1000)), "claims"),
    "NIfTI without slices": (made(nifti, "a.nii", (30, 20, 0)), "no pixel"),
    "NIfTI whose values overflow": (text_nifti, "overflow"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_read_image_hostile_file_is_refused(case, opener, tmp_path):
    make, words = HOSTILE[case]
    folder = tmp_path / "given"
    folder.mkdir()
    [found] = opener.open(make(folder))
    assert not found.fault, found.fault
    assert found.outcome == "refused"
    assert re.search(words, found.words)


META_IMAGE = (
    b"NDims = 2\nBinaryData = True\nCompressedData = True\nCompressedDataSize = %d\n"
    b"DimSize = 30 20\nElementType = MET_USHORT\nElementDataFile = LOCAL\n"
)


NO_HEADER = "has a header that SimpleITK cannot read"
PACKED = zlib.compress(PLANE.tobytes())
DAMAGED_META_IMAGE = {
    "its voxels": (PACKED[-300:-290], bytes(10), r"holds .* of 1\.2 kB of voxels"),
    "cut short": (PACKED[-50:], b"", r"holds .* of 1\.2 kB of voxels"),
    "a smaller size": (b"DataSize = 9", b"DataSize = 8", r"holds .* of 1\.2 kB of voxels"),
    "no size": (b"CompressedDataSize", b"CompressedSize", "holds 0 bytes of"),
    "not packed": (b"edData = True", b"edData = False", r"does not hold 1\.2 kB of voxels"),
    "no axes": (b"DimSize", b"DimSides", NO_HEADER),
    "many axes": (b"NDims = 2", b"NDims = 99999999999", "does not have 2 to 4 axes"),
    "hidden axes": (b"NDims = 2", b"NDims\0 : 99", "does not have 2 to 4 axes"),
    "a long name": (b"NDims", b"Name = %s\nNDims" % (b"x" * 300), "has a name of more than 250"),
    "half a place": (b"30 20\n", b"30 20\nOffset = 0\n", NO_HEADER),
    "no type": (b"MET_USHORT", b"MET_SHIRT", NO_HEADER),
    "no file": (b"ElementDataFile", b"ElementFile", "does not say where its voxels are"),
}


@pytest.mark.parametrize("case", DAMAGED_META_IMAGE)
def test_meta_image_damaged_is_refused(case, tmp_path):
    """Alone, SimpleITK reads wrong voxels for the first and fourth, and crashes of many axes."""
    pytest.importorskip("SimpleITK")
    old, new, words = DAMAGED_META_IMAGE[case]
    path = tmp_path / "a.mha"
    content = META_IMAGE % len(PACKED) + PACKED
    path.write_bytes(content)
    assert np.array_equal(read_image(path).data, PLANE)
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match=rf"^a\.mha is damaged: it {words}.*; copy it again\.$"):
        read_image(path)


RAW_META_IMAGE = b"NDims = 2\nDimSize = 30 20\nElementType = MET_USHORT\n"


@pytest.mark.parametrize(
    "named",
    [
        b"ElementDataFile = ../secret.raw",
        b"ElementDataFile : ../secret.raw",
        b"ElementDataFile = LIST\n../secret.raw",
        b"ElementDataFile = ../secret%d.raw 1 1 1",
        b"ElementDataFile = http://localhost/secret.raw",
        b"ElementDataFile\0x = ../secret.raw",
        b"elementdatafile = LOCAL\nElementDataFile = ../secret.raw",
        b"ElementDataFile = link.raw",
        b"ElementDataFile = gone.raw",
    ],
)
def test_meta_image_reads_no_file_elsewhere(named, tmp_path):
    """SimpleITK alone reads the first three, the one with a null byte, and the second name."""
    pytest.importorskip("SimpleITK")
    (tmp_path / "secret.raw").write_bytes(PLANE.tobytes())
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    path = folder / "a.mhd"
    path.write_bytes(RAW_META_IMAGE + named + b"\n")
    with pytest.raises(ValueError, match=r"^[^.]+\.(mhd|raw) .*\.$") as refused:
        read_image(path)
    assert re.search("beside it|leads out|does not say where", str(refused.value))


def test_meta_image_is_checked_before_its_voxels_get_memory(tmp_path):
    pytest.importorskip("SimpleITK")
    path = tmp_path / "a.mha"
    huge = RAW_META_IMAGE.replace(b"30 20", b"2000000 2000000")
    path.write_bytes(huge + b"ElementDataFile = LOCAL\n" + PLANE.tobytes())
    with pytest.raises(ValueError, match=r"a\.mha claims 8 TB of pixels but holds at most"):
        read_image(path)


def test_tiff_missing_planes_are_noted(tmp_path):
    path = ome(tmp_path, 'SizeZ="3"><TiffData FirstZ="0" IFD="0" PlaneCount="1"/>')
    file = read_image(path)
    assert file.notes == ("2 of its 3 planes are missing, and read as 0.",)
    assert file.data.shape == (3, 20, 30)
    assert not file.data[1:].any()


def test_tiff_other_files_are_noted_and_hashed(tmp_path):
    tifffile.imwrite(tmp_path / "b.tif", PLANE + 1, metadata=None)
    uuid = '<UUID FileName="b.tif">urn:uuid:7</UUID>'
    one = '<TiffData FirstZ="0" IFD="0" PlaneCount="1"/>'
    more = f'<TiffData FirstZ="1" IFD="0" PlaneCount="1">{uuid}</TiffData>'
    path = ome(tmp_path, f'SizeZ="2">{one}{more}')
    file = read_image(path)
    assert np.array_equal(file.data, np.stack([PLANE, PLANE + 1]))
    assert file.notes == ("It continues in b.tif.",)
    assert file.files == (path, tmp_path / "b.tif")
    before = file.sha256()
    tifffile.imwrite(tmp_path / "b.tif", PLANE + 2, metadata=None)
    assert read_image(path).sha256() != before


def test_tiff_broken_chain_of_pages_is_noted(tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.stack([PLANE] * 4), photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        last = file.pages[3].offset
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", last), struct.pack("<I", 2**31)))
    file = read_image(path)
    assert file.shape[0] == 3
    assert file.notes == ("Its list of pages breaks off behind page 3.",)


@pytest.mark.parametrize("kind", ["tif", "zarr"])
def test_lazy_array_damaged_part_names_the_file(tmp_path, kind):
    stack = np.random.default_rng(0).integers(0, 255, (3, 200, 300)).astype(np.uint8)
    path = tmp_path / f"stack.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, stack, compression="zlib", photometric="minisblack")
        path.write_bytes(path.read_bytes()[:-40_000])
    else:
        import zarr

        zarr.create_array(path, data=stack, chunks=(1, 200, 300))
        (path / "c" / "2" / "0" / "0").write_bytes(b"(\xb5/\xfd damaged")
    file = read_image(path, lazy_above=0)
    assert np.array_equal(file.data[0], stack[0])
    with pytest.raises(ValueError, match=rf"stack\.{kind} could not be read \(.*\); it may be dam"):
        file.data[2]


def test_read_image_out_of_memory_is_explained(tmp_path, monkeypatch):
    def run_out(*_):
        raise MemoryError("Unable to allocate 3.47 EiB for an array with shape (9,)")

    np.save(tmp_path / "a.npy", PLANE)
    monkeypatch.setattr(np, "memmap", run_out)
    with pytest.raises(ValueError, match=r"a\.npy needs more memory than is free \(\d"):
        read_image(tmp_path / "a.npy")


def test_nifti_forged_gzip_length_is_refused(tmp_path):
    whole = nifti(tmp_path / "a.nii", (30, 20)).read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(whole[:700]) + gzip.compress(whole[700:]))
    assert np.array_equal(read_image(tmp_path / "b.nii.gz").data, PLANE)
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(whole[:700]))
    with pytest.raises(ValueError, match=r"c\.nii\.gz claims 1\.2 kB of pixels but holds at most"):
        read_image(tmp_path / "c.nii.gz")


def test_dicom_deflated_is_read_if_small(tmp_path, monkeypatch):
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    path = tmp_path / "a.dcm"
    import pydicom

    file = pydicom.dcmread(dicom(path))
    file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file.save_as(path)
    assert np.array_equal(read_image(path).data, PLANE)
    monkeypatch.setattr("napari_simmat.io.dicom._MAX_DEFLATED", 500)
    with pytest.raises(ValueError, match=r"a\.dcm is deflated as a whole and has .* kB, which c"):
        read_image(path)


@pytest.mark.parametrize(("read", "name"), [(read_image, "a.tif"), (load_model, "a.safetensors")])
def test_read_image_or_model_of_a_pipe_is_refused(tmp_path, read, name):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} is a pipe or device"):
        read(tmp_path / name)


def test_picture_turned_by_exif_is_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "a.png"):
        Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / name, exif=exif)
        file = read_image(tmp_path / name)
        assert file.shape == (4, 6)
        assert file.notes == (TURNED.format(6),)
