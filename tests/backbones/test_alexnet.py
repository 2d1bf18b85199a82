"""AlexNet against the same layers in torch, and torchvision's count of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax import backbones

torch = pytest.importorskip("torch")
nn = torch.nn


def test_parameter_count_and_shapes():
    images = np.zeros((1, 227, 227, 3), np.float32)
    net = backbones.make("alexnet", num_classes=1000)
    params = jax.eval_shape(net.init, jax.random.key(0), images)["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == 61_100_840
    net = backbones.make("alexnet", norm="batch", connected=True)
    features, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), images)
    assert [x.shape for x in features] == [(1, 6, 6, 256), (1, 1, 1, 4096)]


def twin(width):
    """The layers of torchvision's alexnet, narrower, with its state-dict names."""
    a, b, c, d = width, 3 * width, 6 * width, 4 * width
    relu, pool = nn.ReLU(), nn.MaxPool2d(3, 2)
    layers = [nn.Conv2d(3, a, 11, 4, 2), relu, pool, nn.Conv2d(a, b, 5, 1, 2), relu]
    layers += [pool, nn.Conv2d(b, c, 3, 1, 1), relu, nn.Conv2d(c, d, 3, 1, 1), relu]
    layers += [nn.Conv2d(d, d, 3, 1, 1), relu, pool]
    f = 64 * width
    head = [nn.Dropout(), nn.Linear(d * 36, f), relu, nn.Dropout(), nn.Linear(f, f)]
    head += [relu, nn.Linear(f, 5)]
    model = nn.Module()
    model.features, model.classifier = nn.Sequential(*layers), nn.Sequential(*head)
    model.forward = lambda x: model.classifier(model.features(x).flatten(1))
    return model.eval()


def test_logits_are_torchs():
    torch.manual_seed(0)
    model, images = twin(2), torch.randn(2, 3, 227, 227)
    params: dict = {}
    for name, value in model.state_dict().items():
        module, leaf = name.rsplit(".", 1)
        x = value.numpy()
        x = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T
        leaf = {"weight": "kernel", "bias": "bias"}[leaf]
        params.setdefault(module, {})[leaf] = jnp.asarray(x)
    net = backbones.make("alexnet", width=2, num_classes=5)
    got = jax.jit(net.apply)({"params": params}, images.permute(0, 2, 3, 1).numpy())
    with torch.no_grad():
        np.testing.assert_allclose(got, model(images).numpy(), atol=1e-5)


def test_training_drops():
    net = backbones.make("alexnet", width=2, connected=True)
    images = jnp.ones((1, 227, 227, 3))
    variables = net.init(jax.random.key(0), images)
    one, other = (
        net.apply(variables, images, train=True, rngs={"dropout": jax.random.key(i)})
        for i in (1, 2)
    )
    np.testing.assert_array_equal(one[0], other[0])
    assert (one[1] != other[1]).any()
