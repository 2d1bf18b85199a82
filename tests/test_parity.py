"""Every golden of YOLACT, of two-stage detectors, and of our backbones.

Seeds, shapes and scales are the files'; other files may stand in their place. Goldens
of our own are here at all times: where the others are absent, these still run the code.
"""

import json
import os
import pathlib

import numpy as np
import pytest
from conftest import ROOT

from detjax import parity
from detjax.errors import UserError
from detjax.parity import (
    attributions,
    cams,
    certificate,
    classifiers,
    cornernet,
    darknet,
    detectors,
    gscnn,
    one_stage,
    own,
    segmenters,
    yolact,
)
from detjax.parity.detector_inputs import draw_batch, pad
from detjax.parity.goldens import ellipse

FOLDER = pathlib.Path(os.environ.get("DETJAX_GOLDENS", ROOT / "../shared/goldens"))
TINY = parity.known(ROOT / "tests/goldens_tiny")
KNOWN = parity.known(FOLDER)
FILES = [
    path
    for path, source in KNOWN.items()
    if source is yolact
    and (path.stem != "yolact_base" or "DETJAX_EVERY_GOLDEN" in os.environ)
]
# All layers of these are another's.
WITHIN = ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2")
TWO_STAGES = [
    path
    for path, source in KNOWN.items()
    if source is detectors
    and (path.stem not in WITHIN or "DETJAX_EVERY_GOLDEN" in os.environ)
]
DARKNET = [path for path, source in KNOWN.items() if source is darknet]
ONE_STAGES = [path for path, source in KNOWN.items() if source is one_stage]
CORNERS = [path for path, source in KNOWN.items() if source is cornernet]
CLASSIFIERS = [path for path, source in KNOWN.items() if source is classifiers]
# A network for pixels of each kind; the others have more layers of the same kinds.
PIXELS = (
    *("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large"),
    *("lraspp_mobilenet_v3_large", "pspnet50", "deeplabv3plus_xception"),
)
SEGMENTERS = [
    path
    for path, source in KNOWN.items()
    if source in (segmenters, gscnn)
    and (path.stem in PIXELS or "DETJAX_EVERY_GOLDEN" in os.environ)
]
# The others run for minutes, those of attributions in float64.
EXPLAINED = [
    path
    for path, source in KNOWN.items()
    if source in (attributions, cams)
    and (path.stem == "cam_resnet50" or "DETJAX_EVERY_GOLDEN" in os.environ)
]
# For every day: small classifiers of several kinds. No detector: one takes a minute.
DAILY = (
    *("resnet18", "alexnet", "squeezenet1_1", "mobilenet_v2", "shufflenet_v2_x1_0"),
    *("lenet5", "nin_cifar10"),
)
# Of darknet's a detector of each kind, which takes ten seconds, and a classifier.
SMALL = ("yolov3-tiny", "yolov2-tiny-voc", "darknet")


def sampled(paths, slow):
    """Parameters for pytest, marked long where `slow` says so of a file's name."""
    marks = {path: [pytest.mark.long] if slow(path.stem) else [] for path in paths}
    return [pytest.param(path, id=path.stem, marks=marks[path]) for path in paths]


def test_every_source_has_a_golden_of_our_own():
    assert {*TINY.values()} == {*parity.SOURCES}


@pytest.mark.parametrize("path", TINY, ids=lambda p: p.stem)
def test_our_numbers_did_not_move(path):
    # If they were meant to: python scripts/parity.py --write tests/goldens_tiny
    found = parity.certify(path)
    assert found.parameters == found.expected_parameters
    for errors, most in (
        (found.outputs, 1e-5),
        (found.losses, 1e-5),
        # Some are nothing but rounding, such as of what a softmax is indifferent to.
        (found.gradients, 1e-3),
    ):
        assert {k: v for k, v in (errors or {}).items() if not v < most} == {}
    assert found.detections in (None, 1)
    assert found.proposals in (None, 1)
    assert not found.mask_areas
    assert found.file in (None, True)


def test_an_output_that_moved_is_found(tmp_path):
    [path] = [path for path, source in TINY.items() if source is classifiers]
    facts = json.loads(path.read_text())
    logits = facts["outputs"]["logits"]
    logits["value"][3] += 1e-3 * logits["std"]
    moved = tmp_path / "moved.json"
    moved.write_text(json.dumps(facts))
    assert parity.certify(moved).outputs["logits"] == pytest.approx(1e-3, rel=0.01)
    own.rewrite(moved)
    again, recipe = json.loads(moved.read_text()), json.loads(path.read_text())
    assert parity.certify(moved).outputs["logits"] < 1e-6
    assert again.keys() == recipe.keys()
    assert again["state_dict"] == recipe["state_dict"]


def test_only_goldens_of_our_own_are_written(tmp_path):
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps({"source": "torchvision 0.27.1", "model": "resnet50"}))
    with pytest.raises(UserError, match="what torchvision"):
        own.rewrite(path)
    assert parity.known(path) == {path: classifiers}
    path.write_text(json.dumps({"source": "caffe", "model": "resnet50"}))
    assert parity.known(path) == {}


def test_a_loss_or_a_gradient_that_moved_is_found():
    expected = {
        "losses": {"B": 2.0},
        "total": 2.0,
        "grad_norm": {"a": 4.0, "b": 1e-9},
    }
    ours = certificate.Training({"B": 2.1}, 2.0, {"a": (4.4, 4.6), "b": (0.0, 0.0)})
    losses, gradients = certificate.training_errors(ours, expected, {"B": "box"})
    assert losses == pytest.approx({"box": 0.05, "total": 0})
    # The nearer of the two norms counts; what is nothing beside the largest does not.
    assert gradients == pytest.approx({"a": 0.1, "b": 2.5e-4})
    with pytest.raises(ValueError, match="differ by name"):
        certificate.training_errors(
            ours._replace(norms={"a": (4.0, 4.0)}), expected, {"B": "box"}
        )


def test_twins_are_the_nearest_of_their_class_and_taken_once():
    ours = {
        "boxes": np.array([[0, 0, 9, 9.04], [0, 0, 9, 9], [5, 5, 8, 8]]),
        "labels": np.array([1, 1, 2]),
        "scores": np.array([0.5, 0.5, 0.9]),
    }
    box = [0, 0, 9, 9]
    expected = {"boxes": [box] * 4, "labels": [1, 1, 1, 2], "scores": [0.5] * 4}
    within = {"boxes": 0.05, "scores": 1e-4}
    match = certificate.twins(ours, expected, within)
    assert match.tolist() == [1, 0, -1, -1]
    assert certificate.share([match], [3]) == 0.5
    nothing = {"boxes": np.zeros((0, 4)), "labels": [], "scores": []}
    assert certificate.twins(nothing, expected, within).tolist() == [-1] * 4
    assert certificate.share([np.array([0])], [4]) == 0.25


@pytest.mark.skipif(
    not CLASSIFIERS, reason=f"no goldens in {FOLDER}: set DETJAX_GOLDENS"
)
@pytest.mark.parametrize("path", sampled(CLASSIFIERS, lambda name: name not in DAILY))
def test_classifiers_are_the_originals(path):
    found = parity.certify(path)
    assert found.parameters == found.expected_parameters
    assert {k: v for k, v in found.outputs.items() if not v < 1e-4} == {}
    assert {k: v for k, v in (found.losses or {}).items() if not v < 1e-4} == {}
    # Where a ReLU's input is nothing but rounding the original differs from itself.
    original = json.loads(path.read_text()).get("float64_differs_by", {})
    most = max(1e-3, 10 * original.get("grad_norm", 0))
    assert {k: v for k, v in (found.gradients or {}).items() if not v < most} == {}


@pytest.mark.skipif(not DARKNET, reason=f"no goldens in {FOLDER}: set DETJAX_GOLDENS")
@pytest.mark.parametrize("path", sampled(DARKNET, lambda name: name not in SMALL))
def test_networks_are_darknets(path):
    found = parity.certify(path)
    assert found.parameters == found.expected_parameters
    assert {k: v for k, v in found.outputs.items() if not v < 1e-4} == {}
    assert found.file
    assert found.detections in (None, 1)


@pytest.mark.skipif(not FILES, reason=f"no goldens in {FOLDER}: set DETJAX_GOLDENS")
@pytest.mark.long
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_yolact_is_the_original(path):
    found = parity.certify(path)
    assert found.parameters == found.expected_parameters
    assert {k: v for k, v in found.outputs.items() if v > 1e-4} == {}
    assert {k: v for k, v in found.losses.items() if v > 1e-4} == {}
    assert {k: v for k, v in found.gradients.items() if v > 1e-3} == {}
    # An IoU within rounding of the threshold may fall on the other side of it.
    assert found.detections >= 0.99
    assert found.mask_areas < 0.02


@pytest.mark.long
@pytest.mark.skipif(
    not TWO_STAGES, reason=f"no goldens in {FOLDER}: set DETJAX_GOLDENS"
)
@pytest.mark.parametrize("path", TWO_STAGES, ids=lambda p: p.stem)
def test_two_stages_are_torchvisions(path):
    found = parity.certify(path)
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


@pytest.mark.long
@pytest.mark.skipif(
    not ONE_STAGES, reason=f"no goldens in {FOLDER}: set DETJAX_GOLDENS"
)
@pytest.mark.parametrize("path", ONE_STAGES, ids=lambda p: p.stem)
def test_one_stages_are_torchvisions(path):
    found = parity.certify(path)
    assert found.parameters == found.expected_parameters
    assert {k: v for k, v in found.outputs.items() if not v < 1e-4} == {}
    assert {k: v for k, v in found.losses.items() if not v < 1e-4} == {}
    assert {k: v for k, v in found.gradients.items() if not v < 1e-3} == {}
    # Nearly equal scores, and overlaps near a threshold, may fall either way.
    assert found.detections >= 0.99


@pytest.mark.long
@pytest.mark.skipif(not CORNERS, reason=f"no goldens in {FOLDER}: set DETJAX_GOLDENS")
@pytest.mark.parametrize("path", CORNERS, ids=lambda p: p.stem)
def test_corners_are_the_authors(path):
    found = parity.certify(path)
    assert found.parameters == found.expected_parameters
    assert {k: v for k, v in found.outputs.items() if not v < 1e-4} == {}
    assert {k: v for k, v in found.losses.items() if not v < 1e-4} == {}
    assert {k: v for k, v in found.gradients.items() if not v < 1e-3} == {}
    assert found.detections == 1


@pytest.mark.long
@pytest.mark.skipif(
    not SEGMENTERS, reason=f"no goldens in {FOLDER}: set DETJAX_GOLDENS"
)
@pytest.mark.parametrize("path", SEGMENTERS, ids=lambda p: f"{p.parent.stem}-{p.stem}")
def test_networks_for_pixels_are_the_originals(path):
    found = parity.certify(path)
    assert found.parameters == found.expected_parameters
    assert {k: v for k, v in found.outputs.items() if not v < 1e-4} == {}
    assert {k: v for k, v in (found.losses or {}).items() if not v < 1e-4} == {}
    # Where a ReLU's input is nothing but rounding the original differs from itself.
    original = json.loads(path.read_text()).get("float64_differs_by", {})
    most = max(1e-3, 10 * original.get("grad_norm", 0))
    assert {k: v for k, v in (found.gradients or {}).items() if not v < most} == {}
    assert not found.moved


def test_images_are_told_by_the_outputs(tmp_path):
    [path] = [path for path, source in TINY.items() if source is segmenters]
    facts = json.loads(path.read_text())
    assert parity.certify(path).images is None
    # Of a file that says other images than those that its outputs are of.
    facts["input"]["then"] = "x * 4 - 2, NCHW"
    moved = tmp_path / "moved.json"
    moved.write_text(json.dumps(facts))
    assert parity.certify(moved).images is None
    wrong = facts["outputs"]["out"]
    wrong["value"] = [value + wrong["std"] for value in wrong["value"]]
    moved.write_text(json.dumps(facts))
    found = parity.certify(moved)
    # Outputs that no images give are no reason to take others.
    assert found.images is None
    assert found.outputs["out"] > 0.9


@pytest.mark.parametrize("empty", [(0,), (1,), (0, 1)])
def test_a_golden_may_have_images_without_objects(empty):
    facts = {
        "input": [{"shape": [1, 24, 32, 3], "seed": i} for i in range(2)],
        "min_size": 32,
        "max_size": 64,
    }
    box = [2.0, 3.0, 20.0, 15.0]
    area = int(ellipse(np.array(box), (24, 32)).sum())
    one = {"boxes": [box], "labels": [3], "keypoints": [[[4, 5, 1]]]}
    nothing = {"boxes": [], "labels": [], "keypoints": [], "mask_area": []}
    targets = [nothing if i in empty else {**one, "mask_area": [area]} for i in (0, 1)]
    batch = draw_batch(pad(facts), targets)
    for i in (0, 1):
        assert batch.target.valid[i].sum() == (i not in empty)
        assert batch.target.masks[i].any() == (i not in empty)
        if i not in empty:
            # 24 x 32 becomes 32 x 42: sides are rounded down.
            moved = np.array(box) * np.tile([42 / 32, 32 / 24], 2)
            np.testing.assert_allclose(batch.target.boxes[i, 0], moved)
            assert batch.target.labels[i, 0] == 2


@pytest.mark.long
@pytest.mark.skipif(not EXPLAINED, reason=f"no goldens in {FOLDER}: set DETJAX_GOLDENS")
@pytest.mark.parametrize("path", EXPLAINED, ids=lambda p: p.stem)
def test_explanations_are_the_originals(path):
    found = parity.certify(path)
    assert found.parameters == found.expected_parameters
    methods = json.loads(path.read_text())["methods"]
    assert {name.partition(":")[0] for name in found.outputs} >= {*methods}
    assert {k: v for k, v in found.outputs.items() if not v < 1e-4} == {}
