"""Darknet's weight files, byte for byte."""

import jax
import numpy as np
import pytest

from detjax.errors import UserError
from detjax.models.darknet import cfg, net
from detjax.weights import darknet

TEXT = """
[net]
width=8
height=8
channels=3
[convolutional]
filters=4
size=3
pad=1
batch_normalize=1
[maxpool]
size=2
stride=2
[convolutional]
filters=4
size=1
groups=2
[local]
filters=2
size=3
pad=1
[connected]
output=5
batch_normalize=1
[connected]
output=3
"""
NAMES = [
    *(f"0.{n}" for n in ("norm.bias", "norm.weight", "norm.running_mean")),
    "0.norm.running_var",
    "0.weight",
    "2.bias",
    "2.weight",
    "3.bias",
    "3.weight",
    "4.norm.bias",
    "4.weight",
    *(f"4.{n}" for n in ("norm.weight", "norm.running_mean", "norm.running_var")),
    "5.bias",
    "5.weight",
]


@pytest.fixture(scope="module")
def shapes():
    read = cfg.parse(TEXT)
    image = np.zeros((1, 8, 8, 3), np.float32)
    made = jax.eval_shape(net.Net(read).init, jax.random.key(0), image)
    return darknet.manifest(made["params"], made)


@pytest.fixture
def arrays(shapes):
    rng = np.random.default_rng(0)
    return {k: rng.standard_normal(s).astype("f") for k, s in shapes.items()}


def test_the_order_is_darknets(shapes):
    assert list(shapes) == NAMES
    assert shapes["2.weight"] == (4, 2, 1, 1)
    assert shapes["3.bias"] == (2 * 16,)
    assert shapes["3.weight"] == (16, 2, 4, 3, 3)
    assert shapes["4.weight"] == (5, 32)


def test_what_is_written_is_read(tmp_path, shapes, arrays):
    path = tmp_path / "a.weights"
    path.write_bytes(darknet.written(arrays, shapes, seen=7_000_000_000))
    assert path.stat().st_size == 20 + 4 * sum(x.size for x in arrays.values())
    found, known = darknet.read(path, shapes)
    assert known == ((0, 2, 0), 7_000_000_000, 20)
    assert list(found) == NAMES
    jax.tree.map(np.testing.assert_array_equal, found, arrays)
    assert darknet.written(found, shapes, known.seen) == path.read_bytes()


def test_old_headers_and_transposed_layers(tmp_path, shapes, arrays):
    body = darknet.written(arrays, shapes)[20:]
    path = tmp_path / "a.weights"
    path.write_bytes(np.array([0, 1, 0, 5], "<i4").tobytes() + body)
    found, known = darknet.read(path, shapes)
    assert (known.seen, known.length) == (5, 16)
    np.testing.assert_array_equal(found["5.weight"], arrays["5.weight"])
    turned = {
        k: x.T.copy().reshape(x.shape) if x.ndim == 2 else x for k, x in arrays.items()
    }
    body = darknet.written(turned, shapes)[20:]
    path.write_bytes(np.array([2000, 1, 0, 5], "<i4").tobytes() + body)
    found, _ = darknet.read(path, shapes)
    jax.tree.map(np.testing.assert_array_equal, found, arrays)


def test_a_file_may_end_with_a_layer(tmp_path, shapes, arrays):
    path = tmp_path / "a.conv.3"
    held = sum(arrays[name].size for name in NAMES[:7])
    path.write_bytes(darknet.written(arrays, shapes)[: 20 + 4 * held])
    found, _ = darknet.read(path, shapes)
    assert list(found) == NAMES[:7]


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda data: data[:10], "has 10 bytes; it is no file of darknet"),
        (lambda data: data[:18], "is cut off within its header"),
        (lambda data: data[:-2], "ends within a number"),
        (lambda data: data[:-4], "ends within layer 5"),
        (lambda data: data[:100], "ends within layer 0"),
        (lambda data: data + data[-8:], "and the network takes"),
    ],
)
def test_files_that_do_not_fit_are_sentences(tmp_path, shapes, arrays, change, said):
    path = tmp_path / "a.weights"
    path.write_bytes(change(darknet.written(arrays, shapes)))
    with pytest.raises(UserError, match=said):
        darknet.read(path, shapes)


def test_arrays_that_do_not_fit_are_sentences(shapes, arrays):
    with pytest.raises(UserError, match=r"5\.weight is not there"):
        darknet.written({k: arrays[k] for k in NAMES[:-1]}, shapes)
    with pytest.raises(UserError, match=r"5\.weight is \(2,\), the network has"):
        darknet.written(arrays | {"5.weight": np.zeros(2)}, shapes)
