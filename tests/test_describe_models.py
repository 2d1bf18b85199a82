"""The table of classifiers, and the layers of one."""

import json
import os
import pathlib

import pytest
from conftest import ROOT
from flax import linen

from detjax import backbones, describe_models, parity
from detjax.backbones.facts import CERTIFIED, FACTS
from detjax.errors import UserError
from detjax.parity import classifiers

FOLDER = pathlib.Path(os.environ.get("DETJAX_GOLDENS", ROOT / "../shared/goldens"))
# Millions of multiply-accumulates that the papers or torchvision publish.
PUBLISHED = {
    "resnet18": 1814,
    "mobilenet_v1": 569,
    "mobilenet_v2": 300,
    "mobilenet_v3_small": 56,
    "shufflenet_v2_x1_0": 146,
    "shufflenet_v1_g3": 137,
    "alexnet": 714,
    "squeezenet1_1": 349,
    "darknet_reference": 484,
}


class Two(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Conv(8, (3, 3), strides=2, padding=1, name="conv")(x)
        return linen.Dense(5, use_bias=False, name="fc")(x.mean(axis=(1, 2)))


def test_layers_of_a_net():
    conv, fc = describe_models.layers(Two(), 16)
    assert conv == ("conv", "Conv", (8, 8, 8), 8 * 27 + 8, 64 * 8 * 27)
    assert fc == ("fc", "Dense", (5,), 40, 40)


@pytest.mark.parametrize("name", PUBLISHED)
def test_operations_are_the_published_ones(name):
    total = sum(layer.macs for layer in describe_models.classifier(name))
    assert total / 1e6 == pytest.approx(PUBLISHED[name], rel=0.03)


def test_every_classifier_has_its_facts():
    assert FACTS.keys() == backbones.FAMILIES.keys()
    assert FACTS.keys() >= CERTIFIED
    assert all(fact.top1 is None or 50 < fact.top1 < 90 for fact in FACTS.values())


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no {FOLDER}: set DETJAX_GOLDENS")
def test_what_is_called_certified_has_a_golden():
    known = parity.known(FOLDER)
    held = {
        classifiers.MODELS[json.loads(path.read_text())["model"]]
        for path, source in known.items()
        if source is classifiers
    }
    assert held | {"darknet_reference", "darknet19", "extraction"} == CERTIFIED


def test_layers_add_up_in_the_table():
    *layers, total = describe_models.of("squeezenet1_1")
    assert layers[0]["layer"] == "features.0"
    assert layers[0]["output"] == "111 x 111 x 64"
    assert total["parameters"] == describe_models.row("squeezenet1_1")["parameters"]
    with pytest.raises(UserError, match="choose one of"):
        describe_models.of("squeezenet2")


def test_tables_are_read_and_pasted():
    rows = [{"name": "a", "count": "1,234"}, {"name": "long", "count": "5"}]
    assert describe_models.text(rows) == ("name  count\na     1,234\nlong      5")
    assert describe_models.text(rows, markdown=True).splitlines() == [
        "| name | count |",
        "| --- | --- |",
        "| a | 1,234 |",
        "| long | 5 |",
    ]
