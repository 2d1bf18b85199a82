"""HED: its loss against the paper's equation, and real weights on a real picture."""

import dense_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import TINY_PIXELS as TINY
from PIL import Image

from detjax import models
from detjax.errors import UserError
from detjax.import_weights import import_weights
from detjax.models.hed import Loss
from detjax.types import Inputs
from detjax.weights import published


def edges(**kinds):
    """A batch whose values are edges, 1, where a depth changes."""
    data = cases.batch("dense", **kinds)
    values = np.asarray(data.target.values)
    step = np.abs(np.diff(values, axis=2, append=values[:, :, -1:])) > 0.5
    target = data.target.replace(values=step.astype(np.float32))
    return data.replace(target=target)


@pytest.mark.slow
def test_it_holds_what_every_model_of_pixels_does():
    data = edges(size=(45, 67))
    model = models.make(**TINY["hed"])
    _, _, answer = cases.check(model, data, rtol=1e-3)
    assert answer.values.shape == (2, 45, 67)
    assert ((answer.values >= 0) & (answer.values <= 1)).all()
    assert cases.names_without_gradient(model, data) == set()


@pytest.mark.parametrize("mean_over", ["pixels", "images"])
def test_the_loss_is_the_papers(mean_over):
    data = edges(size=(6, 8))
    logits = np.random.default_rng(0).standard_normal((2, 6, 8)).astype(np.float32)
    found = Loss(mean_over)(logits, data.target.values, data.target.valid)
    for i in range(2):
        total, known = 0.0, [*zip(*np.nonzero(data.target.valid[i]), strict=True)]
        share = np.mean([data.target.values[i][at] < 0.5 for at in known])
        assert 0 < share < 1
        for at in known:
            p = 1 / (1 + np.exp(-float(logits[i][at])))
            edge = data.target.values[i][at] >= 0.5
            total -= share * np.log(p) if edge else (1 - share) * np.log(1 - p)
        expected = total if mean_over == "images" else total / len(known)
        assert float(found[i]) == pytest.approx(expected, rel=1e-5)


def test_images_without_edges_or_without_known_pixels_train():
    data = edges(size=(32, 32))
    model = models.make(**TINY["hed"])
    params, state = cases.started(model, data)
    target = data.target
    for other in (
        target.replace(values=np.zeros_like(target.values)),
        target.replace(valid=np.zeros_like(target.valid)),
        target.replace(valid=None),
    ):
        (loss, _), gradients = cases.step(model)(
            params, state, data.replace(target=other)
        )
        assert jnp.isfinite(loss)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_side_outputs_may_be_left_alone():
    data = edges(size=(32, 32))
    model = models.make(**TINY["hed"], loss={"sides": 0.0})
    params, state = cases.started(model, data)
    (loss, (_, metrics)), _ = cases.step(model)(params, state, data)
    assert float(loss) == pytest.approx(float(metrics["fuse"]))
    assert metrics["sides"] == 0


def test_what_is_around_a_picture_is_not_seen():
    inputs = edges(size=(32, 48)).inputs
    model = models.make(**TINY["hed"])
    params, state = model.init(jax.random.key(0), inputs.images)
    move = np.float32([[[1, 0, 6], [0, 1, 0]]] * 2)
    view = inputs.view.replace(affine=move, sizes=np.int32([[32, 36]] * 2))
    inside = slice(6, 42)
    answers = []
    for fill in (0, 255):
        images = np.full_like(inputs.images, fill)
        images[:, :, inside] = inputs.images[:, :, inside]
        found = model.predict(params, state, Inputs(images, view))
        answers.append(found.values)
    np.testing.assert_array_equal(*answers)


def test_it_answers_one_question():
    with pytest.raises(UserError, match="hed finds one number of each pixel"):
        models.make("hed", num_classes=2)


# By the layers written out in torch: the fused edge probability of the astronaut, in
# BGR less the means, at (row, column), and its mean.
ASTRONAUT = {
    (100, 200): 0.49584,
    (200, 150): 0.77740,
    (120, 256): 0.03346,
    (300, 60): 0.06842,
    (400, 400): 0.00025,
    (60, 300): 0.70647,
    (256, 256): 0.59349,
    (450, 100): 0.26496,
}
MEAN, SHARE = 0.23008, 0.22173


@pytest.mark.long
def test_real_weights_find_the_astronauts_edges(weights_dir, data_dir):
    path = weights_dir / "vgg16_hed_bsds500.safetensors"
    if not path.exists():
        pytest.skip(f"no file {path}: set DETJAX_WEIGHTS to where it is")
    params, state, report = published.load(path, source="hed", model="hed")
    assert len(report.loaded) == 38
    with Image.open(data_dir / "photos" / "astronaut.png") as image:
        picture = np.asarray(image.convert("RGB"))
    model = models.make("hed")
    found = jax.jit(model.predict)(params, state, Inputs(picture[None]))
    values = np.asarray(found.values[0])
    for at, expected in ASTRONAUT.items():
        assert values[at] == pytest.approx(expected, abs=1e-4)
    assert values.mean() == pytest.approx(MEAN, abs=1e-4)
    assert (values > 0.5).mean() == pytest.approx(SHARE, abs=1e-3)


def test_a_file_becomes_a_folder(weights_dir, tmp_path):
    path = weights_dir / "vgg16_hed_bsds500.safetensors"
    if not path.exists():
        pytest.skip(f"no file {path}: set DETJAX_WEIGHTS to where it is")
    out = tmp_path / "out"
    report = import_weights(path, source="hed", model="hed", out=out)
    assert not report.left
    assert not report.unused
    assert '"edges"' in (out / "config.json").read_text()
