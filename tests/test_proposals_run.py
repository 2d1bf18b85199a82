"""Runs of models that are told where to look, from a data set to new pictures."""

import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest
from test_scripts import start

from detjax import checkpoint, predict, predict_files
from detjax import run as runs
from detjax.data import builder
from detjax.tasks import detection

pytestmark = pytest.mark.skipif(
    not hasattr(cv2, "ximgproc"), reason="this OpenCV has no contrib modules"
)

CONFIG = """
from configs import rcnn_bccd

def get_config():
    config = rcnn_bccd.get_config()
    config.model.update(
        num_classes=4, backbone={"name": "resnet10", "width": 8},
        warp={"size": 32, "padding": 3},
    )
    config.data.update(
        name="shapes", data_dir="DATA", size=(64, 64), max_objects=6, batch_size=2,
    )
    config.data.prepare = {
        "format": "shapes", "num_train": 5, "num_val": 3, "size": 64,
        "proposals": {"method": "selective_search", "limit": 40},
    }
    config.train.steps = 2
    return config
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run, and the command behind it."""
    folder = tmp_path_factory.mktemp("rcnn")
    config = folder / "config.py"
    config.write_text(CONFIG.replace("DATA", str(folder / "data")))
    command = ["train", f"--config={config}", f"--workdir={folder / 'run'}"]
    done = start(*command)
    assert done.returncode == 0, done.stderr
    return folder, command


def said(workdir: pathlib.Path) -> dict[str, float]:
    return json.loads((workdir / "eval.json").read_text())


def kernel(workdir, **options):
    checkpoints = checkpoint.Checkpoints(workdir, read_only=True, **options)
    step, params, _ = checkpoints.restore_weights()
    checkpoints.close()
    return step, np.asarray(params["svm"]["kernel"])


@pytest.mark.slow
def test_the_finished_weights_are_what_is_used(run):
    workdir = run[0] / "run"
    step, descended = kernel(workdir)
    again, solved = kernel(workdir, folder="solved")
    assert (step, again) == (2, 2)
    assert not descended.any()
    assert solved.any(axis=0).all()
    loaded = predict.load(workdir)
    np.testing.assert_array_equal(loaded.params["svm"]["kernel"], solved)
    before = said(workdir)
    assert runs.evaluate(workdir) == pytest.approx(before, abs=1e-6)


@pytest.mark.slow
def test_the_same_command_again_changes_nothing(run):
    workdir = run[0] / "run"
    before, written = said(workdir), (workdir / "solved" / "2").stat().st_mtime_ns
    done = start(*run[1])
    assert done.returncode == 0, done.stderr
    assert said(workdir) == pytest.approx(before, abs=1e-6)
    assert (workdir / "solved" / "2").stat().st_mtime_ns == written


@pytest.mark.slow
def test_more_steps_begin_where_the_descent_was_and_are_finished_anew(run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run[0] / "run", workdir)
    done = start(*run[1][:2], f"--workdir={workdir}", "--config.train.steps=3")
    assert done.returncode == 0, done.stderr
    step, descended = kernel(workdir)
    assert step == 3
    assert not descended.any()
    assert kernel(workdir, folder="solved")[0] == 3
    # A run that went on and was not finished yet is used as it is.
    shutil.rmtree(workdir / "solved" / "3")
    assert not predict.load(workdir).params["svm"]["kernel"].any()


def test_new_pictures_get_the_proposals_that_training_had(run, tmp_path):
    record = builder.source("shapes", run[0] / "data", "val", detection.TASK)[0]
    loaded = predict.load(run[0] / "run")
    image = cv2.imdecode(np.frombuffer(record.image, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(loaded.propose(image), record.proposals)
    found, given = loaded(image), loaded(image, proposals=record.proposals)
    assert len(found.boxes)
    np.testing.assert_array_equal(found.scores, given.scores)
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    path.write_bytes(record.image)
    assert predict_files.predict(run[0] / "run", tmp_path / "out", [path]) == []
    assert (tmp_path / "out" / "a.png").exists()


def test_without_a_method_it_takes_given_ones_or_says_what_is_missing(run):
    loaded = predict.load(run[0] / "run")
    loaded.config["data"]["prepare"] = None
    image = np.full((50, 70, 3), 90, np.uint8)
    with pytest.raises(ValueError, match="'rcnn' needs proposals and its config does"):
        loaded(image)
    boxes = np.float32([[5, 5, 30, 30], [20, 10, 70, 50], [0, 0, 70, 50]])
    assert len(loaded(image, proposals=boxes).boxes)
    assert not len(loaded(image, proposals=np.zeros((0, 4))).boxes)
