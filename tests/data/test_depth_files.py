"""Maps of numbers in files."""

import cv2
import numpy as np
import pytest
import tiny_sets

from detjax.data import value_maps
from detjax.data.formats import depth


def write(folder, name, values, ending=".png"):
    tiny_sets.write_image(folder / "images" / f"{name}.png")
    path = folder / "depth" / f"{name}{ending}"
    path.parent.mkdir(exist_ok=True)
    if ending == ".npy":
        np.save(path, values)
    else:
        assert cv2.imwrite(str(path), values)


def read(folder, **arguments):
    [found] = depth.read_splits(
        root=folder, splits={"train": "."}, **arguments
    ).values()
    return found


def drawn(kind):
    values = np.random.default_rng(0).integers(1, 60_000, (48, 64))
    values[:5, :9] = 0
    return values.astype(kind)


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        (np.uint16, ".png"),
        (np.uint16, ".npy"),
        (np.float32, ".tiff"),
        (np.float64, ".npy"),
    ],
)
def test_numbers_are_scaled_and_0_is_unknown(tmp_path, kind, ending):
    write(tmp_path, "a", drawn(kind), ending)
    found = read(tmp_path, unit=0.001)
    assert found.classes == ("depth",)
    values, valid = value_maps.decode(found.records[0].truth, (48, 64))
    np.testing.assert_array_equal(valid, drawn(kind) > 0)
    np.testing.assert_allclose(values, drawn(float) / 1000, rtol=1e-6)


def test_what_is_not_finite_is_unknown_and_0_may_be_known(tmp_path):
    held = drawn(np.float32)
    held[20:22] = np.nan
    write(tmp_path, "a", held, ".tiff")
    found = read(tmp_path, unknown=None, quantity="height")
    assert found.classes == ("height",)
    _, valid = value_maps.decode(found.records[0].truth, (48, 64))
    np.testing.assert_array_equal(valid, np.isfinite(held))


def test_problems_name_file_and_fault(tmp_path):
    write(tmp_path, "good", drawn(np.uint16))
    write(tmp_path, "small", drawn(np.uint16)[:40])
    write(tmp_path, "none", drawn(np.uint16) * 0)
    write(tmp_path, "colour", np.zeros((48, 64, 3), np.uint8))
    tiny_sets.write_image(tmp_path / "images" / "alone.png")
    found = read(tmp_path)
    assert [r.file_name for r in found.records] == ["good.png"]
    assert {p.file: p.reason for p in found.problems} == {
        "small.png": "map of another size",
        "none.png": "nothing known",
        "colour.png": "unreadable map",
        "alone.png": "missing label map",
    }


def test_digests_follow_the_unit(tmp_path):
    write(tmp_path, "a", drawn(np.uint16))
    given = {"root": tmp_path, "splits": {"train": "."}}
    assert depth.digests(**given) == depth.digests(**given)
    assert depth.digests(**given) != depth.digests(**given, unit=2.0)
