"""Small folders with the layouts of the AIMS benchmark, written without the package."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

H, W = 6, 8
TRAIN, TEST = ("a", "b", "c"), ("d", "e")


def picture(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tiff":
        tifffile.imwrite(path, values, photometric="rgb" if values.ndim == 3 else "minisblack")
    elif path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def gray(value: int) -> np.ndarray:
    return np.full((H, W), value, np.uint8)


def color(*values: int) -> np.ndarray:
    return np.tile(np.array(values, np.uint8), (H, W, 1))


def ramp() -> np.ndarray:
    """From 10 to 57 in steps of one."""
    return (10 + np.arange(H * W, dtype=np.float64)).reshape(H, W)


def mask() -> np.ndarray:
    """Object 300 of 12 pixels and object 2 of one."""
    labels = np.zeros((H, W), np.uint16)
    labels[1:4, 1:5], labels[5, 7] = 300, 2
    return labels


def zju(root: Path) -> None:
    """Of each image all pixels are equal but the first, which is 0 at every angle."""
    for side, names in (("train", TRAIN), ("val", TEST)):
        for name in names:
            for angle, value in (("0", 100), ("45", 60), ("90", 20), ("135", 60)):
                image = color(value, value // 2, 0)
                image[0, 0] = 0
                picture(root / side / angle / f"{name}_{angle}°.png", image)
            picture(root / side / "label_sam" / f"{name}.png", mask())


def pgsnet(root: Path) -> None:
    for side, names in (
        ("train", (*TRAIN, "x20210808013065")),
        ("test", (*TEST, "20210811002205")),
    ):
        for name in names:
            for kind, folder, values in (
                ("rgb", "image", (10, 20, 30)),
                ("aolp", "aolp", (40, 50, 60)),
                ("dolp", "dolp", (70, 80, 90)),
            ):
                picture(root / side / folder / f"{name}_{kind}.tiff", color(*values))
            picture(root / side / "instance_mask" / f"{name}_instance_mask.png", mask())


def nyu(root: Path) -> None:
    for side, names in (("train", ("1", "2", "1133", "13980")), ("test", ("3", "398"))):
        for name in names:
            picture(root / "RGB" / f"{name}.jpg", color(100, 100, 100))
            picture(root / "HHA" / f"{name}.jpg", color(50, 50, 50))
            picture(root / "Depth" / f"{name}.npy", ramp())
            picture(root / "Mask_gt" / f"{name}.png", mask())
        lines = [f"RGB/{name}.jpg\tDepth/{name}.png\tLabel/{name}.png\n" for name in names]
        (root / f"{side}.txt").write_text("".join(lines))


def ivrg(root: Path) -> None:
    for side, names in (("train", TRAIN), ("test", TEST)):
        lines = ["序号,图像,标签"]
        for number, name in enumerate(names):
            image, labels = f"NIRimages\\田野\\{name}_nir.png", f"masks/{name}.png"
            lines.append(f"{number},{image},{labels}")
            folder = root / "Outdoor_dataset"
            picture(folder / "NIRimages" / "田野" / f"{name}_nir.png", gray(200))
            picture(folder / "RGBimages" / "田野" / f"{name}_rgb.png", color(1, 2, 3))
            picture(folder / labels, mask())
        text = "\n".join(lines) + "\n"
        (root / f"IVRG-nir_{side}_GroundTruth.csv").write_text(text, encoding="gbk")


def thermal(root: Path) -> None:
    for side, count in (("train", 21), ("test", 4)):
        lines = [",image,mask"]
        for number in range(count):
            place = f"{side}/{number:02}"
            lines.append(f"{number},data/RGB-Thermal-Glass/{place}/rgb.png,{place}/mask.png")
            picture(root / place / "rgb.png", color(1, 2, 3))
            picture(root / place / "temperature.npy", ramp())
            picture(root / place / "mask.png", mask())
        text = "\n".join(lines) + "\n"
        (root / f"RGB_T_Glass_{side}_GroundTruth.csv").write_text(text, encoding="gbk")


WRITERS: dict[str, Callable[[Path], None]] = {
    "zju-rgbp": zju,
    "pgsnet": pgsnet,
    "NYUDepthv2": nyu,
    "IVRG_RGBNIR": ivrg,
    "RGB-Thermal-Glass": thermal,
}


def write_layout(name: str, root: Path) -> Path:
    """A folder with a layout, in a folder of all of them."""
    folder = root / name
    folder.mkdir(parents=True)
    WRITERS[name](folder)
    return folder
