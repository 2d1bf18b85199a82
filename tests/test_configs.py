"""Every shipped config at full size, without memory: init, gradient, predict."""

import importlib
import pathlib
import re
import shlex

import jax
import numpy as np
import pytest
from infos import info

from detjax import experiment, models, optim, parameters, sharding, tasks, train
from detjax.commands import make_dataset
from detjax.data import proposals
from detjax.data.example import Prepare

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted(p.stem for p in (ROOT / "configs").glob("[!_]*.py"))
CLASSES = {"nuclei": 1, "bccd": 3, "shapes": 4, "one_skier": 1, "sign_digits": 10}
CLASSES |= {"depth_shapes": 1, "figures": 1}
# Keypoints of an object; of people as COCO has them where the data set is not here.
KEYPOINTS = {"figures": 14}
# Of every day; the others are of the same families.
DAILY = (
    *("quickstart", "quickstart_classify", "quickstart_semantic", "quickstart_yolo"),
    *("fcos_r50_coco", "mask_rcnn_r50_coco", "rcnn_bccd", "retinanet_r50_coco"),
    *("scene_shapes", "ssd300_coco", "yolact_r50_coco", "yolov3_bccd"),
)


def get(name):
    module = importlib.import_module(f"configs.{name}")
    settings = experiment.resolve(module.get_config())
    known = settings["data"]["name"].removesuffix("_proposals")
    # As many as the data set of the config has.
    settings["model"].setdefault("num_classes", CLASSES.get(known, 80))
    return settings


def batch_of(task, data, count):
    """The shapes of a batch of the `data` section, of `count` classes."""
    method = (data.get("prepare") or {}).get("proposals")
    held = info(
        map(str, range(count)),
        keypoints=tuple(map(str, range(KEYPOINTS.get(data["name"], 17)))),
        max_proposals=proposals.complete(method)["limit"] if method else 0,
        has_amodal=True,
    )
    known = experiment.settings.keywords(task.targets)
    own = {k: v for k, v in data.items() if k in known}
    if isinstance(own.get("class_weights"), str):  # the data set would count them
        own["class_weights"] = (1.0,) * count
    targets = task.targets(held, **own)
    steps = Prepare(None, targets, max_proposals=held.max_proposals)
    size = max(data.get("buckets") or [data["size"]])
    batch = steps.empty(data["batch_size"], size)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n not in DAILY)) for n in NAMES],
)
def test_config_fits_its_model_at_full_size(name):
    config = get(name)
    model, count = models.make(**config["model"]), config["model"]["num_classes"]
    task = tasks.TASKS[model.spec.task]
    optimizer, rate = optim.make(**config["optimizer"], steps=config["train"]["steps"])
    batch = batch_of(task, config["data"], count)
    run = jax.eval_shape(
        lambda: train.create(model.init, optimizer, batch.inputs.images, 0)
    )
    after, metrics = jax.eval_shape(
        train.make_step(model, optimizer, sharding.make()), run, batch, 1
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), run
    )
    assert metrics["loss"].shape == ()
    found = jax.eval_shape(model.predict, run.params, run.state, batch.inputs)
    answers = jax.eval_shape(task.shrink, found)
    lengths = {len(leaf.shape) and leaf.shape[0] for leaf in jax.tree.leaves(answers)}
    assert lengths == {config["data"]["batch_size"]}
    if model.spec.task == "detection":
        learnt = batch.target
        masks = [found.masks, found.box_masks], [learnt.masks, learnt.box_masks]
        predicted, given = (any(x is not None for x in pair) for pair in masks)
        assert predicted == given
        assert (found.keypoints is None) == (learnt.keypoints is None)
    assert np.isfinite(rate(0))


def commands(text):
    """The commands in a docstring: indented lines, joined where they end in \\."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("    python ")]


def neighbour(text):
    """The config whose docstring holds the commands of another's."""
    named = re.search(r"(?:see|as in|of) ([a-z0-9_]+?)(?:\.py)?[ ,.;]", text)
    return named and named[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_a_config_are_commands(name):
    """Its docstring, or that of the config that it names, says how to train it."""
    text = importlib.import_module(f"configs.{name}").__doc__
    found = commands(text)
    if not found:
        other = neighbour(text)
        assert other in NAMES, f"{name} has no command and names {other!r}"
        found = commands(importlib.import_module(f"configs.{other}").__doc__)
    trained = False
    for script, *flags in found:
        assert (ROOT / script).is_file(), script
        if script == "scripts/make_dataset.py":
            make_dataset.arguments(flags)
        if script == "scripts/train.py":
            given = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
            assert (ROOT / given.pop("config")).is_file()
            assert given.pop("workdir")
            for setting in given:
                shape = experiment.shape()
                for part in setting.removeprefix("config.").split("."):
                    assert part in shape.settings, setting
                    shape = shape.settings[part]
            trained = True
    assert trained


def test_paper_recipe_moves_no_batch_norm():
    config = get("yolact_r50_coco")
    model = models.make(**config["model"])
    params, _ = jax.eval_shape(
        model.init, jax.random.key(0), np.zeros((1, 550, 550, 3), np.uint8)
    )
    hit = parameters.matching(config["optimizer"]["freeze"], params)
    frozen = sorted(
        name
        for name, frozen in zip(
            jax.tree.leaves(parameters.names(params)), jax.tree.leaves(hit), strict=True
        )
        if frozen
    )
    assert len(frozen) == 2 * 53
    assert all(n.endswith(("scale", "bias")) for n in frozen)
