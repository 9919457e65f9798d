"""An optional package that is missing is told apart from one that is broken."""

import sys

import numpy as np
import pytest

from napari_simmat._text import BROKEN, import_problem
from napari_simmat.batch import shown
from napari_simmat.checkpoints import library
from napari_simmat.engine import remote
from napari_simmat.engine.channels import registration
from napari_simmat.engine.channels.registration import NEEDS_SIMPLEITK
from napari_simmat.models import edgetam, hiera_encoder, sam3_encoder, vocabulary
from napari_simmat.training import devices
from napari_simmat.training.devices import Devices

FIELD = np.random.default_rng(0).random((16, 16))
PLACES = {
    "transformers": (
        (lambda _: hiera_encoder.build_video_model("hiera_tiny"), hiera_encoder.NEEDS_TRANSFORMERS),
        (lambda _: sam3_encoder.build_tracker(), sam3_encoder.NEEDS_TRANSFORMERS),
        (lambda _: sam3_encoder.build_detector(), sam3_encoder.NEEDS_TRANSFORMERS),
    ),
    "SimpleITK": ((lambda _: registration._matrix(FIELD, FIELD, "rigid"), NEEDS_SIMPLEITK),),
    "timm": ((lambda _: edgetam.build_edgetam(), edgetam.NEEDS_TIMM),),
    "tokenizers": ((lambda path: vocabulary._tokenizer(path, 1, 0), vocabulary.NEEDS_TOKENIZERS),),
    "pandas": ((lambda _: shown.pandas_module(), shown.NEEDS_PANDAS),),
    "huggingface_hub": ((lambda _: library._hub(), library.NEEDS_LIBRARY),),
    "distributed": ((lambda _: remote._connect("tcp://x:1"), remote.DISTRIBUTED_MISSING),),
    "lightning_fabric": ((lambda _: Devices().fabric("32-true"), devices.NO_FABRIC),),
}
"""What imports each package, and what it says without it."""
CASES = [(package, *each) for package, places in PLACES.items() for each in places]


@pytest.mark.parametrize(("package", "start", "missing"), CASES, ids=[each[0] for each in CASES])
def test_broken_package_is_not_told_as_missing(package, start, missing, tmp_path, monkeypatch):
    for name in [each for each in sys.modules if each.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, package, None)
        with pytest.raises((ValueError, ImportError, OSError)) as refused:
            start(tmp_path / "missing")
        assert str(refused.value) == missing
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("import a_part_of_it\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises((ValueError, ImportError, OSError)) as refused:
        start(tmp_path / "broken")
    assert str(refused.value) == BROKEN.format(package, "No module named 'a_part_of_it'")


def test_import_that_fails_within_a_package_is_told_by_its_cause():
    try:
        try:
            raise RuntimeError("operator torchvision::nms  does\nnot exist")
        except RuntimeError as cause:
            raise ImportError("Failed to import transformers.models.sam2") from cause
    except ImportError as error:
        said = import_problem(error, "transformers", "missing")
    assert said == BROKEN.format("transformers", "operator torchvision::nms does not exist")
