import os
import shutil
from pathlib import Path

import pytest

from napari_simmat.batch.inputs import InputImage, find_inputs
from napari_simmat.batch.plan import OutputFiles
from napari_simmat.engine.settings import ChannelSelection


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def found(folder: Path, *words: object, **options: object) -> list[str]:
    inputs = find_inputs([Path(str(word)) for word in words], **options)
    return [one.image.relative_to(folder).as_posix() for one in inputs.images]


def test_find_inputs_folder_is_sorted_by_name(tmp_path):
    touch(tmp_path, "b.tif", "a.PNG", "sub/deep/c.nii.gz", "z.txt", ".git/d.tif", "._b.tif")
    assert found(tmp_path, tmp_path) == ["a.PNG", "b.tif", "sub/deep/c.nii.gz"]
    assert [path.name for path in find_inputs([tmp_path]).others] == ["z.txt"]
    assert find_inputs([tmp_path]).images[2].folder == Path("sub/deep")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.tif", ["a.tif", "p1/b.tif", "p2/c.tif"]),
        ("p*/*.tif", ["p1/b.tif", "p2/c.tif"]),
        ("*.dat", ["p1/d.dat"]),
    ],
)
def test_find_inputs_pattern_selects_files(tmp_path, pattern, names):
    touch(tmp_path, "a.tif", "p1/b.tif", "p2/c.tif", "p1/d.dat")
    assert found(tmp_path, tmp_path, pattern=pattern) == names


def test_find_inputs_glob_is_mirrored_from_its_wildcard(tmp_path):
    touch(tmp_path, "data/x/a.tif", "data/y/b.tif", "data/c.png")
    inputs = find_inputs([tmp_path / "data" / "**" / "*.tif"])
    assert [(one.image.name, one.folder) for one in inputs.images] == [
        ("a.tif", Path("x")),
        ("b.tif", Path("y")),
    ]
    assert not inputs.images[0].named


def test_find_inputs_brackets_in_a_folder_are_literal(tmp_path, monkeypatch):
    touch(tmp_path, "run [2]/x/a.tif", "run [2]/y/b[1].tif", "run 2/c.tif")
    assert found(tmp_path, tmp_path / "run [2]" / "*" / "*.tif") == [
        "run [2]/x/a.tif",
        "run [2]/y/b[1].tif",
    ]
    assert found(tmp_path, tmp_path / "run [2]" / "y" / "b[1].tif") == ["run [2]/y/b[1].tif"]
    assert found(tmp_path, tmp_path / "run [1-3]" / "*.tif") == ["run 2/c.tif"]
    monkeypatch.chdir(tmp_path)
    [first, _] = find_inputs([Path("run [2]/*/*.tif")]).images
    assert (first.image, first.folder) == (Path("run [2]/x/a.tif"), Path("x"))


def test_find_inputs_without_images_is_refused(tmp_path):
    touch(tmp_path, "data/a.txt")
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nothing\.tif"):
        find_inputs([tmp_path / "nothing.tif"])
    with pytest.raises(FileNotFoundError, match="No file matches"):
        find_inputs([tmp_path / "*.tif"])
    with pytest.raises(ValueError, match=r"There is no file with an image's ending \(\.tif"):
        find_inputs([tmp_path / "data"])
    with pytest.raises(ValueError, match=r"There is no file that matches \*\.tif"):
        find_inputs([tmp_path / "data"], pattern="*.tif")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_find_inputs_links_to_folders_are_skipped(tmp_path):
    touch(tmp_path, "a.tif")
    (tmp_path / "circle").symlink_to(tmp_path)
    assert found(tmp_path, tmp_path) == ["a.tif"]


@pytest.mark.skipif(os.name == "nt", reason="it is one there")
def test_find_inputs_name_with_tilde_is_found(tmp_path, monkeypatch):
    touch(tmp_path, "~no one.tif")
    monkeypatch.chdir(tmp_path)
    assert [one.image for one in find_inputs([Path("~no one.tif")]).images] == [Path("~no one.tif")]
    [one] = find_inputs([manifest(tmp_path, "image", "~no one.tif")]).images
    assert one.image == tmp_path / "~no one.tif"


def test_find_inputs_pattern_finds_dicom_folders(tmp_path, monkeypatch):
    touch(tmp_path, "one/1.dcm", "other/1.dcm", "notes/a.txt")
    monkeypatch.setattr("napari_simmat.batch.inputs.images_in", series_of_one)
    assert found(tmp_path, tmp_path / "*") == ["one", "other"]


def test_find_inputs_plate_is_a_folder_of_images(tmp_path):
    touch(tmp_path, "data/p.zarr/.zgroup", "data/p.zarr/A/.zgroup", "data/p.zarr/A/1/.zgroup")
    for field in ("A/1/0", "A/1/1", "B/2/0"):
        touch(tmp_path, f"data/p.zarr/{field}/.zattrs", f"data/p.zarr/{field}/0/0.0")
        (tmp_path / "data/p.zarr" / field / ".zattrs").write_text('{"multiscales": [{}]}')
        touch(tmp_path, f"data/p.zarr/{field}/0/.zarray")
    touch(tmp_path, "data/p.zarr/B/.zgroup", "data/p.zarr/B/2/.zgroup")
    (tmp_path / "data/p.zarr/.zattrs").write_text('{"plate": {}}')
    fields = [f"data/p.zarr/{field}" for field in ("A/1/0", "A/1/1", "B/2/0")]
    assert found(tmp_path, tmp_path / "data") == fields
    assert found(tmp_path, tmp_path / "data/p.zarr") == fields
    inputs = find_inputs([tmp_path / "data/p.zarr"])
    assert [str(each.folder) for each in inputs.images] == ["A/1", "A/1", "B/2"]
    assert inputs.others == []
    for folder in ("A", "A/1", "B", "B/2"):  # some leave out rows and wells
        (tmp_path / "data/p.zarr" / folder / ".zgroup").unlink()
    assert found(tmp_path, tmp_path / "data") == fields
    touch(tmp_path, "data/image.zarr/.zarray")
    inputs = find_inputs([tmp_path / "data" / "*.zarr"])
    assert [each.image.relative_to(tmp_path).as_posix() for each in inputs.images] == [
        "data/image.zarr",
        *fields,
    ]
    assert inputs.images[1].folder == Path("p.zarr/A/1")
    shutil.rmtree(tmp_path / "data/image.zarr")
    (tmp_path / "data/p.zarr/.zattrs").unlink()
    (tmp_path / "data/p.zarr/zarr.json").write_text('{"attributes": {"ome": {"plate": {}}}}')
    assert found(tmp_path, tmp_path / "data") == fields


def test_find_inputs_zarr_folder_is_one_image(tmp_path):
    touch(tmp_path, "data/a.ome.zarr/.zattrs", "data/a.ome.zarr/0/0.0", "data/b.zarr/zarr.json")
    assert found(tmp_path, tmp_path / "data") == ["data/a.ome.zarr", "data/b.zarr"]
    assert found(tmp_path, tmp_path / "data" / "b.zarr") == ["data/b.zarr"]


def test_find_inputs_current_folder_has_a_name(tmp_path, monkeypatch):
    touch(tmp_path, "a.zarr/.zarray", "a.zarr/0/0", "series/1.dcm", "series/sub/b.tif")
    (tmp_path / "series/1.dcm").write_bytes(bytes(128) + b"DICM")
    for name, here in ((".", "a.zarr"), ("..", "a.zarr/0")):
        monkeypatch.chdir(tmp_path / here)
        [image] = find_inputs([Path(name)]).images
        assert OutputFiles.of(image.image, Path("out")).record == Path("out/a.json")
    monkeypatch.setattr("napari_simmat.batch.inputs.images_in", series_of_one)
    monkeypatch.chdir(tmp_path / "series")
    first, second = find_inputs([Path()]).images
    assert (first.image.name, first.folder) == ("series", Path())
    assert (second.image, second.folder) == (Path("sub/b.tif"), Path("sub"))


def series_of_one(folder: Path) -> list[Path] | None:
    return [folder] if (folder / "1.dcm").exists() else None


def manifest(folder: Path, *lines: str) -> Path:
    path = folder / "list.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_read_manifest_gives_prompts_and_channels(tmp_path):
    touch(tmp_path, "a.tif", "sub/b.tif", "p.csv")
    path = manifest(
        tmp_path,
        "image,prompts,channels,channel_axis",
        "a.tif,auto,,",
        'sub/b.tif,p.csv,"0,2, DAPI",-1',
        "a.tif,,3;1;0,",
    )
    first, second, third = find_inputs([path]).images
    assert first == InputImage(tmp_path / "a.tif", named=True, prompts="auto")
    assert second.image == tmp_path / "sub" / "b.tif"
    assert second.folder == Path("sub")
    assert second.prompts == str(tmp_path / "p.csv")
    assert (second.selection.channels, second.selection.channel_axis) == ((0, 2, "DAPI"), -1)
    assert (third.prompts, third.selection.channels) == (None, (3, 1, 0))


def test_read_manifest_of_a_folder_above_is_mirrored(tmp_path, monkeypatch):
    touch(tmp_path, "a.tif", "sub/a.tif", "work/b.tif")
    manifest(tmp_path, "image", "a.tif", "sub/a.tif", "work/b.tif")
    monkeypatch.chdir(tmp_path / "work")
    images = find_inputs([Path("../list.csv")]).images
    assert [one.folder for one in images] == [Path(), Path("sub"), Path("work")]


def test_read_manifest_outside_its_folder_is_refused(tmp_path):
    touch(tmp_path, "data/a.tif", "b.tif")
    for name in ("../b.tif", str(tmp_path / "b.tif"), "sub/../../b.tif"):
        path = manifest(tmp_path / "data", "image", name)
        with pytest.raises(ValueError, match="lies outside the manifest's folder"):
            find_inputs([path])
        [one] = find_inputs([path], outside=True).images
        assert one.image == tmp_path / "b.tif"
        assert one.folder == Path()


def test_read_manifest_of_its_own_folder_is_an_input(tmp_path):
    touch(tmp_path, "data/a.tif")
    [one] = find_inputs([manifest(tmp_path / "data", "image", ".")]).images
    assert (one.image, one.folder) == (tmp_path / "data", Path())


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_read_manifest_link_outside_is_refused(tmp_path):
    touch(tmp_path, "data/a.tif", "b.tif")
    (tmp_path / "data" / "link.tif").symlink_to(tmp_path / "b.tif")
    with pytest.raises(ValueError, match="lies outside the manifest's folder"):
        find_inputs([manifest(tmp_path / "data", "image", "link.tif")])


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_read_manifest_capture_with_a_band_outside_is_refused(tmp_path):
    touch(tmp_path, "data/q_2.tif", "b.tif")
    (tmp_path / "data" / "q_1.tif").symlink_to(tmp_path / "b.tif")
    path = manifest(tmp_path / "data", "image", "q_{band}.tif")
    with pytest.raises(ValueError, match="lies outside the manifest's folder"):
        find_inputs([path])
    assert find_inputs([path], outside=True).images


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["image"], r"list\.csv lists no image"),
        (["picture", "a.tif"], r"has the columns picture; a manifest has image"),
        (["image,image", "a.tif,a.tif"], r"each once"),
        (["image,kanals", "a.tif,0"], r"has the column 'kanals'; those of a manifest are"),
        (["index,axis-0,axis-1", "0,1,1"], r"holds prompts, not a list of images"),
        (["image,prompts", "a.tif"], r"line 2: there are more or fewer values than columns"),
        (["image,channels", "a.tif,0,1"], r"line 2: there are more or fewer values"),
        (["image", "a.tif", "b.tif"], r"line 3: there is no file .*b\.tif"),
        (["image,prompts", "a.tif,p.csv"], r"line 2: there is no prompt file .*p\.csv"),
        (["image,prompts", ",auto"], r"line 2: the image is missing"),
        (["image,channels", "a.tif,0;;1"], r"line 2: '0;;1' has an empty entry"),
        (["image,channel_axis", "a.tif,x"], r"line 2: the channel_axis is 'x'; it is a whole"),
        (['image', '"a.tif'], r"is no CSV"),
        (["image", "a\0.tif"], r"line 2: no file has a null character"),
        (["image", 300 * "a"], r"line 2: there is no file"),
        (["image,prompts", "a.tif," + 300 * "p"], r"line 2: there is no prompt file"),
    ],
)  # fmt: skip
def test_read_manifest_bad_row_is_refused(tmp_path, lines, sentence):
    touch(tmp_path, "a.tif")
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as caught:
        find_inputs([manifest(tmp_path, *lines)])
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_read_manifest_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is no text in UTF-8"):
        find_inputs([tmp_path / "list.csv"])


def test_manifest_states_sizes_and_axes(tmp_path):
    touch(tmp_path, "a.tif", "b.tif")
    path = tmp_path / "list.csv"
    path.write_text("image,pixel_size,unit,axes\na.tif,2;0.5;0.5,um,TZYX\nb.tif,,,\n")
    first, second = find_inputs([path]).images
    assert first.selection == ChannelSelection(pixel_size=(2, 0.5, 0.5), unit="um", axes="TZYX")
    assert second.selection == ChannelSelection()
    path.write_text("image,pixel_size\na.tif,5\n")
    with pytest.raises(ValueError, match=r"line 2: The pixel size 5 has no unit"):
        find_inputs([path])


def test_files_of_instruments_in_a_folder_are_images(tmp_path):
    for name in ("a.czi", "b.DM3", "c.txt"):
        (tmp_path / name).write_bytes(b"of a microscope")
    found = find_inputs([tmp_path])
    assert [one.image.name for one in found.images] == ["a.czi", "b.DM3"]
    assert [path.name for path in found.others] == ["c.txt"]
