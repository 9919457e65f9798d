from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from napari_simmat.io.files import trainings_folder
from napari_simmat.progress import finish
from napari_simmat.training.trainer import BEST_FILE, LOG_FILE, STOP_FILE
from napari_simmat.widgets.train import runs
from napari_simmat.widgets.train.runs import TrainRequest, WindowRun


def interrupted(name: str) -> WindowRun:
    run = WindowRun(name)
    run.claim()
    run.prepared(TrainRequest(name=name))
    run.work.mkdir()
    run.best.write_bytes(b"weights")
    (run.work / "log.csv").write_text("step,loss\n1,0.5\n")
    return run


def test_names_of_files_are_those_of_the_training() -> None:
    """They stand twice, as the training's own module loads torch."""
    assert (runs._LOG, runs._BEST, runs._STOP) == (LOG_FILE, BEST_FILE, STOP_FILE)


def test_only_what_was_interrupted_can_go_on_and_only_in_one_window() -> None:
    run = interrupted("mine")
    assert runs.unfinished_runs() == [], "this window has it"
    with pytest.raises(ValueError, match="mine is being trained in another window"):
        WindowRun("mine").claim()
    run.release()
    assert runs.unfinished_runs() == ["mine"]
    assert run.request() == TrainRequest(name="mine")
    assert run.history().loss == [(1, 0.5)]
    run.request_stop()
    assert (run.work / STOP_FILE).exists()
    run.clear()
    assert runs.unfinished_runs() == []
    assert run.log.read_text().startswith("step"), "the table stays"
    run.begin()
    assert not run.log.exists()


def test_layers_that_were_half_written_are_removed() -> None:
    run = interrupted("done")
    run.release()
    half = WindowRun("half")
    half.data.mkdir(parents=True)
    (half.data / "a_b.npy").write_bytes(b"1")
    runs.remove_leftovers()
    assert not half.folder.exists()
    assert run.can_go_on


def test_the_best_becomes_a_model() -> None:
    run = interrupted("mine")
    path = finish(run.keep_best_job())
    assert path == run.output
    assert path.read_bytes() == b"weights"
    run.release()


def test_a_model_of_that_name_is_not_overwritten_by_the_best() -> None:
    run = interrupted("mine")
    run.output.parent.mkdir(parents=True)
    run.output.write_bytes(b"imported meanwhile")
    with pytest.raises(ValueError, match="There is a model called mine already, which stays"):
        finish(run.keep_best_job())
    assert run.output.read_bytes() == b"imported meanwhile"
    assert run.best.exists()
    run.release()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (" ", "Give the new model a name."),
        ("tiny", "tiny is the name of a built-in model"),
        ("a/b", "cannot be a model's name"),
        ("MINE", "There is a model called MINE already"),
        ("Half", "The training of Half is not finished: resume or discard it"),
        ("new", None),
    ],
)
def test_a_name_that_is_taken_is_one_sentence(
    name: str, words: str | None, user_folder: Path
) -> None:
    (user_folder / "models").mkdir()
    (user_folder / "models" / "mine.safetensors").write_bytes(b"no model, but a name")
    interrupted("half").release()
    problem = runs.name_problem(name)
    assert (problem is None) if words is None else (words in str(problem))


def test_the_window_needs_no_torch() -> None:
    """A training has its own process; what it takes of memory goes with it."""
    program = "import sys, napari_simmat.widgets.main; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "False"


def test_a_suggested_name_is_free(user_folder: Path) -> None:
    assert runs.free_name("mine") == "mine"
    interrupted("mine").release()
    assert runs.free_name("mine") == "mine-2"
    assert trainings_folder().is_relative_to(user_folder)
