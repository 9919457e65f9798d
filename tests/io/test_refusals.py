"""What is said of a file that is not read: of a damaged one, and of a reader that fails."""

import json
import struct
from types import FunctionType

import numpy as np
import pytest
import tifffile

from napari_simmat.io import readers
from napari_simmat.io.readers import read_image
from napari_simmat.io.refusals import RefusedFileError, unreadable, unreadable_part


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((6, 8), np.uint8))
    return path


def said_of(path):
    with pytest.raises(RefusedFileError) as error:
        read_image(path)
    return str(error.value)


def failing_in(module, error):
    """A function of a module, which raises an error whatever it is given."""

    def fail(*_, **__):
        raise error

    return FunctionType(fail.__code__, {"__name__": module}, closure=fail.__closure__)


def test_fault_of_a_package_is_told_as_its_fault(picture, monkeypatch):
    error = AttributeError("'TiffPage' object has no attribute 'tags2'")
    monkeypatch.setattr(readers, "_start_of", failing_in("tifffile.tifffile", error))
    said = said_of(picture)
    assert said.startswith(
        "a.tif could not be read: tifffile failed (AttributeError: 'TiffPage' object has no "
        "attribute 'tags2'). That is a fault of tifffile, unless no other program reads the file"
    )
    assert "copy it again" not in said


def test_fault_of_this_program_is_told_as_its_fault(picture, monkeypatch):
    monkeypatch.setattr(readers, "_start_of", lambda _: None)  # which a format looks into
    said = said_of(picture)
    assert said.startswith("a.tif could not be read: napari-simmat failed (TypeError: ")
    assert "That is a fault of napari-simmat" in said


@pytest.mark.parametrize("kind", [NameError, UnboundLocalError, AssertionError, TypeError])
def test_fault_without_a_trace_is_that_of_the_reader(kind):
    said = str(unreadable("a.tif", kind("/home/me/lib/x.py is odd")))
    assert said.startswith(f"a.tif could not be read: its reader failed ({kind.__name__}: x.py is")


def test_package_that_cannot_be_loaded_is_named(picture, monkeypatch):
    def fail(*_):
        raise ModuleNotFoundError("No module named 'imagecodecs'", name="imagecodecs")

    monkeypatch.setattr(readers, "_start_of", fail)
    assert said_of(picture) == (
        "a.tif could not be read, for a package is missing or broken (No module named "
        "'imagecodecs'); install it again."
    )


@pytest.mark.parametrize(
    "error",
    [
        ValueError("failed to read 1200 bytes, got 1100"),
        IndexError(0),
        KeyError("SizeC"),
        ZeroDivisionError("division by zero"),
        struct.error("unpack requires a buffer of 2 bytes"),
        json.JSONDecodeError("Invalid control character", "", 0),
        EOFError("Compressed file ended"),
    ],
)
def test_what_damage_causes_is_told_as_damage(error):
    assert "may be damaged or cut short; copy it again" in str(unreadable("a.tif", error))


def test_part_of_an_image_tells_a_fault_from_damage():
    said = str(unreadable_part("the image", TypeError("no int")))
    assert said.startswith("A part of the image could not be read: its reader failed (TypeError: ")
    damaged = str(unreadable_part("the image", OSError("Input/output error")))
    assert damaged == (
        "A part of the image could not be read (Input/output error); its file may be damaged or "
        "gone. Open it again."
    )
    refused = RefusedFileError("a.tif is cut short.")
    assert unreadable_part("the image", refused) is refused
