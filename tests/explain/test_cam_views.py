"""Maps laid over pictures: of a small classifier, and of a real one whose cat shows."""

import cv2
import jax
import numpy as np
import pytest
from families import CLASSES, SIDE, everything

from detjax import predict
from detjax.errors import UserError
from detjax.explain.pictures import given
from detjax.explain.views import asked
from detjax.explain.views import cam as views
from detjax.import_weights import import_weights


def trained(name, **settings):
    """A tiny model of drawn weights, as a trained one."""
    described = {
        "model": {**everything().get(name, {"name": name}), **settings},
        "data": {"size": [SIDE, SIDE]},
        "classes": ["one", "two", "three"][:CLASSES],
        "category_ids": [1, 2, 3][:CLASSES],
    }
    made = predict.assemble(described, None, None, 0)
    images = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    params, state = jax.jit(made.model.init)(jax.random.key(0), images)
    return made._replace(params=params, state=state)


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    files = [tmp_path / "first.png", tmp_path / "second.png"]
    for file, size in zip(files, ((50, 70), (64, 64)), strict=True):
        cv2.imwrite(str(file), rng.integers(0, 255, (*size, 3)).astype(np.uint8))
    return files


def test_a_classifier_has_a_picture_of_a_class(pictures, tmp_path):
    made = trained(
        "classifier", num_classes=CLASSES, backbone={"name": "resnet10", "width": 8}
    )
    for method in ("grad-cam", "cam", "grad-cam++"):
        written = views.view(
            made, pictures[:1], tmp_path / "out", method=method, label="two"
        )
        assert [file.parent.name for file in written] == ["out"]
        drawn = cv2.imread(str(written[0]))
        assert drawn.std() > 10
    with pytest.raises(UserError, match="no class is called 'four'"):
        views.view(made, pictures, tmp_path, label="four")
    with pytest.raises(UserError, match="no quantity 'mask'"):
        views.view(made, pictures, tmp_path, quantity="mask")


def test_detections_have_a_panel_each(pictures, tmp_path):
    made = trained("ssd")
    [written] = views.view(made, pictures[:1], tmp_path, detections=3, min_score=0.0)
    [narrow] = views.view(
        made, pictures[:1], tmp_path / "one", detections=1, min_score=0.0
    )
    assert cv2.imread(str(written)).shape[1] > cv2.imread(str(narrow)).shape[1]
    with pytest.raises(UserError, match="no picture has a detection"):
        views.view(made, pictures, tmp_path, min_score=1.0)
    with pytest.raises(UserError, match="classic CAM is of classifiers"):
        views.view(made, pictures, tmp_path, method="cam", min_score=0.0)


# The outline of the cat on the picture stretched to 224 pixels, by eye: (x, y).
CAT = np.array(
    [
        *((20, 0), (199, 0), (187, 32), (179, 56), (181, 100), (172, 135), (156, 160)),
        *((180, 175), (192, 224), (0, 224), (0, 100), (16, 82), (16, 38)),
    ]
)


def test_the_cat_is_why_it_is_a_cat(weights_dir, data_dir, tmp_path):
    """The published MobileNetV2; what is right of the cat, and above, is cloth.

    Looked at: the map is hottest on the muzzle, then the eyes, and cold on the cloth.
    """
    path = weights_dir / "mobilenet_v2-b0353104.pth"
    if not path.exists():
        pytest.skip(f"no file {path}: set DETJAX_WEIGHTS to where it is")
    import_weights(
        path,
        source="torchvision",
        model="mobilenet_v2",
        out=tmp_path / "out",
        classes=[str(weights_dir / "imagenet_classes.txt")],
    )
    made = predict.load(tmp_path / "out")
    _, inputs = given(made, data_dir / "photos" / "chelsea.png")
    ask = asked.Asker(made, labels=["Egyptian cat"])
    assert ask.usual(inputs) == ["backbone.features.18.1"]
    cat = cv2.fillPoly(np.zeros((224, 224), np.uint8), [CAT], 1) > 0
    assert cat.mean() == pytest.approx(0.76, abs=0.02)
    for method in ("grad-cam", "layer-cam"):
        found = views.maps_of(ask, inputs, ask(inputs), method, None, "")
        heat = found.maps[0, 0]
        assert cat.ravel()[heat.argmax()], method
        assert heat[cat].mean() > 2 * heat[~cat].mean(), method
        # The hottest tenth of the picture lies on the cat.
        assert cat[heat >= np.quantile(heat, 0.9)].mean() > 0.95, method
