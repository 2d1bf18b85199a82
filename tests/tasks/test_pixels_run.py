"""Tasks of every pixel from records to trained weights, metrics, drawings and files."""

import functools
import json

import cv2
import jax
import numpy as np
import optax
import pytest
from PIL import Image
from tasks.pixel_cases import CLASSES, MODELS, records

from detjax import draw, evaluate, predict, predict_files, tiles, train
from detjax.data import builder, dataset, label_maps, value_maps
from detjax.data.records import Dataset
from detjax.errors import UserError
from detjax.tasks import TASKS

SIZE = (48, 64)


@pytest.fixture(scope="module", params=[*MODELS])
def run(request, tmp_path_factory):
    """A few steps of each task's network on a written data set."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    task, model = TASKS[name], MODELS[name]()
    classes = ("depth",) if name == "dense" else CLASSES
    held = records(name, 16)
    sets = {
        "train": Dataset("train", classes, held),
        "val": Dataset("val", classes, held[:6]),
    }
    builder.write(sets, "shapes", folder / "data", task)
    data = dataset.make(
        task,
        name="shapes",
        data_dir=str(folder / "data"),
        size=SIZE,
        batch_size=8,
        augment={"mirror": True},
        threads=2,
        workers=0,
    )
    trained = train.fit(
        model,
        optax.adam(1e-2),
        lambda step: 1e-2,
        data.train,
        workdir=folder / "run",
        steps=40,
        progress=False,
        warnings=task.warnings,
    )
    metrics, results = evaluate.measure(
        model, task, trained.params, trained.state, data, loss=True, progress=False
    )
    evaluate.write(folder / "run", metrics, results())
    config = {
        "model": {"name": "none"},
        "data": {"size": SIZE},
        "eval": {},
    }
    found = predict.TrainedModel(
        config,
        list(classes),
        list(range(1, len(classes) + 1)),
        model,
        trained.params,
        trained.state,
        40,
    )
    return name, folder, found, metrics, data


def test_a_few_steps_learn_and_metrics_have_their_names(run):
    name, folder, _, metrics, data = run
    task = TASKS[name]
    assert set(evaluate.names(task, data)) <= set(metrics)
    rows = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    assert any("pixels" in key for row in rows for key in row)
    if name != "dense":
        prefix = "" if name == "segmentation" else "segmentation/"
        assert metrics[f"{prefix}pixel_accuracy"] > 0.8
        assert metrics[f"{prefix}miou"] > 0.5
        table = (folder / "run" / "classes.csv").read_text().splitlines()
        assert table[0].startswith("class,pixels,iou")
        drawn = {"segmentation": "confusion.png", "scene": "segmentation-confusion.png"}
        assert (folder / "run" / drawn[name]).stat().st_size > 10_000
    if name != "segmentation":
        prefix = "" if name == "dense" else "dense/"
        assert 0 <= metrics[f"{prefix}mae"] < 3.5
    assert metrics["val/loss"] < 3.5


def test_results_of_parts_are_those_of_the_whole(run):
    """As processes have them: each a part of the images, one of them none."""
    name, _, found, metrics, data = run
    whole = TASKS[name].meter(data.truth, data.info, data.image_ids)
    parts = [whole.again() for _ in range(3)]
    for place, record in enumerate(data.pictures):
        one = found(cv2.imdecode(np.frombuffer(record.image, np.uint8), 1)[..., ::-1])
        whole.add(place, one)
        parts[place % 2].add(place, one)
    each = [meter.parts for meter in parts]
    assert each[2] == {}
    joined = {k: np.concatenate([p[k] for p in each if k in p]) for k in each[0]}
    assert {k: len(v) for k, v in joined.items()} == dict.fromkeys(joined, 2)
    expected = whole.result(whole.parts)
    assert whole.result(joined) == pytest.approx(expected)
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(value, rel=1e-4)


@pytest.fixture
def pictures(run, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "load", lambda workdir, best: run[2])
    for i, record in enumerate(records("segmentation", 2, 50, 70)):
        (tmp_path / f"{i}.png").write_bytes(record.image)
    return tmp_path


@pytest.mark.parametrize(
    "seen",
    [
        {},
        {"whole": tiles.whole()},
        {"whole": tiles.whole(64, 16), "flip": True},
        {"flip": True, "scales": (1.0, 0.75)},
    ],
    ids=["resized", "whole", "tiles", "views"],
)
def test_predictions_are_drawn_and_written_at_the_pictures_size(run, pictures, seen):
    name = run[0]
    out = pictures / "out"
    lines = []
    complaints = predict_files.predict(
        "run", out, [pictures / "0.png", pictures / "1.png"], log=lines.append, **seen
    )
    assert not complaints
    endings = TASKS[name].endings
    names = {f"{i}{end}" for i in (0, 1) for end in (".png", *endings)}
    assert {p.name for p in out.iterdir()} == {*names, "predictions.json"}
    rows = json.loads((out / "predictions.json").read_text())
    assert {row["drawing"] for row in rows} == {"0.png", "1.png"}
    assert rows[0]["files"] == [f"0{end}" for end in endings]
    for file in out.glob("*-labels.png"):
        labels = np.asarray(Image.open(file))
        assert labels.shape == (50, 70)
        assert labels.max() < 3
        truth = records("segmentation", 2, 50, 70)[int(file.name[0])].truth
        real, valid = label_maps.decode(truth, (50, 70))
        assert (labels == real)[valid].mean() > 0.7
    for file in out.glob("*-values.tiff"):
        values, valid = value_maps.decode(file.read_bytes(), (50, 70))
        assert valid.all()
        assert 0 < values.mean() < 12
    # What was made here is neither taken for pictures, nor in the way.
    assert all(draw.is_drawing(out / one) for one in names)
    again = predict_files.predict("run", out, [pictures, out], **seen)
    assert not again
    assert {p.name for p in out.iterdir()} == {*names, "predictions.json"}


def test_files_of_others_are_not_replaced(run, pictures):
    name = run[0]
    out = pictures / "out"
    out.mkdir()
    ending = TASKS[name].endings[0]
    (out / f"0{ending}").write_bytes(b"of somebody")
    with pytest.raises(UserError, match="is not a drawing of an earlier prediction"):
        predict_files.predict("run", out, [pictures / "0.png"])
    assert (out / f"0{ending}").read_bytes() == b"of somebody"


def test_batches_come_out_alike_from_processes(run):
    name, folder, *_ = run
    task = TASKS[name]
    make = functools.partial(
        dataset.make,
        task,
        name="shapes",
        data_dir=str(folder / "data"),
        size=SIZE,
        batch_size=4,
        seed=3,
    )
    one, other = (iter(make(threads=1, workers=n).train) for n in (0, 1))
    for _ in range(2):
        jax.tree.map(
            np.testing.assert_array_equal, next(one).target, next(other).target
        )
    one.close()
    other.close()
