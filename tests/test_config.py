"""What a config's file and flags set, and what a run makes of it."""

import json

import pytest
from ml_collections import ConfigDict

from configs import faster_rcnn_bccd, mask_rcnn_nuclei, ms_rcnn_nuclei, quickstart
from detjax import config, experiment, files
from detjax.data.builder import Info
from detjax.errors import UserError


def made(module, **changes):
    """The settings of a config whose dotted keys are changed, as flags do it."""
    held = module.get_config()
    held.lock()
    held.update_from_flattened_dict(changes)
    return config.complete(config.resolve(held))


def test_defaults_are_those_of_the_constructor_that_is_named():
    boxes = made(faster_rcnn_bccd)["model"]
    assert not boxes["masks"]
    assert made(faster_rcnn_bccd, **{"model.name": "mask_rcnn"})["model"]["masks"]
    judged = made(mask_rcnn_nuclei, **{"model.name": "ms_rcnn"})["model"]
    assert judged["masks"]
    assert judged["mask_iou"]
    assert judged == made(ms_rcnn_nuclei)["model"]


def test_a_setting_that_the_file_leaves_out_can_be_set():
    changes = {"train.keep": 7, "data.workers": 2, "optimizer.schedule.decay": "steps"}
    held = quickstart.get_config()
    held.lock()
    held.update_from_flattened_dict(changes)
    settings = config.resolve(held)
    assert settings["train"]["keep"] == 7
    assert settings["data"]["workers"] == 2
    assert settings["optimizer"]["schedule"]["decay"] == "steps"
    # What nobody set is not there.
    assert "log_every" not in settings["train"]
    assert settings["sharding"] == settings["eval"] == {}


def test_a_setting_can_be_none_and_is_not_left_out_then():
    held = quickstart.get_config()
    held.data.mask_stride = None
    settings = config.resolve(held)
    assert settings["data"]["mask_stride"] is None
    assert config.complete(settings)["data"]["mask_stride"] is None


@pytest.mark.parametrize(
    "sections, words",
    [
        ({"trian": {"steps": 3}}, "section 'trian' .*did you mean 'train'"),
        ({"model": {"name": "yolcat"}}, "model.name='yolcat' .*did you mean 'yolact'"),
        (
            {"model": {"name": "yolact", "top_kk": 3}},
            "top_kk is no setting of yolact .*",
        ),
        ({"data": {"batchsize": 3}}, "data.batchsize .*did you mean 'batch_size'"),
        (
            {"data": {"name": "a", "batch_size": 2, "augment": {"trun": True}}},
            "data.augment.trun .*'turn'",
        ),
        ({"data": {"name": "a"}}, "data.batch_size is not set"),
        ({"data": 5}, "section 'data' is 5"),
        ({"model": {"name": "yolact", "rpn_depth": 2}}, "rpn_depth is no setting of y"),
        ({"optimizer": {"schedule": {"peak": 1, "steps": 3}}}, "schedule.steps is no"),
    ],
)
def test_what_is_no_setting_is_named_with_the_nearest(sections, words):
    whole = {
        "model": {"name": "yolact"},
        "data": {"name": "a", "batch_size": 2},
        "optimizer": {"schedule": {"peak": 1}},
        "train": {"steps": 2},
    }
    with pytest.raises(UserError, match=words):
        config.resolve(ConfigDict({**whole, **sections}))


def test_a_file_that_returns_nothing_is_a_sentence():
    with pytest.raises(UserError, match=r"get_config\(\) returned NoneType"):
        config.resolve(None)


def info(**changes):
    return Info(
        **{
            "name": "a",
            "classes": ("b", "c"),
            "splits": {"train": 3},
            "has_masks": True,
            "keypoints": (),
            "category_ids": (1, 2),
            "max_objects": 2,
            "made_from": {},
            "directory": None,
            "max_proposals": 0,
            **changes,
        }
    )


def described(known=None, **changes):
    known = known or info()
    held = quickstart.get_config()
    held.update_from_flattened_dict(changes)
    settings = config.resolve(held)
    settings["model"].setdefault("num_classes", len(known.classes))
    return experiment.describe(settings, known)


@pytest.fixture
def under_way(tmp_path):
    """A work directory with a run that came to a checkpoint."""
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    experiment.write_config(described(), tmp_path)
    return tmp_path


def test_what_a_run_goes_on_with_otherwise_is_said(under_way, capsys):
    changes = {"train.steps": 99, "data.batch_size": 4, "data.augment.mirror": True}
    experiment.check(described(**changes), info(), under_way)
    said = capsys.readouterr().err
    assert "train.steps 1400 -> 99" in said
    assert "data.batch_size 8 -> 4" in said
    assert "data.augment.mirror None -> True" in said
    assert "model" not in said
    experiment.write_config(described(**changes), under_way)
    experiment.check(described(**changes), info(), under_way)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, known, words",
    [
        ({"model.features": 16}, {}, r"model\.features=32, the config says 16"),
        ({"data.size": (64, 64)}, {}, r"data\.size="),
        ({"data.seed": 4}, {}, r"data\.seed=0"),
        ({"train.seed": 4}, {}, r"train\.seed=0"),
        ({}, {"classes": ("c", "b")}, r"classes=\['b', 'c'\]"),
        ({}, {"category_ids": (2, 1)}, r"category_ids="),
    ],
)
def test_what_a_run_cannot_change_is_refused(under_way, changes, known, words):
    before = (under_way / "config.json").read_text()
    known = info(**known)
    with pytest.raises(UserError, match=words + ".*choose another --workdir"):
        experiment.check(described(known, **changes), known, under_way)
    assert (under_way / "config.json").read_text() == before


def test_a_setting_that_is_new_had_its_default(under_way, capsys):
    """Runs of an earlier version go on."""
    path = under_way / "config.json"
    held = json.loads(path.read_text())
    del held["data"]["mask_size"], held["model"]["top_k"]
    held["model"]["min_size"] = 4
    path.write_text(json.dumps(held))
    experiment.check(described(), info(), under_way)
    assert not capsys.readouterr().err


def test_annotations_that_changed_are_said(under_way, capsys):
    experiment.write_config(described(info(made_from={"splits": {"a": 1}})), under_way)
    known = info(made_from={"splits": {"a": 2}})
    experiment.check(described(known), known, under_way)
    assert "made_from.splits.a 1 -> 2" in capsys.readouterr().err


def test_training_takes_the_lock(tmp_path):
    with (
        files.lock(tmp_path / "run.lock", "training"),
        pytest.raises(UserError, match="in use: training by process"),
    ):
        experiment.run(quickstart.get_config(), tmp_path)


def test_a_config_json_that_no_run_wrote_is_left_alone(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"editor": "dark"}')
    with pytest.raises(UserError, match=r"config\.json has no 'model'"):
        experiment.check(described(), info(), tmp_path)
    assert path.read_text() == '{"editor": "dark"}'


def test_a_second_run_in_a_work_directory_is_told_of_the_first(tmp_path):
    path = tmp_path / "run.lock"
    with (
        files.lock(path, "training"),
        pytest.raises(UserError, match=r"in use: training by process \d+ on "),
        files.lock(path, "training"),
    ):
        pytest.fail("two at once")
    with files.lock(path, "training"):
        pass  # the first has ended
