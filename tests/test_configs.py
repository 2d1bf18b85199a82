"""Every shipped config at full size, without memory: init, gradient, predict."""

import importlib
import pathlib

import jax
import numpy as np
import pytest

from detjax import config as schema
from detjax import models, optim, sharding, train
from detjax.data import proposals
from detjax.types import Batch, Objects, Proposals

NAMES = sorted(
    p.stem for p in (pathlib.Path(__file__).parents[1] / "configs").glob("[!_]*.py")
)


def get(name):
    module = importlib.import_module(f"configs.{name}")
    settings = schema.resolve(module.get_config())
    # As many as the data set of the config has.
    classes = {"nuclei": 1, "bccd": 3, "shapes": 4, "one_skier": 1}
    known = settings["data"]["name"].removesuffix("_proposals")
    settings["model"].setdefault("num_classes", classes.get(known, 80))
    return settings


def batch_of(data):
    """The shapes of a batch of the `data` section."""

    def shape(*dims, dtype=np.float32):
        return jax.ShapeDtypeStruct(dims, dtype)

    sizes = data.get("buckets") or [data["size"]]
    b, n, (h, w) = data["batch_size"], data.get("max_objects", 100), max(sizes)
    stride, r = data.get("mask_stride", 4), data.get("mask_size")
    masks = stride and shape(b, n, -(-h // stride), -(-w // stride), dtype=np.uint8)
    box_masks = r and shape(b, n, r, r, dtype=np.uint8)
    return Batch(
        images=shape(b, h, w, 3, dtype=np.uint8),
        objects=Objects(
            boxes=shape(b, n, 4),
            labels=shape(b, n, dtype=np.int32),
            valid=shape(b, n, dtype=bool),
            crowd=shape(b, n, dtype=bool),
            masks=masks,
            box_masks=box_masks,
            keypoints=keypoints_of(data, shape),
        ),
        index=shape(b, dtype=np.int32),
        affine=shape(b, 2, 3),
        sizes=shape(b, 2, dtype=np.int32),
        valid=shape(b, dtype=bool),
        cut=shape(b, dtype=np.int32),
        small=shape(b, dtype=np.int32),
        proposals=proposals_of(data, shape),
    )


def keypoints_of(data, shape):
    """The shape of keypoints, where they are asked for: people's, of COCO."""
    asked = data.get("keypoints")
    return shape(data["batch_size"], data["max_objects"], 17, 3) if asked else None


def proposals_of(data, shape):
    """The shapes of proposals, of a data set that is made with some."""
    asked = (data.get("prepare") or {}).get("proposals")
    if not asked:
        return None
    b, p = data["batch_size"], proposals.complete(asked)["limit"]
    return Proposals(shape(b, p, 4), shape(b, p, dtype=bool))


@pytest.mark.parametrize("name", NAMES)
def test_config_fits_its_model_at_full_size(name):
    config = get(name)
    model = models.make(**config["model"])
    optimizer, rate = optim.make(**config["optimizer"], steps=config["train"]["steps"])
    batch = batch_of(config["data"])
    run = jax.eval_shape(lambda: train.create(model, optimizer, batch.images, 0))
    after, metrics = jax.eval_shape(
        train.make_step(model, optimizer, sharding.make()), run, batch, 1
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), run
    )
    assert metrics["loss"].shape == ()
    given = {} if batch.proposals is None else {"proposals": batch.proposals}
    found = jax.eval_shape(model.predict, run.params, run.state, batch.images, **given)
    assert found.boxes.shape[0] == config["data"]["batch_size"]
    drawn = found.masks if found.box_masks is None else found.box_masks
    asked = config["data"].get("mask_stride", 4) or config["data"].get("mask_size")
    assert (drawn is None) == (not asked)
    assert (found.keypoints is None) == (batch.objects.keypoints is None)
    assert np.isfinite(rate(0))


@pytest.mark.parametrize("name", NAMES)
def test_config_says_how_to_run_it(name):
    module = importlib.import_module(f"configs.{name}")
    assert "scripts/train.py" in module.__doc__ or "see " in module.__doc__


def test_paper_recipe_moves_no_batch_norm():
    config = get("yolact_r50_coco")
    model = models.make(**config["model"])
    params, _ = jax.eval_shape(
        model.init, jax.random.key(0), np.zeros((1, 550, 550, 3), np.uint8)
    )
    hit = optim.matching(config["optimizer"]["freeze"], params)
    frozen = sorted(
        name
        for name, frozen in zip(
            jax.tree.leaves(optim.names(params)), jax.tree.leaves(hit), strict=True
        )
        if frozen
    )
    assert len(frozen) == 2 * 53
    assert all(n.endswith(("scale", "bias")) for n in frozen)
