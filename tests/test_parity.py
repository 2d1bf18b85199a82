"""Every golden of YOLACT, of two-stage detectors, and of our backbones.

Seeds, shapes and scales are the files'; other files may stand in their place.
"""

import os
import pathlib

import numpy as np
import pytest
from conftest import ROOT

from detjax import backbones, goldens, parity, parity_rcnn

FOLDER = pathlib.Path(os.environ.get("DETJAX_GOLDENS", ROOT / "../shared/goldens"))
MODELS = {
    kind: goldens.below(FOLDER / kind).items() for kind in ("torchvision", "yolact")
}
FILES = [path for path, _ in MODELS["yolact"]]
TWO_STAGES = [p for p, name in MODELS["torchvision"] if name in parity_rcnn.GOLDENS]
CLASSIFIERS = [p for p, name in MODELS["torchvision"] if name in backbones.FAMILIES]


@pytest.mark.skipif(
    not CLASSIFIERS, reason=f"no goldens in {FOLDER}: set DETJAX_GOLDENS"
)
@pytest.mark.parametrize("path", CLASSIFIERS, ids=lambda p: p.stem)
def test_backbone_is_torchvisions(path):
    found = parity.certify_classifier(path)
    assert found.parameters == found.expected_parameters
    assert found.outputs["logits"] < 1e-4


@pytest.mark.skipif(not FILES, reason=f"no goldens in {FOLDER}: set DETJAX_GOLDENS")
@pytest.mark.parametrize(
    "path",
    [
        # Each takes about a minute: one of them is for every day.
        pytest.param(f, id=f.stem, marks=[pytest.mark.slow] if i else [])
        for i, f in enumerate(sorted(FILES, key=lambda f: (len(f.stem), f.stem)))
    ],
)
def test_yolact_is_the_original(path):
    found = parity.certify(path)
    assert found.parameters == found.expected_parameters
    assert {k: v for k, v in found.outputs.items() if v > 1e-4} == {}
    assert {k: v for k, v in found.losses.items() if v > 1e-4} == {}
    assert {k: v for k, v in found.gradients.items() if v > 1e-3} == {}
    # An IoU within rounding of the threshold may fall on the other side of it.
    assert found.detections >= 0.99
    assert found.mask_areas < 0.02


@pytest.mark.slow
@pytest.mark.skipif(
    not TWO_STAGES, reason=f"no goldens in {FOLDER}: set DETJAX_GOLDENS"
)
@pytest.mark.parametrize("path", TWO_STAGES, ids=lambda p: p.stem)
def test_two_stages_are_torchvisions(path):
    found = parity_rcnn.certify(path)
    assert found.parameters == found.expected_parameters
    assert {k: v for k, v in found.outputs.items() if not v < 1e-4} == {}
    # Nearly equal scores, and overlaps near a threshold, may fall either way: of the
    # fifty proposals that a golden holds of an image one may be another. It is one of
    # hundreds that the second stage's losses are divided by.
    second = {k: v for k, v in found.losses.items() if not k.startswith("rpn_")}
    first = {k: v for k, v in found.losses.items() if k not in second}
    assert max(first.values()) < 1e-4
    assert max(second.values()) < (1e-4 if found.proposals == 1 else 1e-3)
    assert {k: v for k, v in found.gradients.items() if not v < 1e-3} == {}
    assert found.proposals >= 0.975
    assert found.detections >= 0.99


@pytest.mark.parametrize("empty", [(0,), (1,), (0, 1)])
def test_a_golden_may_have_images_without_objects(empty):
    facts = {
        "input": [{"shape": [1, 24, 32, 3], "seed": i} for i in range(2)],
        "min_size": 32,
        "max_size": 64,
    }
    box = [2.0, 3.0, 20.0, 15.0]
    area = int(goldens.ellipse(np.array(box), (24, 32)).sum())
    one = {"boxes": [box], "labels": [3], "keypoints": [[[4, 5, 1]]]}
    nothing = {"boxes": [], "labels": [], "keypoints": [], "mask_area": []}
    targets = [nothing if i in empty else {**one, "mask_area": [area]} for i in (0, 1)]
    batch = parity_rcnn.draw_batch(parity_rcnn.pad(facts), targets)
    for i in (0, 1):
        assert batch.objects.valid[i].sum() == (i not in empty)
        assert batch.objects.masks[i].any() == (i not in empty)
        if i not in empty:
            # 24 x 32 becomes 32 x 42: sides are rounded down.
            moved = np.array(box) * np.tile([42 / 32, 32 / 24], 2)
            np.testing.assert_allclose(batch.objects.boxes[i, 0], moved)
            assert batch.objects.labels[i, 0] == 2
