"""A config against the run that its work directory holds."""

import json

import pytest
from infos import info

from configs import quickstart
from detjax import experiment, resume, run
from detjax.errors import UserError

KNOWN = info(("b", "c"))


def described(known=None, **changes):
    known = known or KNOWN
    held = quickstart.get_config()
    held.update_from_flattened_dict(changes)
    settings = experiment.resolve(held)
    settings["model"].setdefault("num_classes", len(known.classes))
    return run.describe(settings, known)


@pytest.fixture
def under_way(tmp_path):
    """A work directory with a run that came to a checkpoint."""
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    run.write_config(described(), tmp_path)
    return tmp_path


def test_what_a_run_goes_on_with_otherwise_is_said(under_way, capsys):
    changes = {"train.steps": 99, "data.batch_size": 4, "data.augment.mirror": True}
    resume.check(described(**changes), KNOWN, under_way)
    said = capsys.readouterr().err
    assert "train.steps 1400 -> 99" in said
    assert "data.batch_size 8 -> 4" in said
    assert "data.augment.mirror None -> True" in said
    assert "model" not in said
    run.write_config(described(**changes), under_way)
    resume.check(described(**changes), KNOWN, under_way)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, known, words",
    [
        ({"model.features": 16}, {}, r"model\.fpn\.features=32, the config says 16"),
        ({"data.size": (64, 64)}, {}, r"data\.size="),
        ({"data.seed": 4}, {}, r"data\.seed=0"),
        ({"train.seed": 4}, {}, r"train\.seed=0"),
        ({}, {"classes": ("c", "b")}, r"classes=\['b', 'c'\]"),
        ({}, {"category_ids": (2, 1)}, r"category_ids="),
    ],
)
def test_what_a_run_cannot_change_is_refused(under_way, changes, known, words):
    before = (under_way / "config.json").read_text()
    known = info(**{"classes": ("b", "c"), **known})
    with pytest.raises(UserError, match=words + ".*choose another --workdir"):
        resume.check(described(known, **changes), known, under_way)
    assert (under_way / "config.json").read_text() == before


def test_a_setting_that_is_new_had_its_default(under_way, capsys):
    """Runs of an earlier version go on."""
    path = under_way / "config.json"
    held = json.loads(path.read_text())
    del held["data"]["mask_size"], held["model"]["detect"]["top_k"]
    held["model"]["min_size"] = 4
    path.write_text(json.dumps(held))
    resume.check(described(), KNOWN, under_way)
    assert not capsys.readouterr().err


def test_a_run_of_before_there_were_stages_goes_on(under_way, capsys):
    path = under_way / "config.json"
    held = json.loads(path.read_text())
    held["model"] = {
        "name": "yolact",
        "num_classes": 2,
        "backbone": "resnet18",
        "backbone_width": 32,
        "deform_every": 0,
        "levels": [2, 3, 4],
        "extra_levels": 0,
        "sizes": [[12, 17], [24, 34], [48, 68]],
        "ratios": [1],
        "square_anchors": False,
        "features": 32,
        "masks": True,
        "num_prototypes": 16,
        "rescoring": False,
        "masks_to_train": 48,
        "rescore_weight": 25.0,
        "max_detections": 50,
        "dtype": "float32",
    }
    path.write_text(json.dumps(held))
    resume.check(described(), KNOWN, under_way)
    assert not capsys.readouterr().err
    with pytest.raises(UserError, match=r"model\.fpn\.features=32, the config says 16"):
        resume.check(described(**{"model.features": 16}), KNOWN, under_way)


def test_annotations_that_changed_are_said(under_way, capsys):
    run.write_config(
        described(info(("b", "c"), made_from={"splits": {"a": 1}})), under_way
    )
    known = info(("b", "c"), made_from={"splits": {"a": 2}})
    resume.check(described(known), known, under_way)
    assert "made_from.splits.a 1 -> 2" in capsys.readouterr().err


def test_a_config_json_that_no_run_wrote_is_left_alone(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"editor": "dark"}')
    with pytest.raises(UserError, match=r"config\.json has no 'model'"):
        resume.check(described(), KNOWN, tmp_path)
    assert path.read_text() == '{"editor": "dark"}'


def test_a_finished_run_says_so_and_keeps_what_it_was_trained_with(under_way, capsys):
    (under_way / "checkpoints" / "1400").mkdir()
    resume.check(described(), KNOWN, under_way)
    assert "is trained up to 1400: it is evaluated" in capsys.readouterr().err
    # What only evaluations read may change.
    changes = {"data.eval_split": "test", "train.keep": 2}
    resume.check(described(**changes), KNOWN, under_way)
    assert "data.eval_split val -> test" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"optimizer.schedule.peak": 1e-4}, "schedule.peak 0.002 -> 0.0001"),
        ({"data.name": "other"}, "data.name shapes -> other"),
        ({"train.steps": 700}, "train.steps=700"),
        ({"train.steps": 700, "optimizer.momentum": 0.5}, "momentum 0.9 -> 0.5"),
    ],
)
def test_nothing_to_train_with_other_settings_is_refused(under_way, changes, words):
    (under_way / "checkpoints" / "1400").mkdir()
    with pytest.raises(UserError, match="holds a run of 1400 steps") as caught:
        resume.check(described(**changes), KNOWN, under_way)
    assert words in str(caught.value)
    # More steps train on with them.
    resume.check(described(**{**changes, "train.steps": 1500}), KNOWN, under_way)


def test_a_learning_rate_that_jumps_is_a_warning(under_way, capsys):
    (under_way / "checkpoints" / "1350").mkdir()
    resume.check(described(**{"train.steps": 1401}), KNOWN, under_way)
    assert "warning" not in capsys.readouterr().err
    resume.check(described(**{"train.steps": 2800}), KNOWN, under_way)
    said = capsys.readouterr().err
    # (1 + cos(pi * 1300 / 1350)) / 1000, and of 2750 steps after the warm-up.
    assert "the learning rate at step 1350 was 6.76e-06 and is now 0.00109" in said
    assert "decay='cosine'" in said
