import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_simmat.io.limits import VARIABLE, Limits
from napari_simmat.io.readers import read_image


def test_limits_change_by_argument_and_environment(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.fromarray(np.zeros((100, 120), dtype=np.uint8)).save(path)
    sentence = r"bomb\.png claims 12,000 pixels of a picture, more than the 11,999 that are read"
    with pytest.raises(ValueError, match=sentence) as refusal:
        read_image(path, limits=Limits(picture_pixels=11_999))
    monkeypatch.setenv(VARIABLE, "picture_pixels=11999, pages=1e6")
    with pytest.raises(ValueError, match=sentence):
        read_image(path)
    monkeypatch.setenv(VARIABLE, str(refusal.value).split()[-1].rstrip("."))  # as it is told
    assert read_image(path).shape == (100, 120)
    for wrong in ("pixels=3", "pages", "pages=0", "pages=many"):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(ValueError, match=f"{VARIABLE} has the entry '{wrong}'; write NAME="):
            read_image(path)


@pytest.mark.parametrize("limit", [each.name for each in fields(Limits)])
def test_limits_have_their_reasons(limit):
    _, _, rest = Limits.__doc__.partition(f"\n    {limit}\n")
    assert len(re.split(r"\n    \w", rest)[0]) > 80
    table = (Path(__file__).parents[2] / "docs" / "safety.md").read_text("utf-8")
    assert f"| `{limit}` |" in table
