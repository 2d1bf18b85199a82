"""Darknet's files: imported as folders, started from, and exported byte for byte."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CLASSES, REGION, SIDE, YOLO, cfg, conv

from detjax import checkpoint, models, predict
from detjax.errors import UserError
from detjax.export_darknet import export
from detjax.import_darknet import named
from detjax.import_weights import import_weights
from detjax.models.darknet import seen
from detjax.weights import darknet, published, transfer

NAMES = ["cat", "dog", "owl"]
HEAD = 8  # the last convolution of YOLO
CLASSIFIER = cfg(conv(8, 2), "convolutional filters=3 size=1", "avgpool", "softmax")


def weights_of(text, name="darknet", images=32_013_313, version=(0, 2, 5)):
    """A network with weights of its own, and its file."""
    model = models.make(name, cfg=text)
    image = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    rng = np.random.default_rng(0)
    params, state = jax.tree.map(
        lambda x: jnp.asarray(rng.uniform(0.1, 1, x.shape), x.dtype), shapes
    )
    state[seen.NAME] = seen.held(images, version)
    return params, state, darknet.exported(params, state)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cfg, its whole file, and one that ends behind the second layer."""
    path = tmp_path_factory.mktemp("darknet")
    params, state, data = weights_of(YOLO)
    (path / "a.cfg").write_text(YOLO)
    (path / "a.weights").write_bytes(data)
    held = darknet.manifest(params, state)
    some = [int(np.prod(s)) for n, s in held.items() if n.split(".")[0] in ("0", "1")]
    (path / "a.conv.2").write_bytes(data[: 20 + 4 * sum(some)])
    return path


def imported(path, out, *, file="a.weights", cfg="a.cfg", classes=None):
    return import_weights(
        path / file, source="darknet", model=str(path / cfg), out=out, classes=classes
    )


def test_what_is_imported_is_exported_byte_for_byte(folder, tmp_path):
    report = imported(folder, tmp_path / "run", classes=NAMES)
    assert not report.left and not report.unused
    described = json.loads((tmp_path / "run/config.json").read_text())
    assert described["classes"] == NAMES
    assert described["model"] == {"name": "darknet", "cfg": YOLO, "num_classes": 3}
    # Darknet pads with grey.
    padded = {"letterbox": True, "fill": [127, 127, 127]}
    assert described["data"] == {"size": [SIDE, SIDE], **padded}
    weights, _ = export(tmp_path / "run", tmp_path / "b.weights")
    assert weights.read_bytes() == (folder / "a.weights").read_bytes()
    # What is written beside it is the same network.
    again = imported(tmp_path, tmp_path / "again", file="b.weights", cfg="b.cfg")
    assert again.loaded == report.loaded
    with pytest.raises(UserError, match="is there already"):
        export(tmp_path / "run", tmp_path / "b.weights")


def test_an_imported_folder_predicts(folder, tmp_path):
    imported(folder, tmp_path / "run", classes=NAMES)
    trained = predict.load(tmp_path / "run")
    found = trained(np.full((40, 60, 3), 90, np.uint8))
    assert trained.classes == NAMES
    assert found.boxes.shape[1] == 4


@pytest.mark.parametrize("version", [(0, 1, 0), (0, 2, 0), (2000, 1, 3)])
def test_versions_stay(tmp_path, version):
    text = cfg(conv(4, 4), "connected output=5", "connected output=3", "softmax")
    _, _, data = weights_of(text, "darknet_classifier", 77, version)
    assert len(data) % 4 == 0 and data[12] == 77
    (tmp_path / "a.cfg").write_text(text)
    (tmp_path / "a.weights").write_bytes(data)
    imported(tmp_path, tmp_path / "run", classes=NAMES)
    described = json.loads((tmp_path / "run/config.json").read_text())
    assert described["model"]["name"] == "darknet_classifier"
    assert described["data"]["letterbox"] is False
    weights, _ = export(tmp_path / "run", tmp_path / "b.weights")
    assert weights.read_bytes() == data


def test_a_file_that_ends_early_is_a_start(folder, tmp_path):
    report = imported(
        folder, tmp_path / "run", file="a.conv.2", classes=["one", "other"]
    )
    assert {name.split(".")[0] for name in report.loaded} == {"0", "1"}
    assert {name.split(".")[0] for name in report.left} == {"2", "3", "8"}
    _, params, state = checkpoint.Checkpoints(
        tmp_path / "run", read_only=True
    ).restore_weights()
    assert params["3"]["kernel"].shape[-1] == 2 * (5 + 2)
    assert float(jnp.std(params["3"]["kernel"])) > 0
    assert seen.exact(state[seen.NAME]) == 32_013_313


def test_names_of_classes(folder, tmp_path):
    (tmp_path / "a.names").write_text("a cat\nan owl\n\n")
    assert named([str(tmp_path / "a.names")]) == ["a cat", "an owl"]
    assert named(None) is None
    with pytest.raises(UserError, match="'a' 2 times"):
        named(["a", "b", "a"])
    imported(folder, tmp_path / "run")
    described = json.loads((tmp_path / "run/config.json").read_text())
    assert described["classes"] == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d[:-4], r"ends within layer 8: it has [\d,]+ numbers"),
        (lambda d: d + bytes(8), r"has [\d,]+ numbers, and the network takes [\d,]+"),
        (lambda d: d[:9], "has 9 bytes; it is no file of darknet"),
        (
            lambda d: d[:-4] + np.float32(np.nan).tobytes(),
            r"8\.weight holds NaN or infinity",
        ),
    ],
)
def test_nothing_is_written_of_a_file_that_does_not_fit(folder, tmp_path, change, said):
    shutil.copy(folder / "a.cfg", tmp_path)
    data = change((folder / "a.weights").read_bytes())
    (tmp_path / "b.weights").write_bytes(data)
    with pytest.raises(UserError, match=rf"b\.weights.*{said}"):
        imported(tmp_path, tmp_path / "run", file="b.weights")
    assert not (tmp_path / "run").exists()


def test_other_classes_than_the_files_are_told_so(folder, tmp_path):
    with pytest.raises(UserError, match=r"takes .*; leave out --classes.*3 classes"):
        imported(folder, tmp_path / "run", classes=["one", "other"])
    with pytest.raises(UserError, match="leave out --allow"):
        import_weights(
            folder / "a.weights",
            source="darknet",
            model=str(folder / "a.cfg"),
            out=tmp_path / "run",
            allow="bias",
        )


# ---- runs that start from them


def run_of(text, name="darknet", **settings):
    model = models.make(name, cfg=text, **settings)
    image = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    params, state = jax.jit(model.init)(jax.random.key(1, impl="rbg"), image)
    return checkpoint.TrainState(jnp.int32(0), params, state, {}, jnp.zeros(2))


def test_a_run_starts_from_a_file(folder):
    run = run_of(YOLO)
    whole, report = transfer.start(run, folder / "a.weights")
    assert not report.left
    params, state, _ = weights_of(YOLO)
    jax.tree.map(
        np.testing.assert_array_equal, (whole.params, whole.state), (params, state)
    )
    part, report = transfer.start(run, folder / "a.conv.2")
    assert report.left
    np.testing.assert_array_equal(part.params["3"]["kernel"], run.params["3"]["kernel"])
    np.testing.assert_array_equal(part.params["1"]["kernel"], params["1"]["kernel"])
    averaged = run_of(YOLO, ema=0.9)
    assert "ema" in transfer.start(averaged, folder / "a.weights")[0].state


def test_a_run_of_other_classes_starts_from_an_imported_folder(folder, tmp_path):
    run = run_of(YOLO, num_classes=CLASSES + 2)
    with pytest.raises(UserError, match="imported with its own cfg"):
        transfer.start(run, folder / "a.weights")
    imported(folder, tmp_path / "run")
    begun, report = transfer.start(run, tmp_path / "run", r"^(3|8)\.")
    assert {name.split(".")[0] for name in report.left} == {"3", "8"}
    np.testing.assert_array_equal(
        begun.params["1"]["kernel"], weights_of(YOLO)[0]["1"]["kernel"]
    )
    # And one whose first layers alone are the same.
    other = run_of(REGION)
    begun, report = transfer.start(other, tmp_path / "run", r"^[238]\.")
    assert report.left


def test_other_models_have_folders(folder):
    run = run_of(YOLO)
    run = run.replace(params={"backbone": run.params})
    with pytest.raises(UserError, match="which models of darknet alone begin with"):
        transfer.start(run, folder / "a.weights")


def test_what_has_no_such_file_is_named(tmp_path):
    model = models.make("classifier", num_classes=2, backbone={"name": "resnet10"})
    image = np.zeros((1, 32, 32, 3), np.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    published.save(tmp_path / "run", *zeros)
    settings = {"name": "classifier", "num_classes": 2, "backbone": "resnet10"}
    described = {
        "model": settings,
        "data": {"size": [32, 32]},
        "classes": ["a", "b"],
        "category_ids": [1, 2],
    }
    (tmp_path / "run/config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="holds a classifier; darknet, darknet_cl"):
        export(tmp_path / "run", tmp_path / "a.weights")
