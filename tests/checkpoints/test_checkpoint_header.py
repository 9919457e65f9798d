import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest

from napari_simmat.checkpoints.checkpoint import file_kind, read_header


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


def test_read_header_gives_texts_and_names(tmp_path):
    path = tmp_path / "a.safetensors"
    both = {**tensor(), "b": {"dtype": "F16", "shape": [2, 2], "data_offsets": [8, 16]}}
    path.write_bytes(safetensors({"__metadata__": {"key": "text"}, **both}, bytes(16)))
    header = read_header(path)
    assert header.texts == {"key": "text"}
    assert sorted(header.names) == ["a", "b"]
    assert not header.is_described


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"is empty \(0 bytes\)\. Copy or download it again"),
    "text": (b"not a model at all, but a few words", "is neither a checkpoint .* nor PyTorch"),
    "one byte": (b"\x80", "is neither a checkpoint .* nor PyTorch"),
    "pickle": (pickle.dumps({"a": 1}, protocol=4), "is a Python pickle, which can run code"),
    "torch": (b"PK\x03\x04" + bytes(30), "holds PyTorch weights, not a checkpoint"),
    "header of a terabyte": (safetensors(tensor(), length=1 << 40), "is neither a checkpoint"),
}

DAMAGED = {
    "cut in the header": safetensors(tensor(), bytes(8))[:40],
    "cut in the data": safetensors(tensor(), bytes(5)),
    "something behind": safetensors(tensor(), bytes(9)),
    "no JSON": safetensors(b"{nonsense"),
    "no UTF-8": safetensors(b'{"\xff": 1}'),
    "deep": safetensors(b'{"a":' * 100_000),
    "digits": safetensors(b'{"a":' + b"9" * 9999 + b"}"),
    "metadata no text": safetensors({"__metadata__": {"a": 1}}),
    "metadata a list": safetensors({"__metadata__": []}),
    "metadata long": safetensors({"__metadata__": "x" * 5000}),
    "no table": safetensors({"a": 3}),
    "no shape": safetensors({"a": {"dtype": "F32"}}),
    "unknown type": safetensors(tensor(dtype="PICKLE"), bytes(8)),
    "type a list": safetensors(tensor(dtype=[]), bytes(8)),
    "negative shape": safetensors(tensor(shape=[-2]), bytes(8)),
    "fractional shape": safetensors(tensor(shape=[2.0]), bytes(8)),
    "boolean shape": safetensors(tensor(shape=[True]), bytes(8)),
    "other shape": safetensors(tensor(shape=[3]), bytes(8)),
    "huge shape": safetensors(tensor(shape=[1 << 40] * 4)),
    "gap": safetensors(tensor(data_offsets=[4, 12]), bytes(12)),
    "overlap": safetensors({**tensor(), "b": tensor()["a"]}, bytes(8)),
}
BROKEN |= {case: (content, r"is cut off or damaged \(") for case, content in DAMAGED.items()}


@pytest.mark.parametrize("case", BROKEN)
def test_read_header_of_broken_file_is_refused(case, tmp_path):
    content, sentence = BROKEN[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_header(path)
    assert str(caught.value).startswith("model.safetensors ")
    assert str(caught.value).endswith(".")
    assert len(str(caught.value)) < 300


def test_file_kind_of_missing_file_or_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*a\.safetensors\. Check"):
        read_header(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").mkdir()
    with pytest.raises(ValueError, match=r"b\.safetensors is a folder, but a model is one file"):
        read_header(tmp_path / "b.safetensors")


def test_file_kind_of_unreadable_file_is_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors(tensor(), bytes(8)))
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match=r"cannot be read \(Permission denied\)"):
        read_header(path)


def pickled(_: Path) -> bytes:
    return pickle.dumps({"a": 1}, protocol=2)


def zipped(folder: Path) -> bytes:
    import zipfile

    with zipfile.ZipFile(folder / "z", "w") as archive:
        archive.writestr("a/data.pkl", "x")
    return (folder / "z").read_bytes()


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda _: safetensors(tensor(), bytes(8)), "safetensors"),
        # A header of 640 bytes starts with the bytes of a pickle.
        (lambda _: safetensors(b"{" + b" " * 639), "safetensors"),
        (zipped, "torch"),
        (pickled, "torch"),
    ],
)
def test_file_kind_follows_the_content_not_the_name(make, kind, tmp_path):
    path = tmp_path / "anything.txt"
    path.write_bytes(make(tmp_path))
    assert file_kind(path) == kind
