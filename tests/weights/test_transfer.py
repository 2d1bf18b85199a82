"""What a run takes of another: best weights, backbones across models, and the table."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from families import TINY, batch

from detjax import models, optim, train
from detjax.errors import MissingFileError, UserError
from detjax.weights import published, source, transfer, transfer_report

BODY = {"name": "resnet10", "width": 8}


def classifier(count=3, **body):
    return models.make("classifier", num_classes=count, backbone={**BODY, **body})


def begun(model, seed=0):
    optimizer, _ = optim.make(steps=1, schedule={"peak": 1e-3})
    made = jax.jit(train.create, static_argnums=(0, 1, 3))
    return made(model.init, optimizer, batch().inputs.images, seed)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def detector(levels=(2, 3, 4, 5)):
    body = {**TINY["retinanet"]["backbone"], "levels": levels, "norm": "batch"}
    sizes = tuple((12 * 2**i,) for i in range(1 + len(levels)))
    return models.make(
        **{**TINY["retinanet"], "backbone": body, "priors": {"sizes": sizes}}
    )


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    run = begun(classifier(), 1)
    published.save(folder, run.params, run.state)
    return folder, run


def test_a_classifier_starts_a_detector_and_back(classified, tmp_path):
    folder, theirs = classified
    model = detector()
    before = begun(model)
    run, report = transfer.start(before, folder, model=model)
    ours = run.params["backbone"]["body"]
    equal(ours, {k: v for k, v in theirs.params["backbone"].items() if k != "fc"})
    stats = run.state["batch_stats"]["backbone"]["body"]
    equal(stats, theirs.state["batch_stats"]["backbone"])
    equal(run.params["head"], before.params["head"])
    assert report.unused == ["fc.bias", "fc.kernel"]
    published.save(tmp_path, run.params, run.state)
    back, report = transfer.start(begun(classifier(5)), tmp_path, model=classifier(5))
    equal(back.params["backbone"]["layer3.0"], ours["layer3.0"])
    assert sorted(report.left) == ["backbone.fc.bias", "backbone.fc.kernel"]


def test_a_detector_of_fewer_levels_leaves_the_last_layers(classified):
    model = detector((3, 4))
    _, report = transfer.start(begun(model), classified[0], model=model)
    assert any(name.startswith("layer4") for name in report.unused)
    assert not any(name.startswith("backbone.body") for name in report.left)


def test_a_head_of_other_classes_stays_new(classified):
    folder, theirs = classified
    other = classifier(7)
    before = begun(other)
    run, report = transfer.start(before, folder, model=other)
    equal(run.params["backbone"]["fc"], before.params["backbone"]["fc"])
    equal(run.params["backbone"]["conv1"], theirs.params["backbone"]["conv1"])
    assert sorted(report.left) == ["backbone.fc.bias", "backbone.fc.kernel"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 16}, "does not fit the model in"),
        ({"name": "resnet18"}, r"layer1\.1.*nothing in the file"),
        ({"name": "mobilenet_v2", "width": 8}, "nothing in .* fits the model"),
    ],
)
def test_another_backbone_is_an_error(classified, changes, said):
    other = classifier(**changes)
    with pytest.raises(UserError, match=f"(?s){said}"):
        transfer.start(begun(other), classified[0], model=other)


def test_a_deeper_network_is_not_cut_down(tmp_path):
    deep = begun(classifier(name="resnet18"))
    published.save(tmp_path, deep.params, deep.state)
    with pytest.raises(UserError, match=r"only in the file: backbone\.layer1\.1"):
        transfer.start(begun(classifier()), tmp_path, model=classifier())
    allowed = r"layer\d\.1"
    transfer.start(begun(classifier()), tmp_path, allowed, model=classifier())


def test_the_best_checkpoint_is_taken_and_others_by_name(tmp_path):
    newest, best = begun(classifier(), 1), begun(classifier(), 2)
    published.save(tmp_path, newest.params, newest.state)
    assert source.run_and_folder(tmp_path) == (tmp_path, "checkpoints")
    from detjax.checkpoint import Checkpoints

    held = Checkpoints(tmp_path, folder="best")
    held.save(0, dataclasses.replace(best, opt_state={}), {})
    held.close()
    equal(source.read(tmp_path).params, best.params)
    equal(source.read(tmp_path / "best").params, best.params)
    equal(source.read(tmp_path / "checkpoints").params, newest.params)
    with pytest.raises(MissingFileError, match="no checkpoint in"):
        source.read(tmp_path / "nothing")


def test_the_source_says_what_it_has_seen(tmp_path):
    assert source.pixels(tmp_path) is None
    assert source.config(tmp_path) == {}
    held = {
        "model": {"name": "classifier", "num_classes": 2, "pixels": "unit"},
        "classes": ["a", "b"],
    }
    (tmp_path / "config.json").write_text(json.dumps(held))
    assert source.pixels(tmp_path) == "unit"
    assert source.other_classes(tmp_path, ("a", "b")) is None
    assert source.other_classes(tmp_path, ("a", "b", "c")) is None
    assert source.other_classes(tmp_path, ("a", "d")) == ["a", "b"]


def test_what_is_taken_is_a_table_and_other_pixels_a_warning(
    classified, tmp_path, capsys
):
    folder, _ = classified
    held = {"model": {"name": "classifier", "num_classes": 3, "pixels": "unit"}}
    held["model"]["backbone"] = BODY
    (folder / "config.json").write_text(json.dumps(held))
    model = classifier(7)
    train.started(begun(model), model, folder, None, tmp_path)
    (folder / "config.json").unlink()
    said = capsys.readouterr().err
    assert (tmp_path / "transfer.txt").read_text() in said.replace("warning", "\0")
    assert "--config.model.pixels=unit" in said
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines()}
    head = 64 * 7 + 7
    assert rows["head"] == [str(head), "0", str(head)]
    whole, took, left = rows["backbone"]
    assert whole == took and left == "0"
    assert "left at initialisation:\n  backbone.fc (2 arrays)" in said


def test_long_lists_are_cut_in_the_log_alone():
    names = [f"layer{i}.kernel" for i in range(9)]
    assert len(transfer_report.listed("left", names, 3)) == 1 + 3 + 1
    assert len(transfer_report.listed("left", names, None)) == 1 + 9
    assert transfer_report.listed("left", [], 3) == []
    assert transfer_report.grouped(["a.b", "c.d"], {"one": "^a"}) == {
        "one": ["a.b"],
        "other": ["c.d"],
    }


def test_a_classifier_is_convolved(tmp_path):
    """VGG's full layers as fc6 and fc7: one place of 224 pixels has its very logits."""
    body = {"name": "vgg11", "width": 2}
    vgg = models.make("classifier", num_classes=3, backbone={**body, "dropout": 0.0})
    images = np.random.default_rng(0).integers(0, 255, (1, 224, 224, 3), np.uint8)
    params, _ = jax.jit(vgg.init)(jax.random.key(0), images)
    published.save(tmp_path, params, {})
    kinds = {"hidden": 4096, "padding": 1, "fc6_padding": 3, "dropout": 0.0}
    model = models.make("fcn32s", num_classes=3, backbone=body, **kinds)
    run, report = transfer.start(begun(model), tmp_path, model=model)
    assert {name.rpartition(".")[0] for name in report.left} == {"score_fr", "upscore"}
    last = params["backbone"]["classifier.6"]
    assert sorted(report.unused) == [f"backbone.classifier.6.{n}" for n in sorted(last)]
    scores = {**last, "kernel": last["kernel"][None, None]}
    _, kept = model.net.apply(
        {"params": {**run.params, "score_fr": scores}},
        images,
        capture_intermediates=lambda module, _: module.name == "score_fr",
        mutable=["intermediates"],
    )
    [found] = kept["intermediates"]["score_fr"]["__call__"]
    assert found.shape == (1, 7, 7, 3)
    expected = vgg.net.apply({"params": params}, images)
    np.testing.assert_allclose(found[:, 3, 3], expected, rtol=1e-3, atol=1e-4)
