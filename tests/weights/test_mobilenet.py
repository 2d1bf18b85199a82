"""A published file, in torch's first format: what it says of two photographs."""

import numpy as np
import pytest
from PIL import Image

from detjax import predict
from detjax.import_weights import import_weights
from detjax.weights import read


@pytest.fixture(scope="module")
def path(weights_dir):
    found = weights_dir / "mobilenet_v2-b0353104.pth"
    if not found.exists():
        pytest.skip(f"no file {found}: set DETJAX_WEIGHTS to where it is")
    return found


def test_the_first_format_is_read_without_torch(path):
    held = read.state_dict(path)
    counted = sum(
        x.size
        for name, x in held.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    assert counted == 3_504_872


def cropped(path, short=256, side=224):
    """The centre of a picture, as the weights were evaluated."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    scale = short / min(image.size)
    w, h = (int(scale * n) for n in image.size)
    left, top = round((w - side) / 2), round((h - side) / 2)
    image = image.resize((w, h), Image.Resampling.BILINEAR)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def test_a_cat_and_a_coffee_are_what_they_are(path, data_dir, weights_dir, tmp_path):
    """Egyptian cat .707, espresso .993 in torchvision; .01 is another resizing's."""
    import_weights(
        path,
        source="torchvision",
        model="mobilenet_v2",
        out=tmp_path / "out",
        classes=[str(weights_dir / "imagenet_classes.txt")],
    )
    trained = predict.load(tmp_path / "out")
    for name, said, score in (
        ("chelsea", "Egyptian cat", 0.707),
        ("coffee", "espresso", 0.993),
    ):
        found = trained(cropped(data_dir / "photos" / f"{name}.png"))
        assert trained.classes[int(found.labels[0])] == said
        assert found.scores[0] == pytest.approx(score, abs=0.015)
