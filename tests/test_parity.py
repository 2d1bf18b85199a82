"""Every golden of YOLACT, of two-stage detectors, and of our backbones.

Seeds, shapes and scales are the files'; other files may stand in their place.
"""

import os
import pathlib

import pytest
from conftest import ROOT

from detjax import backbones, parity, parity_rcnn

FOLDER = pathlib.Path(os.environ.get("DETJAX_GOLDENS", ROOT / "../shared/goldens"))
FILES = sorted((FOLDER / "yolact").glob("*.json"))
TORCHVISION = sorted((FOLDER / "torchvision").glob("*.json"))
TWO_STAGES = [path for path in TORCHVISION if path.stem in parity_rcnn.GOLDENS]
CLASSIFIERS = [path for path in TORCHVISION if path.stem in backbones.FAMILIES]


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
    # Nearly equal scores, and overlaps near a threshold, may fall either way. A
    # proposal more or less is one in a few thousand that these are divided by.
    of_all = {name: found.losses.pop(name) for name in ("class", "box", "total")}
    assert max(of_all.values()) < 1e-3
    assert {k: v for k, v in found.losses.items() if not v < 1e-4} == {}
    assert {k: v for k, v in found.gradients.items() if not v < 1e-3} == {}
    assert found.proposals >= 0.99
    assert found.detections >= 0.99
