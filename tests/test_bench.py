"""The benchmarks: that they run, and what their roofline counts."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import pytest

sys.path.append(str(pathlib.Path(__file__).parents[1] / "scripts"))

from benches import accelerator, roofline, timing

from detjax import backbones


def layers(function, *shapes):
    made = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in shapes]
    return roofline.layers(jax.make_jaxpr(function)(*made))


def test_roofline_of_a_network_is_its_published_arithmetic():
    """ResNet-50: 4.09 G multiply-adds at 224 px, in 53 convolutions and one product."""
    net = backbones.make("resnet50", num_classes=1000)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), image)
    found = roofline.layers(jax.make_jaxpr(net.apply)(variables, image))
    assert len(found) == 54
    assert sum(layer.flops for layer in found) == pytest.approx(2 * 4.09e9, rel=2e-3)


def test_roofline_counts_gradients_and_loops():
    """Strides multiply no zeros backward; a scan counts its layers each time."""

    def strided(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    shapes = (2, 32, 32, 8), (3, 3, 8, 16)
    [forward] = layers(strided, *shapes)
    assert forward.flops == 2 * (2 * 16 * 16 * 16) * (3 * 3 * 8)
    assert forward.bytes == 2 * (2 * 32 * 32 * 8 + 3 * 3 * 8 * 16 + 2 * 16 * 16 * 16)
    gradient = jax.grad(lambda x, k: strided(x, k).sum(), argnums=(0, 1))
    backward = layers(gradient, *shapes)
    assert sum(x.flops for x in backward) == pytest.approx(3 * forward.flops, rel=0.1)

    def repeated(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, length=5)[0]

    [product] = layers(repeated, (4, 8), (8, 8))
    assert (product.flops, product.times) == (2 * 4 * 8 * 8, 5)


def test_a_layer_takes_the_longer_of_arithmetic_and_memory():
    peak = roofline.Peak(tflops=1, gbytes=1)
    assert roofline.Layer(2e9, 1e6, 3).milliseconds(peak) == pytest.approx(6)
    assert roofline.Layer(1e6, 4e6, 1).milliseconds(peak) == pytest.approx(4)


def test_rows_say_rates_and_shares():
    row = timing.Row("a", "b", 10.0, "c", 25.0, images=8, roof_ms=4.0)
    assert (row.ratio, row.rate, row.share) == (2.5, 800, 0.4)
    assert row.json()["images_per_s"] == 800
    assert "(not measured)" in str(timing.Row("a", "b", 10.0, "c"))


@pytest.mark.slow
def test_everything_for_an_accelerator_runs():
    rows = list(accelerator.accelerator(tiny=True))
    assert len(rows) == len(list(accelerator.all_cases(accelerator.TINY)))
    assert {row.name for row in rows} >= {
        *("yolact", "mask_rcnn", "mask_rcnn_train"),
        *("retinanet", "yolov3", "retinanet_train"),
    }
    assert all(row.ours_ms > 0 for row in rows)
