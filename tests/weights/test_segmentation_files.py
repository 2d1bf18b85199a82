"""Weight files of networks for pixels: names of four publishers, real features."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import TINY_PIXELS
from safetensors.numpy import load_file, save_file

from detjax import models
from detjax.checkpoint import TrainState
from detjax.import_weights import import_weights
from detjax.weights import convert, published, transfer


def drawn(model, seed=0):
    """Params and state of `model`, drawn."""
    images = np.zeros((1, 64, 64, 3), np.uint8)
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.tree.map(lambda x: rng.uniform(0.1, 1, x.shape).astype("f"), shapes)


def equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


FIRST = {
    ("lraspp", "torchvision"): {"classifier.cbr.0.weight"},
    ("deeplabv3", "torchvision"): {"backbone.conv1.weight", "aux_classifier.0.weight"},
    ("pspnet", "semseg"): {"layer0.3.weight", "layer0.4.running_var", "aux.4.bias"},
    ("deeplabv3plus", "jfzhang"): {"aspp.bn1.weight", "aspp.global_avg_pool.2.bias"},
    ("gscnn", "gscnn"): {"mod2.block1.bn1.0.weight", "aspp.img_conv.1.bias"},
}


@pytest.mark.parametrize(("name", "source"), FIRST)
def test_files_of_publishers_come_back(name, source):
    settings = dict(TINY_PIXELS[name])
    if name == "deeplabv3plus":
        settings["aspp"] = {"features": 8}
    params, state = drawn(models.make(**settings))
    held = convert.export(params, state, source=source)
    assert FIRST[name, source] <= held.keys()
    prefixed = {f"module.{key}": value for key, value in held.items()}
    for file in (held, prefixed):
        equal(convert.load(file, params, state, source=source)[:2], (params, state))


def test_vggs_layers_keep_the_lists_name():
    model = models.make("ssd300_vgg16", num_classes=3)
    params, state = jax.eval_shape(
        model.init, jax.random.key(0), np.zeros((1, 300, 300, 3), np.uint8)
    )
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), (params, state))
    held = convert.export(*zeros, source="torchvision")
    assert "backbone.features.0.weight" in held


@pytest.fixture(scope="module")
def mobile(tmp_path_factory):
    """torchvision's DeepLabV3 on MobileNetV3 drawn, and files with and without aux."""
    name = "deeplabv3_mobilenet_v3_large"
    params, state = drawn(models.make(name))
    held = convert.export(params, state, source="torchvision")
    folder = tmp_path_factory.mktemp("files")
    without = {k: v for k, v in held.items() if not k.startswith("aux")}
    save_file(held, folder / "whole.safetensors")
    save_file(without, folder / "without.safetensors")
    return name, folder, params


@pytest.mark.slow
def test_a_file_without_its_auxiliary_head_is_whole(mobile):
    name, folder, params = mobile
    assert "backbone.0.0.weight" in load_file(folder / "whole.safetensors")
    path = folder / "without.safetensors"
    found, _, report = published.load(path, source="torchvision", model=name)
    assert report.left
    assert all(key.startswith("aux_classifier.") for key in report.left)
    equal(found["classifier"], params["classifier"])
    assert found["aux_classifier"]["0"]["kernel"].std() > 0
    found, _, report = published.load(
        folder / "whole.safetensors", source="torchvision", model=name
    )
    assert report.left == []
    equal(found, params)


def test_an_import_has_vocs_classes_and_a_background(mobile, tmp_path):
    name, folder, _ = mobile
    out = tmp_path / "out"
    import_weights(
        folder / "whole.safetensors", source="torchvision", model=name, out=out
    )
    held = json.loads((out / "config.json").read_text())
    assert held["classes"][:2] == ["background", "aeroplane"]
    assert len(held["classes"]) == 21
    assert held["data"]["size"] == [520, 520]


def test_real_features_go_below_a_decoder(weights_dir, tmp_path):
    path = weights_dir / "mobilenet_v2-b0353104.pth"
    if not path.exists():
        pytest.skip(f"no file {path}: set DETJAX_WEIGHTS to where it is")
    out = tmp_path / "mobilenet"
    import_weights(path, source="torchvision", model="mobilenet_v2", out=out)
    model = models.make(
        "deeplabv3plus",
        num_classes=5,
        backbone={"name": "mobilenet_v2"},
        aspp={"features": 8},
        decoder={"features": 8},
    )
    params, state = drawn(model)
    zero = jnp.zeros((), jnp.int32)
    run = TrainState(zero, params, state, {}, jax.random.key_data(jax.random.key(0)))
    started, report = transfer.start(run, out, model=model)
    assert {name.split(".")[0] for name in report.left} == {"aspp", "decoder"}
    first = started.params["backbone"]["features.0.0"]["kernel"]
    assert 0.01 < np.abs(first).mean() < 0.5
    equal(started.params["decoder"], params["decoder"])
