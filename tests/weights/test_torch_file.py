"""Files of torch.save in both forms, written here without torch."""

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from detjax.errors import UserError
from detjax.weights import read, torch_file


class Kept:
    """A tensor as torch pickles it: a call of one of its functions."""

    def __init__(self, storage, offset, shape, strides, call="_rebuild_tensor_v2"):
        self.said = storage, offset, shape, strides, False, collections.OrderedDict()
        self.call = call

    def __reduce__(self):
        return getattr(sys.modules["torch._utils"], self.call), self.said


class Numbers:
    """A storage, which pickles refer to by an id."""

    def __init__(self, values, kind="FloatStorage"):
        self.values, self.kind = np.asarray(values), kind


class Pickler(pickle.Pickler):
    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.held = {}

    def persistent_id(self, thing):
        if not isinstance(thing, Numbers):
            return None
        key = str(id(thing))
        self.held[key] = thing
        kind = getattr(sys.modules["torch"], thing.kind)
        said = ("storage", kind, key, "cpu", thing.values.size)
        return said if self.zipped else (*said, None)


@pytest.fixture(autouse=True)
def torch(monkeypatch):
    """Modules whose members pickles can name."""
    held = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in torch_file.STORAGES:
        setattr(held[0], name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_sparse_tensor"):

        def call(*said):
            raise AssertionError

        call.__name__ = call.__qualname__ = name
        call.__module__ = "torch._utils"
        setattr(held[1], name, call)
    for module in held:
        monkeypatch.setitem(sys.modules, module.__name__, module)


def written(what, zipped):
    """The bytes that torch.save writes for `what`."""
    file = io.BytesIO()
    pickler = Pickler(file)
    pickler.zipped = zipped
    pickler.dump(what)
    if zipped:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("w/data.pkl", file.getvalue())
            archive.writestr("w/byteorder", b"little")
            for key, storage in pickler.held.items():
                archive.writestr(f"w/data/{key}", storage.values.tobytes())
        return out.getvalue()
    head = [pickle.dumps(x, 2) for x in (torch_file.MAGIC, 1001, {})]
    parts = [*head, file.getvalue(), pickle.dumps(sorted(pickler.held), 2)]
    for key in sorted(pickler.held):
        values = pickler.held[key].values
        parts += [struct.pack("<q", values.size), values.tobytes()]
    return b"".join(parts)


def saved(tmp_path, what, zipped=False):
    (tmp_path / "w.pth").write_bytes(written(what, zipped))
    return tmp_path / "w.pth"


@pytest.mark.parametrize("zipped", [False, True])
def test_arrays_are_read_without_torch(tmp_path, zipped):
    numbers = Numbers(np.arange(12, dtype="f"))
    halves = Numbers(np.array([1.5, -2], np.float16), "HalfStorage")
    brain = Numbers(np.array([0x3FC0, 0xC000], np.uint16), "BFloat16Storage")
    held = collections.OrderedDict(
        {
            "whole": Kept(numbers, 0, (3, 4), (4, 1)),
            "turned": Kept(numbers, 4, (2, 3), (1, 2)),
            "half": Kept(halves, 0, (2,), (1,)),
            "brain": Kept(brain, 0, (2,), (1,)),
            "one": Kept(numbers, 5, (), ()),
            "none": Kept(numbers, 0, (0, 4), (4, 1)),
            "epoch": 3,
        }
    )
    held._metadata = {"version": 1}
    got = read.state_dict(saved(tmp_path, {"state_dict": held}, zipped))
    assert set(got) == {*held} - {"epoch"}
    np.testing.assert_array_equal(got["whole"], np.arange(12).reshape(3, 4))
    assert got["turned"].tolist() == [[4, 6, 8], [5, 7, 9]]
    assert got["half"].tolist() == got["brain"].tolist() == [1.5, -2]
    assert got["brain"].dtype == np.float32
    assert got["one"] == 5 and got["none"].shape == (0, 4)


class Evil:
    """Makes a folder when a pickle of it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_a_file_is_not_run(tmp_path, zipped):
    path = saved(tmp_path, {"a": Evil(str(tmp_path / "executed"))}, zipped)
    with pytest.raises(UserError, match=r"w\.pth is no torch.*\.mkdir beside.*not run"):
        read.state_dict(path)
    assert not (tmp_path / "executed").exists()


ONE = Numbers(np.zeros(1, "f"))
WRONG = {
    "a number": (5, "holds a int, not a state dict"),
    "a tensor": (Kept(ONE, 0, (1,), (1,)), "holds a Tensor, not a state dict"),
    "nothing": ({"epoch": 3}, "holds no arrays by name"),
    "names": ({5: Kept(ONE, 0, (1,), (1,))}, "an array 5, which is not text"),
    "a view": ({"a": Kept(ONE, 0, (1 << 40,), (0,))}, "more than the file holds"),
    "beyond": ({"a": Kept(ONE, 1, (1,), (1,))}, "a cannot be read.*not in the file"),
    "before": ({"a": Kept(ONE, 0, (2,), (-1,))}, "a cannot be read.*not in the file"),
    "sparse": ({"a": Kept(ONE, 0, (1,), (1,), "_rebuild_sparse_tensor")}, "is a spar"),
    "complex": (
        {"a": Kept(Numbers(np.zeros(1, "F"), "ComplexFloatStorage"), 0, (1,), (1,))},
        "a is a complex",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_state_dict_is_named(tmp_path, case):
    what, said = WRONG[case]
    with pytest.raises(UserError, match=rf"w\.pth.*{said}"):
        read.state_dict(saved(tmp_path, what))


@pytest.mark.parametrize("zipped", [False, True])
def test_files_cut_anywhere_are_named(tmp_path, zipped):
    data = written({"a": Kept(Numbers(np.zeros(50, "f")), 0, (50,), (1,))}, zipped)
    for size in (0, 1, 10, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "w.pth").write_bytes(data[:size])
        with pytest.raises(UserError, match=r"w\.pth is no torch file") as told:
            read.state_dict(tmp_path / "w.pth")
        assert "\n" not in str(told.value)
