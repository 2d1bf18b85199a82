"""The views of attributions and influence, of a tiny classifier that learnt nothing."""

import json

import jax
import numpy as np
import pytest

from detjax import draw, models, predict
from detjax.errors import UserError
from detjax.explain.views import asked, attribute, compare, influence

MODEL = {
    "name": "classifier",
    "num_classes": 3,
    "backbone": {"name": "resnet10", "width": 8},
}
CLASSES = ["cat", "dog", "owl"]


@pytest.fixture(scope="module")
def trained():
    model = models.make(**MODEL)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    params, state = jax.jit(model.init)(jax.random.key(0), images)
    described = {
        "model": MODEL,
        "data": {"name": "none", "batch_size": 1, "size": (32, 32)},
        "classes": CLASSES,
        "category_ids": [1, 2, 3],
    }
    return predict.assemble(described, params, state, 0)


@pytest.fixture
def picture(tmp_path):
    rng = np.random.default_rng(0)
    draw.save(tmp_path / "one.png", rng.integers(0, 256, (40, 48, 3), np.uint8))
    return tmp_path / "one.png"


def test_attributions_are_drawn(trained, picture, tmp_path):
    paths = attribute.view(
        trained,
        [picture],
        tmp_path,
        methods=("gradient", "gradient_x_input"),
        label="owl",
        against="cat",
    )
    assert paths == [tmp_path / "attribute-one.png"]
    # The picture, one magnitude, and both of the method that has a sign.
    assert (
        predict.read_image(paths[0]).shape[1] > 2 * predict.read_image(picture).shape[1]
    )


def test_influential_units_are_drawn_and_listed(trained, picture, tmp_path):
    paths = influence.view(
        trained, [picture], tmp_path, label="owl", kind="internal", steps=2, most=2
    )
    assert [path.name for path in paths] == ["influence-one.png", "influence.json"]
    held = json.loads(paths[-1].read_text())
    assert held["layer"] == "backbone.layer2.0"
    amounts = [*held["units"]["one"].values()]
    assert len(amounts) == 2
    assert amounts[0] >= amounts[1]


def test_names_that_are_not_known_are_told(trained, picture, tmp_path):
    for call, message in (
        (lambda: asked.question(trained, "mask"), "no quantity 'mask'"),
        (lambda: asked.question(trained, "", ["bee"]), "no class is called 'bee'"),
        (lambda: attribute.view(trained, [], tmp_path, against="cat"), "without label"),
        (
            lambda: attribute.view(trained, [], tmp_path, methods=("magic",)),
            "no method is called 'magic'",
        ),
        (
            lambda: compare.view(trained, [], tmp_path, methods=("magic",)),
            "no method is called 'magic'",
        ),
        (lambda: influence.view(trained, [], tmp_path, kind="all"), "kind='all'"),
        (lambda: influence.view(trained, [], tmp_path, suffice=True), "give the class"),
        (
            lambda: influence.view(trained, [picture], tmp_path, layer="backbone.lay"),
            "the nearest are",
        ),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_maps_are_scaled_by_most_of_their_values():
    found = asked.scaled(np.append(np.linspace(-1, 1, 999), 1e6))
    assert np.abs(found).max() == 1
    np.testing.assert_allclose(found[:-1], np.linspace(-1, 1, 999), atol=0.02)
    np.testing.assert_array_equal(asked.scaled(np.zeros(4)), np.zeros(4))
