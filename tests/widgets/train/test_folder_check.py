"""What a folder would be trained on."""

import numpy as np
import tifffile

from napari_simmat.widgets.train.controller import TrainingController
from napari_simmat.widgets.train.request import TrainRequest


def test_check_of_a_folder_is_not_shown_for_another(qtbot, tmp_path, user_folder):
    """While the check of one folder runs, another is chosen: each gets its own."""
    for name, count in (("good", 6), ("broken", 0)):
        (tmp_path / name).mkdir()
        for number in range(count):
            image = np.random.default_rng(number).integers(0, 255, (32, 32), np.uint8)
            labels = np.zeros((32, 32), np.uint8)
            labels[4:20, 4:20] = 1
            tifffile.imwrite(tmp_path / name / f"{number}.tif", image)
            tifffile.imwrite(tmp_path / name / f"{number}_labels.tif", labels)
    training = TrainingController()
    good, broken = (TrainRequest(folder=str(tmp_path / name)) for name in ("good", "broken"))
    seen = []
    # The form asks again whenever a check has ended; by then the user has chosen the other.
    training.checked.connect(lambda: seen.append(training.check(broken)))
    assert training.check(good) is None
    training._later.stop()
    training._start_check()
    training._to_check = broken
    with qtbot.waitSignal(training.checked):
        pass
    assert seen == [None], "the check of the good folder says nothing of the broken one"
    with qtbot.waitSignal(training.checked):
        pass
    assert seen[-1].problem
    assert not seen[-1].description
    training.close()
