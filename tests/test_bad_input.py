"""What users get wrong, and the one sentence that each script then says.

The scripts run as they do from a shell, in processes forked from one that has imported
what they need, which saves seconds each.
"""

import json
import multiprocessing
import os
import pathlib
import re
import resource
import runpy
import shutil
import sys

import numpy as np
import pytest
from data.tiny_sets import coco_content, voc_xml, write_coco, write_image
from safetensors.numpy import save_file
from test_scripts import ROOT, tiny

SERVER = multiprocessing.get_context("forkserver")
# What the scripts import, and what that imports once it is used.
SERVER.set_forkserver_preload(
    [
        "detjax.run",
        "detjax.predict_files",
        "detjax.import_weights",
        "detjax.data.prepare",
        "ml_collections.config_flags",
        "orbax.checkpoint",
        "tensorboardX",
        "matplotlib.backends.backend_agg",
        "supervision",
    ]
)


BOXES = """
from configs import quickstart

def get_config():
    config = quickstart.get_config()
    config.data.prepare = None
    config.data.name = "boxes"
    config.model.num_classes = 2
    return config
"""


def call(script, arguments, out, limit):
    """The target of a forked process: scripts/`script`.py as from a shell."""
    os.chdir(ROOT)
    handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout = open(1, "w", closefd=False, buffering=1)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = [str(ROOT / "scripts" / f"{script}.py"), *map(str, arguments)]
    runpy.run_path(sys.argv[0], run_name="__main__")


def start(script, *arguments, out, limit=None):
    """(exit status, everything that it said); `limit` bytes fit into a file."""
    process = SERVER.Process(target=call, args=(script, arguments, out, limit))
    process.start()
    process.join(240)
    assert process.exitcode is not None
    return process.exitcode, pathlib.Path(out).read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run, its data, and files that have something wrong with them."""
    folder = tmp_path_factory.mktemp("place")
    options = tiny(folder / "run", folder / "data", "--config.train.steps=1")
    status, said = start("train", *options, out=folder / "said.txt")
    assert status == 0, said
    broken_files(folder)
    annotations(folder)
    status, said = start(
        "make_dataset",
        "coco",
        "--name=boxes",
        f"--out={folder / 'data'}",
        f"--images={folder / 'coco' / 'images'}",
        f"--split=train={folder / 'coco' / 'boxes.json'}",
        f"--split=val={folder / 'coco' / 'boxes.json'}",
        out=folder / "said.txt",
    )
    assert status == 0, said
    return folder


def broken_files(folder):
    (folder / "empty").mkdir()
    (folder / "file").write_text("not a folder")
    (folder / "text.png").write_text("not a picture")
    (folder / "zero.png").write_bytes(b"")
    whole = write_image(folder / "whole.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2][:60])
    (folder / "text.safetensors").write_text("no weights")
    save_file({"other.weight": np.zeros((2, 2), "f")}, folder / "other.safetensors")
    (folder / "bare").mkdir()
    shutil.copy(folder / "run" / "config.json", folder / "bare")
    shutil.copytree(folder / "run", folder / "bad")
    (folder / "bad" / "config.json").write_text("{")
    (folder / "boxes.py").write_text(BOXES)
    shutil.copytree(folder / "run", folder / "damaged")
    for path in (folder / "damaged" / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def annotations(folder):
    text = write_coco(folder / "coco").read_text()
    wrong = {
        "half.json": text[: len(text) // 2],
        "list.json": "[]",
        "nothing.json": "{}",
        "zero.json": json.dumps(with_image(file_name="zero.png")),
        "absent.json": json.dumps(with_image(file_name="absent.png")),
        "text.json": json.dumps(with_image(file_name="text.png")),
        "boxes.json": json.dumps(without_masks()),
    }
    for name, content in wrong.items():
        (folder / "coco" / name).write_text(content)
    for name in ("text.png", "zero.png"):
        shutil.copy(folder / name, folder / "coco" / "images" / name)
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / "voc" / part).mkdir(parents=True)
    (folder / "voc/ImageSets/Main/train.txt").write_text("one\n")
    (folder / "voc/Annotations/one.xml").write_text(voc_xml("")[:40])
    (folder / "maps" / "images").mkdir(parents=True)


def with_image(**changes):
    content = coco_content()
    content["images"][0].update(changes)
    return content


def without_masks():
    content = coco_content()
    content["annotations"] = [
        {k: v for k, v in row.items() if k != "segmentation"}
        for row in content["annotations"]
    ]
    return content


def train(*overrides):
    """A new run in the folder `new`, changed by `overrides`."""
    return lambda folder: (
        "train",
        *tiny(folder / "new", folder / "data", *[o.format(folder) for o in overrides]),
    )


def script(name, *arguments):
    return lambda folder: (name, *[a.format(folder) for a in arguments])


def dataset(kind, *arguments):
    return script("make_dataset", kind, "--name=new", "--out={}/made", *arguments)


def coco(file, images="{}/coco/images"):
    return dataset("coco", f"--images={images}", f"--split=train={{}}/coco/{file}")


def weights(*arguments):
    return script("import_weights", "--out={}/new", *arguments)


CASES = {
    # configs
    "key": (train("--config.model.num_clases=3"), "did you mean 'num_classes'"),
    "section": (train("--config.modle.masks=0"), "did you mean 'model'"),
    "split": (train("--config.data.eval_split=test"), "test"),
    "file": (train("--config=configs/absent.py"), "configs/absent.py"),
    "value": (train("--config.train.steps=many"), "many"),
    "few classes": (train("--config.model.num_classes=2"), "has 4 classes, the model"),
    "many classes": (
        train("--config.model.num_classes=9"),
        "set --config.model.num_classes=4",
    ),
    "backbone": (
        train("--config.model.backbone.name=resnet17"),
        "model.backbone.name='resnet17' is not one of 'resnet10'",
    ),
    "model": (
        train("--config.model.name=yolacd"),
        "'yolacd' is no model .did you mean 'yolact'",
    ),
    "levels": (train("--config.model.levels=(2,3)"), "must hold one tuple of equal"),
    "optimizer": (
        train("--config.optimizer.name=adan"),
        "is not one of 'sgd', 'adamw'",
    ),
    "size": (train("--config.data.size=(0,0)"), r"data\.size"),
    "batch": (
        train("--config.data.batch_size=6", "--config.sharding.space=2"),
        "6 images does not divide among 4 devices",
    ),
    "params": (train("--config.sharding.params=zero"), "not one of"),
    "space": (train("--config.sharding.space=3"), "does not divide the 8 devices"),
    "best": (train("--config.train.best=AP"), "set train.evaluate_every too"),
    "metric": (
        train("--config.train.best=mAP", "--config.train.evaluate_every=1"),
        r"best='mAP' is not a metric .did you mean 'segm/AP'.*choose .*bbox/AP",
    ),
    "no masks": (
        script(
            "train",
            "--config={}/boxes.py",
            "--workdir={}/new",
            "--config.data.data_dir={}/data",
        ),
        "has no masks; set data.mask_stride=None",
    ),
    "format": (
        train("--config.data.name=new", "--config.data.prepare.format=pascal"),
        "pascal",
    ),
    # folders and clusters
    "unwritable": (train("--workdir=/proc/nothing"), "/proc/nothing"),
    "no folder": (train("--workdir={}/file"), "file"),
    "no flags": (script("train"), r"give --config=FILE\.py and --workdir=DIR"),
    "other config": (
        train("--workdir={}/run", "--config.model.features=12"),
        "holds a run with model.fpn.features=8, the config says 12",
    ),
    "config.json": (
        train("--workdir={}/bad"),
        r"config\.json is not JSON",
    ),
    "start": (train("--config.train.init_from={}/empty"), "no checkpoint in"),
    "cluster": (train("--distributed=here"), "HOST:PORT,NUMBER_OF_PROCESSES,INDEX"),
    "replay": (script("train", "--replay={}/empty"), r"no batch-0\.npz in"),
    "evaluate": (script("evaluate", "--workdir={}/empty"), r"config\.json does not"),
    "untrained": (script("evaluate", "--workdir={}/bare"), "no checkpoint in"),
    "no best": (script("evaluate", "--workdir={}/run", "--best"), "no checkpoint in"),
    "damaged": (script("evaluate", "--workdir={}/damaged"), "cannot be read"),
    # pictures
    "no pictures": (
        script("predict", "--workdir={}/run", "--out={}/new"),
        "no images were given",
    ),
    "empty folder": (
        script("predict", "--workdir={}/run", "--out={}/new", "{}/empty"),
        "there is no image in",
    ),
    "absent": (
        script("predict", "--workdir={}/run", "--out={}/new", "{}/none.png"),
        r"none\.png does not exist",
    ),
    "text": (
        script("predict", "--workdir={}/run", "--out={}/new", "{}/text.png"),
        r"text\.png is not an image",
    ),
    "no bytes": (
        script("predict", "--workdir={}/run", "--out={}/new", "{}/zero.png"),
        r"zero\.png is not an image",
    ),
    "half": (
        script("predict", "--workdir={}/run", "--out={}/new", "{}/half.png"),
        r"half\.png is not an image",
    ),
    "out": (
        script("predict", "--workdir={}/run", "--out={}/file", "{}/whole.png"),
        "file",
    ),
    "tiles": (
        script(
            "predict", "--workdir={}/run", "--out={}/new", "--tile=64", "{}/whole.png"
        ),
        "answers of detection to tiles cannot be made one; predict pictures without",
    ),
    "overlap": (
        script(
            "predict", "--workdir={}/run", "--out={}/new", "--overlap=8", "{}/whole.png"
        ),
        "overlap=8 is that of tiles; set their side too",
    ),
    "far overlap": (
        script(
            *("predict", "--workdir={}/run", "--out={}/new"),
            *("--tile=64", "--overlap=64", "{}/whole.png"),
        ),
        "tiles of 64 pixels cannot overlap by 64",
    ),
    "scales": (
        script(
            "predict",
            "--workdir={}/run",
            "--out={}/new",
            "--scales=1,a",
            "{}/whole.png",
        ),
        "--scales=1,a are not numbers above 0",
    ),
    # annotations
    "half JSON": (coco("half.json"), r"half\.json.*JSON"),
    "a list": (coco("list.json"), r"list\.json"),
    "no images": (coco("nothing.json"), r"nothing\.json.*images"),
    "no JSON": (coco("none.json"), r"none\.json"),
    "zero size": (coco("zero.json"), r"zero\.png"),
    "no file": (coco("absent.json"), r"absent\.png"),
    "no picture": (coco("text.json"), r"text\.png"),
    "no image folder": (coco("instances.json", "{}/nowhere"), "no folder"),
    "XML": (
        dataset("voc", "--classes=cat", "--root={}/voc", "--split", "train"),
        r"one\.xml",
    ),
    "list": (
        dataset("voc", "--classes=cat", "--root={}/voc", "--split", "test"),
        r"test\.txt",
    ),
    "maps": (dataset("labelmaps", "--split=train={}/maps"), "maps"),
    # weights
    "no weights": (
        weights("--source=yolact", "--model=resnet50", "{}/none.pth"),
        r"none\.pth",
    ),
    "no tensors": (
        weights("--source=torchvision", "--model=resnet50", "{}/text.safetensors"),
        r"text\.safetensors",
    ),
    "other names": (
        weights("--source=torchvision", "--model=resnet50", "{}/other.safetensors"),
        r"only in the (file|model)",
    ),
    "source": (
        weights("--source=keras", "--model=resnet50", "{}/other.safetensors"),
        "no source is called 'keras'",
    ),
    "no such model": (
        weights("--source=yolact", "--model=resnet51", "{}/other.safetensors"),
        "resnet51",
    ),
}


def contents(folder):
    """Every file of a run, to see that nothing is lost."""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("case", CASES)
def test_mistakes_are_one_sentence(case, place, tmp_path):
    arguments, sentence = CASES[case]
    before = contents(place / "run")
    status, said = start(*arguments(place), out=tmp_path / "said.txt")
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert status == 1, said
    assert "Traceback" not in said, said[-1500:]
    assert len(errors) == 1, said
    assert re.search(sentence, said[said.index("error: ") :]), said
    assert contents(place / "run") == before
    for made in ("new", "made"):
        shutil.rmtree(place / made, ignore_errors=True)


def test_debug_shows_where_it_came_from(place, tmp_path):
    arguments = (*CASES["backbone"][0](place), "--debug")
    status, said = start(*arguments, out=tmp_path / "said.txt")
    assert status == 1
    assert "Traceback" in said


def test_a_full_disk_is_said_so_and_nothing_is_lost(place, tmp_path):
    """Files may only grow to a few kilobytes, which a checkpoint does not fit into."""
    shutil.copytree(place / "run", tmp_path / "run")
    options = tiny(tmp_path / "run", place / "data", "--config.train.steps=3")
    before = contents(tmp_path / "run" / "checkpoints")
    status, said = start("train", *options, out=tmp_path / "said.txt", limit=20_000)
    assert status == 1, said
    assert "Traceback" not in said, said[-1500:]
    assert "free some space" in said
    after = contents(tmp_path / "run" / "checkpoints")
    assert {k: v for k, v in after.items() if k in before} == before
    status, said = start("train", *options, out=tmp_path / "said.txt")
    assert status == 0, said
