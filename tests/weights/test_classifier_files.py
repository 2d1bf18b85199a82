"""Files of classifiers from LeNet-5 on: connections, former names, what is in some."""

import jax
import numpy as np
import pytest
import tiny_backbones
from safetensors.numpy import save_file

from detjax import backbones
from detjax.backbones import lenet
from detjax.weights import convert, published


def drawn(name, **kwargs):
    """Params and state of a small net, for its file."""
    net = tiny_backbones.make(name, num_classes=3, **kwargs)
    images = np.zeros((1, 96, 96, 3), np.float32)
    state = dict(
        tiny_backbones.draw(jax.eval_shape(net.init, jax.random.key(0), images))
    )
    return state.pop("params"), state


def equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_lenets_file_has_zeros_where_there_is_no_connection():
    params, state = drawn("lenet5")
    held = convert.export(params, state, source="lenet")
    whole = held["c3.weight"]
    assert whole.shape == (16, 6, 5, 5)
    for out, seen in enumerate(lenet.TABLE):
        rest = [i for i in range(6) if i not in seen]
        assert (whole[out, list(seen)] != 0).all()
        assert (whole[out, rest] == 0).all()
    assert held["output.weight"].shape == (3, 84)
    loaded = convert.load(held, params, state, source="lenet")
    equal(loaded[:2], (params, state))


def test_a_connected_layer_is_the_convolution_with_zeros():
    params, state = drawn("lenet5")
    whole = convert.export(params, state, source="lenet")["c3.weight"]
    x = np.random.default_rng(0).normal(size=(1, 14, 14, 6)).astype(np.float32)
    layer = lenet.Connected(0, np.float32)
    got = layer.apply({"params": params["c3"]}, x)
    windows = np.lib.stride_tricks.sliding_window_view(x[0], (5, 5), axis=(0, 1))
    expected = np.einsum("hwcij,ocij->hwo", windows, whole) + params["c3"]["bias"]
    np.testing.assert_allclose(got[0], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_loaded_where_a_file_has_them(tmp_path, name):
    settings = {"num_classes": 3, **tiny_backbones.TINY[name]}
    for auxiliary in (True, False):
        params, state = drawn(name, auxiliary=auxiliary)
        path = tmp_path / "w.safetensors"
        save_file(convert.export(params, state, source="torchvision"), path)
        loaded = published.load(path, source="torchvision", model=name, **settings)
        equal(loaded[:2], (params, state))
        has = any(key.startswith(("aux", "Aux")) for key in loaded[0])
        assert has == auxiliary


def test_densenets_first_files_have_dots_in_their_names(tmp_path):
    params, state = drawn("densenet121")
    held = convert.export(params, state, source="torchvision")
    layer = "features.denseblock1.denselayer2"
    former = {
        key.replace("norm1.", "norm.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2."): value
        for key, value in held.items()
    }
    assert f"{layer}.norm.1.running_mean" in former
    equal(
        convert.load(former, params, state, source="torchvision")[:2], (params, state)
    )


def test_backbones_of_other_keys_need_no_other_settings():
    assert backbones.implied("googlenet", ["conv1.conv.weight"]) == {}
    assert backbones.implied("googlenet", ["aux2.fc1.bias"]) == {"auxiliary": True}
    assert backbones.implied("resnet18", ["aux2.fc1.bias"]) == {}
