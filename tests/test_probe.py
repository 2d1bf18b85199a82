"""Probes and advice from pictures to tables, and what they refuse."""

import json
import types

import cv2
import jax
import numpy as np
import pytest
import tiny_backbones
from families import TINY, batch

from detjax import (
    advise,
    embedding,
    experiment,
    linear,
    models,
    parameters,
    predict,
    probe,
)
from detjax import run as running
from detjax.errors import UserError
from detjax.similarity import Similarity
from detjax.types import Inputs
from detjax.weights import published

BODY = {"name": "resnet10", "width": 8}
COLOURS = {"blue": (200, 40, 40), "green": (40, 200, 40)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Pictures of two colours, and weights that have seen nothing."""
    folder = tmp_path_factory.mktemp("probe")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for name, colour in COLOURS.items():
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(-40, 40, (32, 32, 3))
                picture = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / split / name / f"{i}.png"), picture)
    model = models.make("classifier", num_classes=4, backbone=BODY)
    published.save(folder / "weights", *variables(model))
    return folder


def variables(model):
    images = np.zeros((1, 32, 32, 3), np.uint8)
    return jax.jit(model.init)(jax.random.key(0), images)


def config(root, **changes):
    held = {
        "model": {"name": "classifier", "backbone": BODY},
        "data": {
            "name": "colours",
            "data_dir": str(root / "datasets"),
            "prepare": {
                "format": "folders",
                "splits": {s: str(root / s) for s in ("train", "val")},
            },
            "size": (32, 32),
            "batch_size": 4,
            "augment": {"mirror": True},
        },
        "optimizer": {"schedule": {"peak": 1e-3}},
        "train": {"steps": 1, "init_from": str(root / "weights")},
    }
    for section, values in changes.items():
        held[section] = {**held[section], **values}
    return experiment.config(held)


@pytest.fixture(scope="module")
def probed(root):
    found = probe.probe(
        config(root), root / "work", method="ridge", shots=(2, 3), repeats=2, folds=2
    )
    return root / "work", found


def test_a_probe_is_a_run_that_predicts(probed, root):
    workdir, found = probed
    assert found["metrics"]["top1"] == 1
    assert [*found["results"]] == ["ridge", "logistic", probe.ROOTS]
    assert [*found["results"]["logistic"]] == ["2", "3", "all"]
    assert min(found["results"]["ridge"]["all"]) > 0.8
    assert "| all, 2 folds | " in (workdir / "probe.md").read_text()
    trained = predict.load(workdir)
    answer = trained(root / "val" / "green" / "0.png")
    assert trained.classes[int(answer.labels[0])] == "green"
    assert running.evaluate(workdir)["top1"] == 1
    # A run can start from it, its head included.
    held = json.loads((workdir / "config.json").read_text())
    assert held["classes"] == ["blue", "green"]


def test_features_are_those_that_the_last_layer_reads(probed):
    workdir, _ = probed
    [path] = (workdir / embedding.FOLDER).glob("*-features.npy")
    features = np.load(path)
    assert features.shape == (16, 2, 64) and features.dtype == np.float32
    trained = predict.load(workdir)
    layer = embedding.last_layer(trained.model, trained.params)
    assert layer == ("backbone", "fc")
    inputs = Inputs(np.full((2, 32, 32, 3), 99, np.uint8))
    read = embedding.embed(trained.model, trained.params)
    seen = np.asarray(read(trained.params, trained.state, inputs))[:, 0]
    held = trained.params["backbone"]["fc"]
    scores = jax.nn.softmax(seen @ held["kernel"] + held["bias"])
    found = trained.model.predict(trained.params, trained.state, inputs).scores
    np.testing.assert_allclose(found, scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"init_from": None}}, "train.init_from is not set"),
        ({"train": {"init_from": "nowhere"}}, "no checkpoint in"),
        ({"model": {"backbone": {**BODY, "width": 16}}}, "does not fit the model"),
    ],
)
def test_what_cannot_be_probed_is_a_sentence(root, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        probe.probe(config(root, **changes), tmp_path / "work")


def test_a_probe_replaces_no_run(probed, root):
    with pytest.raises(UserError, match="holds a run or an earlier probe"):
        probe.probe(config(root), probed[0])


def test_more_folds_than_images_and_several_classes_are_sentences():
    labels = np.array([0, 0, 1])
    how = {"shots": (), "repeats": 1, "folds": 2}
    with pytest.raises(UserError, match=r"a class has 1 images.*fewer than the 2"):
        probe.scores("ridge", np.zeros((3, 1, 2)), labels, 2, **how)
    labels = embedding.labels(np.array([[1, 1], [0, 1], [0, 0], [0.5, 0.5]]))
    assert labels.tolist() == [-1, 1, -1, -1]
    with pytest.raises(UserError, match="several classes"):
        probe.labels_of(labels)


def begun(backbone, side, **loss):
    """What a probe of a classifier with drawn weights begins with."""
    described = {"name": "classifier", "backbone": backbone, "loss": loss}
    model = models.make("classifier", num_classes=3, backbone=backbone, loss=loss)
    images = np.zeros((1, side, side, 3), np.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    held = types.SimpleNamespace(size=(side, side))
    given = {"model": described}
    return probe.Begun(given, model, held, *tiny_backbones.draw(shapes), None, {})


@pytest.mark.parametrize(
    ("name", "width", "side", "said"),
    [
        ("lenet5", 6, 32, "'lenet5' has no last layer with weights"),
        ("lenet_caffe", 4, 28, None),
        ("nin_cifar10", 6, 32, "'nin_cifar10' does more behind"),
        ("squeezenet1_1", 4, 32, "'squeezenet1_1' does more behind"),
        ("extraction", 4, 32, "'extraction' does more behind"),
        ("darknet_reference", 2, 32, None),
        ("shufflenet_v1_g3", 12, 32, None),
        ("mobilenet_v1", 4, 32, None),
    ],
)
def test_heads_are_tried_before_features_are_computed(name, width, side, said):
    held = begun({"name": name, "width": width}, side)
    if said:
        with pytest.raises(UserError, match=said):
            probe.probed_layer(held)
    else:
        layer = probe.probed_layer(held)
        assert probe.held_by(held.params, layer)["kernel"].shape[-1] == 3


@pytest.mark.parametrize("name", [*tiny_backbones.TINY])
def test_classifiers_have_one_last_layer(name):
    held = begun({"name": name, "width": tiny_backbones.TINY[name].get("width")}, 96)
    layer = embedding.last_layer(held.model, held.params)
    assert (layer is None) == (name == "lenet5")


def test_losses_of_several_classes_are_told_at_once():
    with pytest.raises(UserError, match=r"model\.loss\.several is set"):
        probe.probed_layer(begun(BODY, 32, several=True))


def test_logistic_regression_has_a_limit(monkeypatch, capsys):
    held = begun(BODY, 32)._replace(
        data=types.SimpleNamespace(learnt=lambda: range(10), size=(32, 32))
    )
    layer = "backbone", "fc"  # 64 x 3
    both = ["ridge", "logistic"]
    monkeypatch.setattr(linear, "LOGISTIC_PRODUCTS", 2 * 10 * 64 * 3)
    assert probe.solvable(held, layer, True, "logistic") == both
    monkeypatch.setattr(linear, "LOGISTIC_PRODUCTS", 2 * 10 * 64 * 3 - 1)
    assert probe.solvable(held, layer, False, "logistic") == both
    assert probe.solvable(held, layer, True, "ridge") == ["ridge"]
    assert "is left out" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"20 images, mirrored ones too.*method=ridge"):
        probe.solvable(held, layer, True, "logistic")


def test_a_probe_without_a_table_of_a_run_with_stages(root, tmp_path):
    """From a config that sets layers free at a step of its own run."""
    backbone = {"name": "lenet_caffe", "width": 4}
    held = models.make("classifier", num_classes=4, backbone=backbone)
    published.save(tmp_path / "weights", *variables(held))
    staged = config(
        root,
        model={"backbone": backbone},
        optimizer={"freeze": "all but head", "unfreeze": ((200, "all"),)},
        train={"steps": 400, "init_from": str(tmp_path / "weights")},
    )
    found = probe.probe(staged, tmp_path / "work", method="ridge", shots=(), folds=0)
    assert found["results"] == {}
    assert (tmp_path / "work" / "probe.md").read_text() == found["table"]
    assert found["table"].startswith("16 images, ")
    assert "top1" in found["metrics"]


def test_features_are_computed_again_for_another_model_or_data(root, tmp_path):
    start = probe.begin(config(root), tmp_path / "work")

    def kept():
        return len(list((tmp_path / "work" / "features").glob("*-features.npy")))

    probe.features_of(start, start.data, {}, tmp_path / "work")
    probe.features_of(start, start.data, {}, tmp_path / "work")
    assert kept() == 1
    described = {"model": {**start.described["model"], "pixels": "unit"}}
    other = start._replace(described=described)
    probe.features_of(other, start.data, {}, tmp_path / "work")
    assert kept() == 2
    changed = start.data._replace(info=start.data.info._replace(made_from={"a": 1}))
    probe.features_of(start, changed, {}, tmp_path / "work")
    assert kept() == 3


def test_features_of_a_detector_are_of_its_backbone():
    model = models.make(**TINY["retinanet"])
    images = batch().inputs.images
    params, state = jax.jit(model.init)(jax.random.key(0), images)
    assert embedding.last_layer(model, params) is None
    found = embedding.embed(model, params)(params, state, Inputs(images))
    assert found.shape == (len(images), 1, 8)
    assert parameters.HEAD not in model.spec.groups


def test_advice_measures_or_is_overruled(probed, root, tmp_path):
    start = {"train": {"init_from": str(probed[0])}}
    said = advise.advise(config(root, **start), tmp_path / "a")
    # The same pictures.
    assert "images a class: 8 (few: under 50)" in said
    assert "compared: 16 images of each data set" in said
    assert "so the pictures are similar" in said and "feature extraction:" in said
    assert f"--config.train.init_from={probed[0]}" in said
    assert '--config.optimizer.freeze="all but head"' in said
    said = advise.advise(
        config(root, **start), tmp_path / "b", images=900, similar=False
    )
    assert "said, not measured: --images=900 --different" in said
    assert "fine-tuning of everything" in said
    with pytest.raises(UserError, match="say --similar or --different"):
        advise.advise(config(root), tmp_path / "c")


def test_four_regimes():
    said = {
        pair: advise.text(advise.Found(10 if pair[0] else 90, None, pair[1]), "A", 100)
        for pair in advise.REGIMES
    }
    assert len(said) == 4
    # All flags can be set.
    for pair, regime in advise.REGIMES.items():
        assert f"\n{regime.title}: " in said[pair]
        flags = said[pair].partition("init_from=A")[2].split("\n")[1:]
        assert len(flags) == len(regime.flags)
        held = {"optimizer": {"schedule": {"peak": 1e-3}}}
        for flag in flags:
            key, _, value = flag.removeprefix("--config.optimizer.").partition("=")
            value = value.strip('"')
            held["optimizer"][key] = value if key == "freeze" else eval(value)
        experiment.resolve(
            experiment.config(
                {
                    "model": {"name": "classifier", "backbone": BODY},
                    "data": {"name": "a", "batch_size": 1},
                    "train": {"steps": 100},
                    **held,
                }
            )
        )
    assert advise.is_similar(Similarity(3.0, 1.0, 0.99, 9))
    assert advise.is_similar(Similarity(30.0, 1.0, 0.6, 9))
    assert not advise.is_similar(Similarity(30.0, 1.0, 0.99, 9))
