"""What a trained model takes, and how it shows itself."""

import jax
import numpy as np
import pytest
from families import SIDE, TINY
from PIL import Image

import detjax
from detjax import models, predict
from detjax.errors import UserError

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def trained():
    settings = {**TINY["yolact-boxes"]}
    model = models.make(**settings)
    images = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    weights = jax.jit(model.init)(jax.random.key(0), images)
    described = {
        "model": settings,
        "data": {"size": (SIDE, SIDE)},
        "classes": ["cat", "dog", "car"],
        "category_ids": [1, 2, 3],
    }
    return predict.assemble(described, *weights, step=12)


def same(one, other):
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.scores, other.scores)


def test_it_shows_itself_in_a_line(trained):
    said = repr(trained)
    assert said.startswith("TrainedModel(yolact, step 12, ")
    assert said.endswith("parameters, 3 classes: cat, dog, car)")
    assert len(said) < 200


def test_arrays_pictures_of_pil_paths_and_lists_are_alike(trained, tmp_path):
    pixels = RANDOM.integers(0, 256, (50, 70, 3), np.uint8)
    found = trained(pixels)
    assert len(found.boxes)
    same(trained(Image.fromarray(pixels)), found)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    same(trained(path), found)
    several = trained([pixels, str(path), pixels[:30]])
    assert len(several) == 3
    same(several[1], found)
    assert several[2].boxes[:, 3].max() <= 30
    for image in (pixels, Image.fromarray(pixels), path):
        drawn = trained.draw(image, found)
        assert drawn.dtype == np.uint8
        np.testing.assert_array_equal(drawn, trained.draw(pixels, found))
    assert (drawn != 0).any()


def test_palettes_and_bits_are_converted(trained):
    """As arrays they are numbers of colours."""
    palette = Image.fromarray(RANDOM.integers(0, 256, (40, 40, 3), np.uint8)).quantize(
        4
    )
    same(trained(palette), trained(np.asarray(palette.convert("RGB"))))
    bits = Image.fromarray(RANDOM.random((40, 40)) > 0.5)
    same(trained(bits), trained(np.asarray(bits.convert("RGB"))))
    with pytest.raises(UserError, match="a PIL image, or a path"):
        trained(np.zeros((4, 4)))


def test_the_package_finds_its_modules():
    assert detjax.models is models
    assert "Where to begin" in detjax.__doc__
    with pytest.raises(AttributeError, match="no attribute 'modles'"):
        _ = detjax.modles
