"""Weight files of strangers: what is taken, what is refused, and what stays inert."""

import json
import re
import struct

import jax
import numpy as np
import pytest
from families import batch
from safetensors.numpy import save_file

from detjax import checkpoint, models
from detjax.data import classes
from detjax.errors import MissingFileError, UserError
from detjax.import_weights import check_free, describe, import_weights, of_classifier
from detjax.weights import convert, published, read, source


def test_scripts_function_writes_a_folder_for_named_classes(tmp_path):
    net = models.make("yolact_resnet50", num_classes=2)
    shapes = jax.eval_shape(net.init, jax.random.key(0), batch().inputs.images)
    params, state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    held = convert.export(params, state, source="yolact", classes=2)
    save_file(held, tmp_path / "w.safetensors")
    report = import_weights(
        tmp_path / "w.safetensors",
        source="yolact",
        model="yolact_resnet50",
        out=tmp_path / "out",
        classes=["cat", "dog"],
    )
    assert len(report.loaded) == len(held)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["classes"] == ["cat", "dog"]
    assert checkpoint.Checkpoints(tmp_path / "out").latest() == 0


def test_torchvisions_classes_have_cocos_numbers(tmp_path):
    net = models.make("keypoint_rcnn_r50_fpn")
    shapes = jax.eval_shape(net.init, jax.random.key(0), batch().inputs.images)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    save_file(
        convert.export(*zeros, source="torchvision", classes=1),
        tmp_path / "w.safetensors",
    )
    import_weights(
        tmp_path / "w.safetensors",
        source="torchvision",
        model="keypoint_rcnn_r50_fpn",
        out=tmp_path / "out",
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["classes"], config["category_ids"]) == (["person"], [1])
    assert config["data"] == {"size": [1088, 1088], "letterbox": True}
    assert classes.names_for(90)[26 - 1] == "N/A"
    # torchvision's sigmoids have a background in front, which is no category.
    described = describe("retinanet_resnet50_fpn", None)
    assert described["classes"][:2] == ("background", "person")
    assert described["category_ids"] == tuple(range(91))
    assert describe("ssd300_vgg16", None)["data"]["size"] == (300, 300)
    assert classes.names_for(90)[90 - 1] == "toothbrush"


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "checkpoints/4/x"])
def test_a_folder_that_is_in_use_is_refused_and_stays(tmp_path, name):
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).write_text("{}")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"run holds a run, or weights .*remove"):
        import_weights("w.pth", source="yolact", model="yolact", out=tmp_path / "run")
    assert contents(tmp_path) == before


def test_out_is_a_folder_or_nothing(tmp_path):
    (tmp_path / "w.safetensors").write_text("")
    check_free(tmp_path)
    check_free(tmp_path / "new")
    with pytest.raises(UserError, match="is a file"):
        check_free(tmp_path / "w.safetensors")


def test_nothing_is_written_where_the_file_does_not_fit(tmp_path):
    save_file({"other.weight": np.zeros((2, 2), "f")}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"w\.safetensors: the file does not fit"):
        import_weights(
            tmp_path / "w.safetensors",
            source="torchvision",
            model="resnet18",
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [["cat", "cat"], ["cat", " "]])
def test_classes_have_names_of_their_own(names):
    with pytest.raises(UserError, match="name of its own"):
        describe("yolact_resnet50", names)


def test_a_model_of_any_classes_asks_for_them():
    with pytest.raises(UserError, match="--classes, or choose one of yolact_resnet50"):
        describe("yolact", None)


def test_a_classifier_sees_images_as_its_weights_have(tmp_path):
    net = models.make("classifier", num_classes=10, backbone={"name": "lenet5"})
    images = np.zeros((1, 32, 32, 3), np.uint8)
    shapes = jax.eval_shape(net.init, jax.random.key(0), images)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    params, codes = zeros[0]["backbone"], zeros[1]["codes"]["backbone"]
    held = convert.export(params, {"codes": codes}, source="lenet")
    save_file(held, tmp_path / "w.safetensors")
    out = tmp_path / "out"
    import_weights(tmp_path / "w.safetensors", source="lenet", model="lenet5", out=out)
    config = json.loads((out / "config.json").read_text())
    assert config["data"]["size"] == [32, 32] and len(config["classes"]) == 10
    # What a run that starts from them is told.
    assert source.pixels(out) == "lenet"


@pytest.mark.parametrize(
    ("called", "origin", "side", "pixels"),
    [
        ("inception_v3", "torchvision", 299, "inception"),
        ("inception_resnet_v2", "timm", 299, "inception"),
        ("darknet19", "darknet", 256, "unit"),
        ("resnet50", "torchvision", 224, "imagenet"),
        ("resnet50", "yolact", 224, "yolact"),
        ("vgg16", "caffe", 224, "caffe"),
    ],
)
def test_publishers_feed_their_networks_in_their_ways(called, origin, side, pixels):
    described = of_classifier(called, origin, None)
    assert described["data"]["size"] == (side, side)
    assert described["model"]["pixels"] == pixels


def test_pixels_that_no_setting_makes_are_warned_of(capsys):
    described = of_classifier("shufflenet_v1_g3", "megvii", ["a", "b"])
    assert "pixels" not in described["model"]
    assert "shufflenet_v1_g3 have learnt from images in a" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "model", "said"),
    [("keras", "resnet18", "no source is"), ("yolact", "resnet19", "no model or back")],
)
def test_unknown_names_are_refused_before_the_file_is_read(source, model, said):
    with pytest.raises(UserError, match=f"{said}.*choose one of"):
        published.load("absent.pth", source=source, model=model)


# ---- arrays that are no weights

PARAMS = {"conv": {"kernel": np.ones((1, 1, 2, 3), "f"), "bias": np.ones(3, "f")}}
HELD = {"conv.weight": np.zeros((3, 2, 1, 1), "f"), "conv.bias": np.zeros(3, "f")}


def load(allow=None, **changed):
    held = {**HELD, **{name.replace("__", "."): v for name, v in changed.items()}}
    return convert.load(held, PARAMS, {}, source="torchvision", allow=allow)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_none_are_refused_by_name(value):
    bias = np.array([0, value, 0])
    with pytest.raises(UserError, match=r"conv\.bias: NaN or infinity in the file"):
        load(conv__bias=bias)
    params, _, report = load(conv__bias=bias, allow="bias")
    assert report.left == ["conv.bias"]
    np.testing.assert_array_equal(params["conv"]["bias"], np.ones(3))


def test_an_expression_that_is_none_or_allows_nothing_is_refused():
    with pytest.raises(UserError, match=r"--allow=conv\( is no regular expression"):
        load(allow="conv(")
    with pytest.raises(UserError, match="--allow=head matches no name"):
        load(allow="head")
    load(allow="bias")


def test_a_view_of_one_number_is_not_filled():
    huge = np.broadcast_to(np.float32(1), (1 << 20, 1 << 10, 7, 7))
    with pytest.raises(UserError, match=r"\(7, 7, 1024, 1048576\) in the file"):
        load(conv__weight=huge)


def test_a_long_list_of_differences_is_cut_short():
    more = {f"{'x' * 500}{i}": np.zeros(1) for i in range(100)}
    with pytest.raises(
        UserError, match=r"in 100 places.*\n(.*\n){20}  and 80 more"
    ) as e:
        load(**more)
    assert len(str(e.value)) < 4000


# ---- safetensors


def safetensors_file(path, header, body=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def test_bfloat16_is_read_as_float32(tmp_path):
    numbers = np.float32([1, -2.5, 3e38, 0])
    header = {"a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    body = (numbers.view(np.uint32) >> 16).astype("<u2").tobytes()
    got = read.state_dict(safetensors_file(tmp_path / "w.safetensors", header, body))
    assert got["a"].dtype == np.float32
    np.testing.assert_allclose(got["a"].ravel(), numbers, rtol=0.01)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 8) + b"not JSON",
        struct.pack("<Q", 2) + b"{}",
    ],
)
def test_what_is_no_safetensors_file_is_named(tmp_path, data):
    (tmp_path / "w.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=r"w\.safetensors"):
        read.state_dict(tmp_path / "w.safetensors")


def test_arrays_of_other_types_are_named(tmp_path):
    header = {"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    path = safetensors_file(tmp_path / "w.safetensors", header, b"ab")
    with pytest.raises(UserError, match=r"w\.safetensors: a is of type F8_E4M3"):
        read.state_dict(path)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_folders_and_files_that_are_not_there_are_named(tmp_path, suffix):
    (tmp_path / f"w.{suffix}").mkdir()
    with pytest.raises(UserError, match=rf"w\.{suffix}.*(a folder|a directory)"):
        read.state_dict(tmp_path / f"w.{suffix}")
    with pytest.raises(MissingFileError, match="absent"):
        read.state_dict(tmp_path / f"absent.{suffix}")


# ---- torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


class Evil:
    """Runs a command when a pickle of it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return __import__("os").system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(torch, tmp_path, zipped):
    held = {"conv1.weight": Evil(tmp_path / "executed")}
    torch.save(held, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"w\.pth is no torch.*posix\.system.*not run"):
        read.state_dict(tmp_path / "w.pth")
    assert not (tmp_path / "executed").exists()


WRONG = {
    "a number": (lambda t: 5, "holds a int, not a state dict"),
    "a tensor": (lambda t: t.zeros(3), "holds a Tensor, not a state dict"),
    "state dict 5": (lambda t: {"state_dict": 5}, "its 'state_dict' holds a int"),
    "model": (lambda t: {"model": t.zeros(3)}, "its 'model' holds a Tensor"),
    "nothing": (lambda t: {"epoch": 3}, "holds no arrays by name"),
    "sparse": (lambda t: {"a.b": t.eye(3).to_sparse()}, r"a\.b is a sparse"),
    "names": (lambda t: {5: t.zeros(3)}, "names an array 5, which is not text"),
    "complex": (lambda t: {"a": t.zeros(3, dtype=t.cfloat)}, "a is a complex"),
    "meta": (lambda t: {"a": t.zeros(3, device="meta")}, "a is a complex.*no values"),
    "a view": (lambda t: {"a": t.zeros(1).expand(1 << 40)}, "more than the file holds"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_state_dict_is_named(torch, tmp_path, case):
    make, said = WRONG[case]
    torch.save(make(torch), tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"(?s)w\.pth.*{said}"):
        read.state_dict(tmp_path / "w.pth")


def test_parameters_and_halves_are_taken(torch, tmp_path):
    numbers = torch.tensor([1.0, -2.5, 0.25])
    held = {
        "parameter": torch.nn.Parameter(numbers),
        "bfloat16": numbers.bfloat16(),
        "half": numbers.half(),
        "turned": torch.arange(6.0).reshape(2, 3).T,
    }
    torch.save({"state_dict": held, "epoch": 3}, tmp_path / "w.pth")
    got = read.state_dict(tmp_path / "w.pth")
    for name in ("parameter", "bfloat16", "half"):
        np.testing.assert_array_equal(got[name].astype("f"), numbers.numpy())
    assert got["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_files_cut_anywhere_are_named(torch, tmp_path):
    torch.save({"a": torch.zeros(100)}, tmp_path / "whole.pth")
    data = (tmp_path / "whole.pth").read_bytes()
    for size in (0, 1, 10, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "w.pth").write_bytes(data[:size])
        with pytest.raises(UserError, match=r"w\.pth is no torch file") as told:
            read.state_dict(tmp_path / "w.pth")
        assert not re.search(r"\n", str(told.value))
