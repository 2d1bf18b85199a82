"""Priors against objects: what a run says of them, and what is told to fit."""

import ast
import re

import jax
import numpy as np
import pytest
from families import TINY

from detjax import fit_anchors, models, priors
from detjax.data import sizing
from detjax.data.records import Annotation, Record
from detjax.errors import UserError
from detjax.ops import anchors
from detjax.tasks import TASKS

TASK = TASKS["detection"]


def records(side, count=40, size=(64, 64), crowd=False):
    """Pictures with two squares of `side` pixels each."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        truth = []
        for i in range(2):
            x, y = rng.uniform(0, np.array(size[::-1]) - side)
            box = (x, y, x + side, y + side)
            truth.append(Annotation(i, box, 0, side**2, crowd=crowd))
        made.append(Record(number, f"{number}.png", *size, truth=truth))
    return made


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_models_priors_are_those_of_its_network(name):
    settings = TINY[name]
    model = models.make(**settings)
    if model.priors is None or settings["name"] == "darknet":
        return  # darknet's may lie anywhere
    size = (64, 128)
    images = np.zeros((1, *size, 3), np.uint8)
    variables = jax.eval_shape(model.net.init, jax.random.key(0), images)
    held = []

    def priors_of(variables, images):
        found = model.net.apply(variables, images).priors
        held.append(getattr(found, "boxes", found))
        return 0

    jax.eval_shape(priors_of, variables, images)
    np.testing.assert_allclose(
        anchors.placed(model.priors(size).levels), held[0], atol=1e-4
    )


def test_models_without_priors_have_none():
    kinds = {name: models.make(**s).priors is not None for name, s in TINY.items()}
    assert kinds["yolact"] and not all(kinds.values())


SIZES = sizing.input_sizes(size=(64, 64))


def said(side, **more):
    settings = TINY["yolact"]
    model = models.make(**settings)
    given = records(side, **more)
    return priors.warning(model, settings, lambda: given, TASK, SIZES)


def test_a_run_warns_where_priors_do_not_fit_and_says_what_would():
    assert said(12) is None
    found = said(7, count=30)
    assert "of 60 training objects find a prior" in found
    assert "model.match.positive=0.5" in found
    assert "scripts/anchors.py --config=" in found
    # Nothing to look at: no warning.
    assert said(7, crowd=True) is None
    # Of models without priors nothing is read.
    model = models.make(**TINY["yolact"])._replace(priors=None)
    assert priors.warning(model, {}, None, TASK, SIZES) is None


def test_fitted_settings_make_priors_that_fit():
    settings = TINY["yolact"]
    model = models.make(**settings)
    objects = priors.sample(records(6), TASK, SIZES, objects=1000, most_records=1000)
    before = priors.fit(objects, model.priors)
    better = priors.fitted(objects, model, settings)
    assert {"priors.sizes", "priors.ratios"} <= better.settings.keys()
    assert better.fit.share > before.share + 0.2
    remade = models.make(**priors.changed(settings, better.settings))
    assert priors.fit(objects, remade.priors) == better.fit


def test_a_sample_is_in_input_pixels_and_leaves_out_what_is_not_learnt():
    made = records(20, size=(128, 256))
    made[0].truth[0].crowd = True
    found = priors.sample(made, TASK, SIZES, objects=10_000, most_records=10_000)
    np.testing.assert_allclose(found.shapes, np.tile([5, 10], (79, 1)), atol=1e-6)
    assert found.usual == (64, 64) and found.records == 40
    none = priors.sample(
        made, TASK, SIZES, objects=10_000, most_records=10_000, min_size=6
    )
    assert not none.boxes and not len(none.shapes)
    few = priors.sample(made, TASK, SIZES, objects=9, most_records=10_000)
    assert 9 <= len(few.shapes) <= 10 and few.records == 5
    letterboxed = priors.sample(
        made,
        TASK,
        sizing.input_sizes(size=(64, 64), letterbox=True),
        objects=10,
        most_records=9,
    )
    np.testing.assert_allclose(letterboxed.shapes, 5, atol=1e-6)


def test_buckets_have_their_own_inputs():
    made = records(20, size=(64, 128)) + records(20, size=(128, 64), count=20)
    sizes = sizing.input_sizes(buckets=((32, 64), (64, 32)))
    found = priors.sample(made, TASK, sizes, objects=10_000, most_records=10_000)
    assert {size: len(b) for size, b in found.boxes.items()} == {
        (32, 64): 80,
        (64, 32): 40,
    }
    assert found.usual == (32, 64)
    model = models.make(**TINY["yolact"])
    assert 0 <= priors.fit(found, model.priors).share <= 1


def reported(tmp_path, settings, given, **more):
    return fit_anchors.report(
        settings,
        given,
        TASK,
        SIZES,
        most=4,
        objects=1000,
        seed=0,
        out=tmp_path / "out",
        **more,
    )


def test_the_report_has_the_settings_as_flags_and_as_text(tmp_path):
    found = reported(tmp_path, TINY["yolact"], records(9))
    assert "80 objects of 40 of 40 records" in found
    flags = re.search(r"--config\.model\.priors\.sizes=\"(.*?)\"", found)[1]
    text = re.search(r'"priors": \{\n\s+"sizes": (.*),\n', found)[1]
    sizes = ast.literal_eval(flags)
    assert sizes == ast.literal_eval(text) and len(sizes) == 3
    assert sizes[0][0] in (8, 9, 10)
    for k in (1, 2, 3, 4):
        assert re.search(rf"^ {k} +1.000 ", found, re.M)
    assert (tmp_path / "out" / "anchors.png").exists()


def test_the_report_of_what_has_no_priors_says_so(tmp_path):
    assert "has no priors" in reported(tmp_path, TINY["rcnn"], records(9))
    alone = reported(tmp_path, None, records(9))
    assert "mean best IoU" in alone and "--config" not in alone
    with pytest.raises(UserError, match="none of 40 records has an object of 50"):
        reported(tmp_path, None, records(9), min_size=50)


def test_the_report_says_when_there_is_no_need(tmp_path):
    settings = TINY["yolact"]
    objects = priors.sample(records(9), TASK, SIZES, objects=999, most_records=999)
    found = priors.fitted(objects, models.make(**settings), settings).settings
    settings = priors.changed(settings, found)
    assert "no need to change" in reported(tmp_path, settings, records(9))


def test_darknets_lines_count_in_its_units():
    clusters = [np.outer(np.arange(1, k + 1), (32.0, 48.0)) for k in range(1, 7)]
    region, tiny = fit_anchors.darknet(clusters)
    assert "[region]" in region and region.endswith(
        "anchors = 1,1.5, 2,3, 3,4.5, 4,6, 5,7.5"
    )
    assert "num=6" in tiny and tiny.endswith(
        "anchors = 32,48, 64,96, 96,144, 128,192, 160,240, 192,288"
    )
    assert fit_anchors.darknet(clusters[:4]) == []
