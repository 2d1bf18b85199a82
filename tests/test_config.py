"""What a config's file and flags set, and what a run makes of it."""

import copy
import warnings

import pytest
from absl import flags
from ml_collections import ConfigDict

from configs import faster_rcnn_bccd, mask_rcnn_nuclei, ms_rcnn_nuclei, quickstart
from detjax import cli, experiment, files, run
from detjax.errors import UserError

WHOLE = {
    "model": {"name": "yolact"},
    "data": {"name": "a", "batch_size": 2},
    "optimizer": {"schedule": {"peak": 1}},
    "train": {"steps": 2},
}
QUICKSTART = "from configs import quickstart\nget_config = quickstart.get_config\n"
EARLIER = """
from configs import quickstart

def get_config():
    c = quickstart.get_config()
    c.model.backbone = "resnet10"
    c.model.backbone_width = 8
    c.model.features = 8
    c.model.num_prototypes = 4
    c.model.levels = (3, 4)
    c.model.sizes = ((12,), (24,))
    c.model.masks_to_train = 8
    return c
"""


@pytest.fixture
def flagged(tmp_path):
    """The config of a file's `text` under flags, as the scripts have it."""

    def load(text, *given):
        path = tmp_path / "c.py"
        path.write_text(text)
        argv = ["x", f"--config={path}", *(f"--{flag}" for flag in given)]
        values = flags.FlagValues()
        cli.config_flag(flag_values=values, sys_argv=argv)
        with warnings.catch_warnings():
            # How ml_collections loads a file.
            warnings.simplefilter("ignore", DeprecationWarning)
            values(argv)
        return values.config

    return load


def made(module, **changes):
    """The settings of a config whose dotted keys are changed."""
    held = module.get_config()
    held.update_from_flattened_dict(changes)
    return experiment.complete(experiment.resolve(held))


def test_defaults_are_those_of_the_constructor_that_is_named():
    boxes = made(faster_rcnn_bccd)["model"]
    assert not boxes["mask"]
    assert made(faster_rcnn_bccd, **{"model.name": "mask_rcnn"})["model"]["mask"]
    judged = made(mask_rcnn_nuclei, **{"model.name": "ms_rcnn"})["model"]
    assert judged["mask"]
    assert judged["mask_iou"]
    assert judged == made(ms_rcnn_nuclei)["model"]


MASK = {"prototypes": 16, "to_train": 48}


@pytest.mark.parametrize(
    "flag, path, value",
    [
        ("config.train.keep=7", "train.keep", 7),
        ("config.data.workers=2", "data.workers", 2),
        ("config.optimizer.schedule.factor=1", "optimizer.schedule.factor", 1),
        ("config.model.mask.prototypes=8", "model.mask", {**MASK, "prototypes": 8}),
        ("config.model.mask=None", "model.mask", None),
        ("config.model.mask=False", "model.mask", None),
        ("noconfig.model.mask", "model.mask", None),
        ("config.model.mask", "model.mask", MASK),
        ("config.model.rescore=True", "model.rescore", True),
        ("config.model.rescore.weight=2", "model.rescore", {"weight": 2}),
        ("config.model.rescore={'weight': 2}", "model.rescore", {"weight": 2}),
        ("config.model.fpn.features=8", "model.fpn.extra_levels", 0),
        ("config.model.fpn.features=8", "model.fpn.features", 8),
        ("config.model.features=8", "model.fpn.features", 8),
        ("config.model.masks=False", "model.mask", None),
        ("config.model.backbone.width=None", "model.backbone.width", None),
        ("config.model.backbone=resnet34", "model.backbone.name", "resnet34"),
        ("config.model.backbone=resnet34", "model.backbone.width", 32),
        ("config.data.size=[64,32]", "data.size", (64, 32)),
        ("config.data.letterbox=true", "data.letterbox", True),
        ("config.data.augment=None", "data.augment", None),
        ("config.data.augment.crop=True", "data.augment.turn", True),
        ("config.data.augment.crop=True", "data.augment.crop", True),
        ("config.data.mask_stride=None", "data.mask_stride", None),
        ("config.optimizer.clip_norm=None", "optimizer.clip_norm", None),
        ("config.optimizer.freeze=['backbone']", "optimizer.freeze", ("backbone",)),
        ("config.optimizer.rates={'^a.b':.5}", "optimizer.rates", {"^a.b": 0.5}),
        ("config.sharding.params=fsdp", "sharding.params", "fsdp"),
    ],
)
def test_any_setting_can_be_set_to_any_value(flagged, flag, path, value):
    found = experiment.resolve(flagged(QUICKSTART, flag))
    for name in path.split("."):
        found = found[name]
    assert found == value


@pytest.mark.parametrize("off", [None, False])
def test_a_part_of_what_is_off_cannot_be_set(flagged, off):
    text = QUICKSTART.replace("get_config = ", "make = ")
    text += (
        f"def get_config():\n    c = make()\n    c.model.mask = {off}\n    return c\n"
    )
    with pytest.raises((KeyError, ValueError)) as caught:
        flagged(text, "config.model.mask.to_train=3")
    said = "--config.model.mask.to_train sets a part of what is switched off"
    assert cli.sentence(caught.value).startswith(said)


def test_what_nobody_set_is_not_there():
    settings = experiment.resolve(quickstart.get_config())
    assert "log_every" not in settings["train"]
    assert settings["sharding"] == settings["eval"] == {}


def test_a_variant_changes_what_it_starts_from():
    held = quickstart.get_config()
    held.model.backbone.norm = "group"
    held.model.update({"fpn": {"features": 3}, "box_weight": 2.0})
    held.model.rescore.weight = 20
    held.model.detect = {"top_k": 5}
    held.data.augment = {}
    held.data.prepare.num_val = 9
    held = copy.deepcopy(held)
    held.model.backbone = "resnet34"
    found = experiment.resolve(held)
    assert found["model"]["backbone"] == {
        "name": "resnet34",
        "width": 32,
        "levels": (2, 3, 4),
        "norm": "group",
    }
    assert found["model"]["fpn"] == {"features": 3, "extra_levels": 0}
    assert found["model"]["box_weight"] == 2.0
    assert found["model"]["rescore"] == {"weight": 20}
    assert found["model"]["detect"] == {"top_k": 5}
    assert found["data"]["augment"] == {}
    assert found["data"]["prepare"]["num_val"] == 9


def test_looking_at_a_stage_does_not_switch_it_on():
    held = quickstart.get_config()
    assert not held.model.rescore
    assert "rescore" not in experiment.resolve(held)["model"]


def test_earlier_names_take_the_place_of_what_was_set_before(flagged):
    assert experiment.resolve(flagged(EARLIER))["model"] == {
        "name": "yolact",
        "backbone": {"name": "resnet10", "width": 8, "levels": (3, 4)},
        "fpn": {"features": 8, "extra_levels": 0},
        "priors": {"sizes": ((12,), (24,)), "ratios": (1,)},
        "mask": {"prototypes": 4, "to_train": 8},
        "detect": {"max_detections": 50},
    }


def test_both_names_of_a_setting_are_an_error(flagged):
    both = flagged(EARLIER, "config.model.fpn.features=3")
    with pytest.raises(
        UserError, match=r"model\.features=8 is the earlier name of mod"
    ):
        experiment.resolve(both)


@pytest.mark.parametrize(
    "sections, words",
    [
        ({"trian": {"steps": 3}}, "section 'trian' .*did you mean 'train'"),
        ({"model": {"name": "yolcat"}}, "model.name='yolcat' .*did you mean 'yolact'"),
        ({"model": {}}, "model.name=None is no model"),
        ({"model": {"name": "yolact", "box_wieght": 3}}, "'box_weight'"),
        (
            {"model": {"name": "yolact", "detect": {"top_kk": 3}}},
            "model.detect.top_kk is no setting .did you mean 'top_k'",
        ),
        ({"data": {"batchsize": 3}}, "data.batchsize .*did you mean 'batch_size'"),
        (
            {"data": {"name": "a", "batch_size": 2, "augment": {"trun": True}}},
            "data.augment.trun .*'turn'",
        ),
        ({"data": {"name": "a"}}, "data.batch_size is not set"),
        ({"data": 5}, "section 'data' is 5"),
        ({"model": {"name": "yolact", "rpn_depth": 2}}, "rpn_depth is no setting"),
        ({"optimizer": {"schedule": {"peak": 1, "steps": 3}}}, "schedule.steps is no"),
        ({"optimizer": {"schedule": {}}}, "optimizer.schedule.peak is not set"),
        (
            {"optimizer": {"schedule": {"peak": 1, "decay": "steps"}}},
            "optimizer.schedule.boundaries",
        ),
    ],
)
def test_what_is_no_setting_is_named_with_the_nearest(sections, words):
    with pytest.raises(UserError, match=words):
        experiment.resolve(ConfigDict({**WHOLE, **sections}))


@pytest.mark.parametrize(
    "flag, words",
    [
        ("data.batch_size=0", "data.batch_size=0 is not a whole number of at least 1"),
        ("data.batch_size=4.5", "batch_size=4.5"),
        ("data.size=(64,64,3)", "size=(64, 64, 3) is not two whole numbers of at le"),
        ("data.size=64", "size=64"),
        ("data.size=(64.5,64.0)", "size=(64.5, 64.0)"),
        ("data.size=big", "size='big'"),
        ("data.short_side=0", "short_side=0"),
        ("data.max_objects=-1", "max_objects=-1"),
        ("data.mask_stride=0", "mask_stride=0"),
        ("data.workers=-1", "workers=-1"),
        ("data.seed=-1", "seed=-1"),
        ("data.eval_batch_size=-1", "eval_batch_size=-1"),
        ("data.on_error=ignore", "on_error='ignore' is not one of 'fail', 'skip'"),
        ("data.augment.trun=True", "data.augment.trun is no setting (did you mean 't"),
        ("data.augment.expand_to=-3.0", "augment.expand_to=-3.0"),
        ("data.augment=('mirror',)", "data.augment=('mirror',) is not settings by"),
        ("data.buckets=((64,),'x')", "buckets="),
        ("data.prepare.num_train=0", "data.prepare.num_train=0"),
        ("data.prepare.size=1", "data.prepare.size=1 is not a whole number of at leas"),
        ("data.prepare.format=tfds", "data.prepare.format='tfds' is not one of 'coco'"),
        ("data.prepare.root=x", "data.prepare.root is no setting"),
        ("optimizer.schedule.peak=nan", "schedule.peak='nan' is not a number of at"),
        ("optimizer.schedule.peak=1e999", "schedule.peak=inf"),
        ("optimizer.schedule.peak=-1.0", "schedule.peak=-1.0"),
        ("optimizer.schedule.warmup_steps=-5", "warmup_steps=-5"),
        ("optimizer.weight_decay=nan", "weight_decay='nan'"),
        ("optimizer.momentum=2.0", "momentum=2.0 is not a number between 0 and 1"),
        ("optimizer.clip_norm=-1.0", "clip_norm=-1.0 is not a number above 0, or None"),
        ("optimizer.freeze='['", "or None (unterminated character set at position 0)"),
        ("optimizer.no_decay='('", "no_decay='('"),
        ("optimizer.rates={'fpn':-1}", "rates={'fpn': -1} is not numbers of at least"),
        ("model.backbone_width=0", "model.backbone_width=0 is not a whole number"),
        ("model.features=0", "model.features=0 is not a whole number of at least 1"),
        ("model.fpn.features=-8", "model.fpn.features=-8"),
        ("model.levels=()", "levels=() is not a list of one or more whole numbers"),
        ("model.levels=(3,9)", "levels=(3, 9)"),
        ("model.levels=abc", "levels='abc'"),
        ("model.sizes=((12,),)", "model.priors.sizes=((12,),) must hold one tuple"),
        ("model.ratios=()", "ratios=()"),
        ("model.num_prototypes=0", "num_prototypes=0"),
        ("model.max_detections=0", "max_detections=0"),
        ("model.norm=bach", "norm='bach' is not one of 'batch', 'frozen', 'group'"),
        ("model.num_classes=0", "num_classes=0"),
        ("model.backbone=resnet11", "model.backbone.name='resnet11' is not one of 'r"),
        ("model.detect=3", "model.detect=3 is not settings by name"),
        ("model.pixels=1", "model.pixels=1 is not one of"),
        ("sharding.space=0", "sharding.space=0"),
        ("eval.max_detections=(0,)", "eval.max_detections=(0,)"),
        ("eval.max_detections=()", "eval.max_detections=()"),
        ("train.seed=-1", "train.seed=-1"),
        ("train.steps=-3", "train.steps=-3"),
        ("train.log_every=0", "train.log_every=0"),
        ("train.evaluate_every=-1", "train.evaluate_every=-1"),
        ("train.grace_seconds=-1", "train.grace_seconds=-1"),
    ],
)
def test_what_a_setting_cannot_be_is_a_sentence(flagged, flag, words):
    with pytest.raises(UserError) as caught:
        experiment.resolve(flagged(QUICKSTART, f"config.{flag}"))
    assert words in str(caught.value)


def test_a_file_that_returns_nothing_is_a_sentence():
    with pytest.raises(UserError, match=r"get_config\(\) returned NoneType"):
        experiment.resolve(None)


def test_training_takes_the_lock(tmp_path):
    with (
        files.lock(tmp_path / "run.lock", "training"),
        pytest.raises(UserError, match="in use: training by process"),
    ):
        run.train(quickstart.get_config(), tmp_path)


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


def test_update_joins_stages_and_takes_a_text_or_an_earlier_name():
    config = quickstart.get_config()
    config.model.update(
        {"priors": {"ratios": (1, 2)}}, backbone="resnet34", num_prototypes=8
    )
    model = experiment.resolve(config)["model"]
    assert model["priors"]["ratios"] == (1, 2)
    assert model["priors"]["sizes"] == ((12, 17), (24, 34), (48, 68))
    assert model["backbone"]["name"] == "resnet34"
    assert model["backbone"]["width"] == 32
    assert model["mask"]["prototypes"] == 8
