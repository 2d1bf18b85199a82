"""Torch files in, ours out: names, layouts, differences, transfer to other classes."""

import json
import re

import jax
import numpy as np
import pytest
from families import TINY, YOLACT, batch, predict, variables
from safetensors.numpy import save_file

from detjax import models, optim, train
from detjax import predict as prediction
from detjax.models import fcos, retinanet, ssd, two_stage
from detjax.types import Inputs
from detjax.weights import convert, names, published, read, transfer


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def exported(name="yolact"):
    params, state = variables(name)
    return convert.export(params, state, source="yolact", classes=YOLACT["num_classes"])


@pytest.mark.parametrize("source", ["yolact", "torchvision"])
@pytest.mark.parametrize("name", TINY)
def test_export_then_load_is_the_identity(name, source):
    params, state = variables(name)
    held = convert.export(params, state, source=source, classes=3)
    loaded, loaded_state, report = convert.load(
        held, params, state, source=source, classes=3
    )
    equal((loaded, loaded_state), (params, state))
    assert not report.left
    assert not report.unused


def test_keys_and_layouts_are_the_sources():
    held = exported()
    assert held["backbone.layers.0.0.conv1.weight"].shape == (8, 8, 3, 3)
    # Pyramid levels count from the coarsest there, from the finest here.
    params, _ = variables("yolact")
    np.testing.assert_array_equal(
        held["fpn.lat_layers.2.bias"], params["fpn"]["inner_blocks.0.0"]["bias"]
    )
    bias = held["prediction_layers.0.conf_layer.bias"]
    ours = np.asarray(params["prediction_layers.0.conf_layer"]["bias"])
    np.testing.assert_array_equal(bias.reshape(3, 4)[:, 0], ours.reshape(3, 4)[:, -1])


def test_background_moves_to_the_end():
    value, head = np.arange(8.0).reshape(8, 1), ("conf_layer.weight", "yolact", 3)
    moved = convert.shift_background(value, *head, -1)
    assert moved[:, 0].tolist() == [1, 2, 3, 0, 5, 6, 7, 4]
    np.testing.assert_array_equal(convert.shift_background(moved, *head, 1), value)


def test_background_moves_with_its_box():
    head = ("roi_heads.box_predictor.bbox_pred.bias", "torchvision", 2)
    moved = convert.shift_background(np.arange(12.0), *head, -1)
    assert moved.tolist() == [*range(4, 12), *range(4)]
    rpn = ("rpn.head.bbox_pred.bias", "torchvision", 2)
    np.testing.assert_array_equal(
        convert.shift_background(np.arange(12.0), *rpn, -1), np.arange(12.0)
    )


def test_layers_on_flattened_maps_are_reordered():
    key, channels = "roi_heads.box_head.fc6.weight", 3
    theirs = np.arange(2 * channels * 49.0).reshape(2, channels * 49)
    ours = convert.to_ours(theirs, key, "torchvision", None)
    picture = np.random.default_rng(0).random((channels, 7, 7))
    np.testing.assert_allclose(
        theirs @ picture.reshape(-1), picture.transpose(1, 2, 0).reshape(-1) @ ours
    )
    back = convert.to_theirs(ours, key, "torchvision", None)
    np.testing.assert_array_equal(back, theirs)


def test_a_file_that_does_not_fit_is_told_from_both_sides():
    held = exported()
    held["extra.weight"] = np.zeros(3, np.float32)
    held["semantic_seg_conv.bias"] = np.zeros(9, np.float32)
    del held["proto_net.0.bias"]
    params, state = variables("yolact")
    with pytest.raises(ValueError, match="does not fit the model in 3 places") as told:
        convert.load(held, params, state, source="yolact", classes=3)
    text = str(told.value)
    assert "only in the file: extra.weight (3,)" in text
    assert "only in the model: proto_net.0.bias (8,)" in text
    assert "semantic_seg_conv.bias: (9,) in the file, (3,) in the model" in text


def test_leftovers_of_the_authors_first_files_are_passed_over():
    held = exported()
    held["backbone.layer1.0.conv1.weight"] = np.zeros(3, np.float32)
    held["fpn.downsample_layers.2.bias"] = np.zeros(3, np.float32)
    params, state = variables("yolact")
    loaded, _, _ = convert.load(held, params, state, source="yolact", classes=3)
    equal(loaded, params)


def test_other_classes_keep_the_rest():
    other = models.make(**{**YOLACT, "num_classes": 5})
    params, state = jax.jit(other.init)(jax.random.key(1), batch().inputs.images)
    loaded, _, report = convert.load(
        exported(),
        params,
        state,
        source="yolact",
        classes=5,
        allow="conf_layer|semantic_seg_conv",
    )
    equal(loaded["fpn"], variables("yolact")[0]["fpn"])
    equal(loaded["semantic_seg_conv"], params["semantic_seg_conv"])
    assert sorted(report.left) == [
        "prediction_layers.0.conf_layer.bias",
        "prediction_layers.0.conf_layer.weight",
        "semantic_seg_conv.bias",
        "semantic_seg_conv.weight",
    ]


def test_safetensors_need_no_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    held = exported()
    save_file(held, tmp_path / "w.safetensors")
    equal(read.state_dict(tmp_path / "w.safetensors"), held)


def test_pth_files_are_read(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    held = exported()
    tensors = {name: torch.from_numpy(value.copy()) for name, value in held.items()}
    for wrapped in (tensors, {"state_dict": tensors, "epoch": 3}):
        torch.save(wrapped, tmp_path / "w.pth")
        equal(read.state_dict(tmp_path / "w.pth"), held)


def test_unknown_sources_are_errors():
    with pytest.raises(ValueError, match="'keras'"):
        names.spell("conv1.kernel", "keras")


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A folder written from a file by the function behind the script."""
    folder = tmp_path_factory.mktemp("imported")
    save_file(exported(), folder / "w.safetensors")
    params, state, _ = published.load(
        folder / "w.safetensors",
        source="yolact",
        model="yolact",
        **{k: v for k, v in YOLACT.items() if k != "name"},
    )
    published.save(folder, params, state)
    config = {
        "model": YOLACT,
        "data": {"size": [64, 64], "letterbox": False},
        "classes": ["a", "b", "c"],
        "category_ids": [1, 2, 3],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_an_imported_folder_predicts(imported):
    image = batch().inputs.images[0]
    found = prediction.load(imported)(image)
    expected = predict("yolact")(*variables("yolact"), Inputs(np.stack([image, image])))
    scores = np.asarray(expected.scores[0])[np.asarray(expected.valid[0])]
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4)


def fresh(**changes):
    made = models.make(**{**YOLACT, **changes})
    optimizer, _ = optim.make(steps=1, schedule={"peak": 1e-3})
    return train.create(made.init, optimizer, batch().inputs.images, seed=5)


def test_a_run_starts_from_a_folder(imported):
    run, report = transfer.start(fresh(), imported)
    equal(run.params, variables("yolact")[0])
    assert not report.left


def test_a_run_with_other_classes_leaves_their_layers_out(imported):
    run, report = transfer.start(fresh(num_classes=5), imported)
    equal(run.params["fpn"], variables("yolact")[0]["fpn"])
    assert len(report.left) == 4
    assert all("conf_layer" in x or "semantic" in x for x in report.left)


def test_a_backbone_starts_a_detector(tmp_path):
    from detjax import backbones

    net = backbones.make("resnet10", width=8, num_classes=7)
    held = dict(jax.jit(net.init)(jax.random.key(3), np.zeros((1, 64, 64, 3), "f")))
    params = held.pop("params")
    published.save(tmp_path, params, held)
    before = fresh()
    run, report = transfer.start(before, tmp_path)
    equal(run.params["backbone"]["layer2.0"], params["layer2.0"])
    equal(run.params["fpn"], before.params["fpn"])
    assert all(not name.startswith("backbone") for name in report.left)


def former(key):
    """What torchvision called `key` when it trained its first detectors."""
    key = re.sub(r"_blocks\.(\d)\.0\.", r"_blocks.\1.", key)
    key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    return re.sub(
        r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", key
    )


@pytest.mark.parametrize("name", two_stage.ORIGINALS)
def test_torchvisions_files_load_and_come_back(name):
    model = models.make(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch().inputs.images)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    kind = {"source": "torchvision", "classes": model.net.num_classes}
    held = convert.export(*zeros, **kind)
    rng = np.random.default_rng(0)
    drawn = {k: rng.standard_normal(v.shape, np.float32) for k, v in held.items()}
    file = {former(k) if "v2" not in name else k: v for k, v in drawn.items()}
    assert ("rpn.head.conv.weight" in file) == ("v2" not in name)
    loaded, state, report = convert.load(file, *shapes, **kind)
    assert len(report.loaded) == len(drawn)
    equal(convert.export(loaded, state, **kind), drawn)
    score = "roi_heads.box_predictor.cls_score.bias"
    ours = loaded["roi_heads"]["box_predictor"]["cls_score"]["bias"]
    assert ours[-1] == drawn[score][0]


@pytest.mark.parametrize(
    "name", [*retinanet.ORIGINALS, *fcos.ORIGINALS, *ssd.ORIGINALS]
)
def test_files_of_one_stage_load_and_come_back(name):
    model = models.make(name)
    images = np.zeros((1, 300, 300, 3), np.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    kind = {"source": "torchvision", "classes": model.net.num_classes}
    held = convert.export(*zeros, **kind)
    bias = {k: np.arange(v.size, dtype="f") for k, v in held.items() if v.ndim == 1}
    held |= bias
    file = held
    if name == "retinanet_resnet50_fpn":
        # As in its first file.
        before = r"(head\.\w+\.conv)\.(\d)\.0\."
        file = {
            re.sub(before, lambda m: f"{m[1]}.{2 * int(m[2])}.", k): v
            for k, v in held.items()
        }
        assert "head.regression_head.conv.6.weight" in file
    loaded, state, report = convert.load(file, *shapes, **kind)
    assert len(report.loaded) == len(held)
    equal(convert.export(loaded, state, **kind), held)
    head = loaded["head"]["classification_head"]
    if name in ssd.ORIGINALS:
        # The background of each of the first map's four priors comes last here.
        ours = head["module_list.0"]["bias"].reshape(4, 91)
        np.testing.assert_array_equal(ours[:, -1], [0, 91, 182, 273])
    else:
        ours = head["cls_logits"]["bias"]
        np.testing.assert_array_equal(ours, np.arange(len(ours)))


def test_a_vgg_starts_ssd(tmp_path):
    from detjax import backbones

    made = models.make(**{**TINY["ssd"], "backbone": {"name": "vgg16", "width": 8}})
    net = backbones.make("vgg16", width=8)
    shapes = jax.eval_shape(net.init, jax.random.key(3), np.ones((1, 64, 64, 3)))
    params = jax.tree.map(lambda x: np.full(x.shape, 0.5, "f"), shapes)["params"]
    published.save(tmp_path, params, {})
    optimizer, _ = optim.make(steps=1, name="sgd", schedule={"peak": 1e-3})
    before = train.create(made.init, optimizer, batch().inputs.images, seed=5)
    run, report = transfer.start(before, tmp_path)
    body = run.params["backbone"]
    assert len(report.loaded) == 2 * 13
    for layer in ("features.0", "features.21", "extra.0.1", "extra.0.5"):
        assert (body[layer]["kernel"] == 0.5).all(), layer
    equal(body["extra.0.7.1"], before.params["backbone"]["extra.0.7.1"])


def test_a_detector_of_other_classes_starts_without_their_layers(tmp_path):
    for name, left in (("retinanet", "cls_logits"), ("ssd", "classification_head")):
        optimizer, _ = optim.make(steps=1, name="sgd", schedule={"peak": 1e-3})
        published.save(tmp_path / name, *variables(name))
        made = models.make(**{**TINY[name], "num_classes": 5})
        before = train.create(made.init, optimizer, batch().inputs.images, seed=5)
        run, report = transfer.start(before, tmp_path / name, model=made)
        assert all(left in kept for kept in report.left)
        regression = run.params["head"]["regression_head"]
        equal(regression, variables(name)[0]["head"]["regression_head"])


def test_a_backbone_starts_a_pyramid(tmp_path):
    from detjax import backbones

    net = backbones.make("resnet10", width=8, num_classes=7)
    held = dict(jax.jit(net.init)(jax.random.key(3), np.zeros((1, 64, 64, 3), "f")))
    params = held.pop("params")
    published.save(tmp_path, params, held)
    made = models.make(**TINY["ms_rcnn"])
    optimizer, _ = optim.make(steps=1, schedule={"peak": 1e-3})
    before = train.create(made.init, optimizer, batch().inputs.images, seed=5)
    run, report = transfer.start(before, tmp_path)
    equal(run.params["backbone"]["body"]["layer2.0"], params["layer2.0"])
    equal(run.params["backbone"]["fpn"], before.params["backbone"]["fpn"])
    assert all(not name.startswith("backbone.body") for name in report.left)


@pytest.mark.parametrize(
    ("name", "backbone", "taken"),
    [
        ("faster_rcnn_c4", "resnet10", ("stage", "layer4.0")),
        ("fast_rcnn", "vgg11", ("fc6",)),
    ],
)
def test_a_head_goes_on_with_a_classifiers_last_layers(tmp_path, name, backbone, taken):
    from detjax import backbones

    changes = {"bins": 7, "hidden": 4096} if backbone == "vgg11" else {}
    made = models.make(**{**TINY[name], "box": {**TINY[name]["box"], **changes}})
    net = backbones.make(backbone, width=8, num_classes=7)
    params = dict(jax.eval_shape(net.init, jax.random.key(3), np.ones((1, 64, 64, 3))))
    drawn = jax.tree.map(lambda x: np.full(x.shape, 0.5, "f"), params)
    held = drawn.pop("params")
    published.save(tmp_path, held, drawn)
    optimizer, _ = optim.make(steps=1, name="sgd", schedule={"peak": 1e-3})
    before = train.create(made.init, optimizer, batch().inputs.images, seed=5)
    run, report = transfer.start(before, tmp_path)
    head = run.params["roi_heads"]["box_head"]
    for word in taken:
        head = head[word]
    assert all((x == 0.5).all() for x in jax.tree.leaves(head))
    assert not any(x.startswith("roi_heads.box_head") for x in report.left)
