"""Pictures of labels before training: what is drawn, sampled and said."""

import cv2
import numpy as np
import pytest

from detjax import look, tasks
from detjax.data import builder
from detjax.data.records import Annotation, Dataset, Record, Unreadable
from detjax.errors import UserError


def encoded(h, w, value=90):
    image = np.full((h, w, 3), value, np.uint8)
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture(scope="module")
def detection(tmp_path_factory):
    """Nine pictures, objects of two of three classes."""
    folder = tmp_path_factory.mktemp("sets")
    records = []
    for i in range(9):
        truth = [
            Annotation(1, (5.0, 6.0, 25.0, 36.0), 0, 600.0),
            Annotation(2, (30.0, 6.0, 50.0, 16.0), i % 2, 200.0),
        ][: 1 + (i > 0)]
        name = f"{i}.png"
        records.append(Record(i, name, 48, 64, image=encoded(48, 64), truth=truth))
    held = {"train": Dataset("train", ("cat", "dog", "bird"), records)}
    builder.write(held, "pets", folder, tasks.TASKS["detection"])
    return folder


def pixels(path):
    return cv2.imread(str(path))


def test_a_detection_set_is_drawn_and_summed_up(detection, tmp_path):
    said = look.look("pets", detection, out=tmp_path / "out", pictures=5)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"grid.png", "classes.png", "sizes.png"}
    assert "9 pictures, median 64 x 48" in said and "17 objects" in said
    assert "3 classes: cat 13, dog 4, bird 0" in said
    assert "1 classes have none" in said
    # The labels are drawn in the colours of their classes, so there are colours.
    grid = pixels(tmp_path / "out" / "grid.png").astype(int)
    assert (np.ptp(grid, axis=2) > 60).mean() > 0.005
    assert pixels(tmp_path / "out" / "classes.png").shape[0] < 3 * look.CROP


def test_a_sample_is_small_and_the_same_with_its_seed(detection, tmp_path):
    options = {"records": 4, "pictures": 2}
    for number, seed in enumerate((1, 1, 2)):
        said = look.look(
            "pets", detection, out=tmp_path / str(number), seed=seed, **options
        )
        assert "a sample of 4 pictures" in said
    one, again, other = (pixels(tmp_path / str(i) / "grid.png") for i in range(3))
    np.testing.assert_array_equal(one, again)
    assert one.shape != other.shape or (one != other).any()


def test_a_classification_set_is_drawn_by_class(tmp_path):
    records = [
        Record(i, f"{i}.png", 30, 40, image=encoded(30, 40, 20 * i), truth=(i % 2,))
        for i in range(6)
    ]
    held = {"train": Dataset("train", ("day", "night"), records)}
    builder.write(held, "sky", tmp_path, tasks.TASKS["classification"])
    said = look.look("sky", tmp_path, out=tmp_path / "out")
    assert "2 classes: day 3, night 3" in said and "objects" not in said
    drawn = pixels(tmp_path / "out" / "classes.png").astype(int)
    # All of the pictures, each of one shade.
    for value in range(0, 120, 20):
        assert (np.abs(drawn - value).max(axis=2) < 3).sum() > 1000


def test_unknown_sets_and_splits_are_a_sentence(detection, tmp_path):
    with pytest.raises(UserError, match="no data set 'none'"):
        look.look("none", detection, out=tmp_path)
    with pytest.raises(UserError, match="no split 'val'"):
        look.look("pets", detection, "val", out=tmp_path)


class Broken(list):
    """Records of which one cannot be read."""

    def __getitem__(self, index):
        if index == 1:
            raise Unreadable("it is broken")
        return super().__getitem__(index)


def test_unreadable_records_are_passed_over():
    task = tasks.TASKS["detection"]
    thing = Annotation(1, (5.0, 6.0, 25.0, 36.0), 0, 600.0)
    records = Broken(
        Record(i, f"{i}.png", 48, 64, image=encoded(48, 64), truth=[thing])
        for i in range(3)
    )
    found = look.sample(records, task, np.arange(3))
    assert found.places.tolist() == [0, 2] and found.unreadable == 1
    assert found.owners.tolist() == [0, 1] and found.counts(2).tolist() == [2, 0]
    panels = look.grid(records, np.arange(3), task, ["a"], 3)
    assert len(panels) == 2
    assert len(look.classes(records, found, ["a", "b"])) == 1


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 50, 30),
        (0, 0, 8, 8),
        (0, 0, 1, 1),
        (99, 199, 100, 200),
        (3, 0, 4, 200),
    ],
)
def test_crops_show_their_box_wherever_it_is(box):
    image = np.full((200, 100, 3), 50, np.uint8)
    x1, y1, x2, y2 = box
    image[max(y1, 0) : y2, max(x1, 0) : x2] = (200, 0, 0)
    found = look.crop(image, np.array(box, np.float64))
    assert found.shape == (look.CROP, look.CROP, 3)
    middle = found[look.CROP // 2 - 1, look.CROP // 2 - 1].astype(int)
    assert (middle[0] > 150 and middle[0] - middle[1] > 60) or box[2] - box[0] == 1


def test_a_crop_of_a_whole_picture_has_no_frame():
    image = np.full((50, 100, 3), 50, np.uint8)
    found = look.crop(image, np.array([0.0, 0, 100, 50]))
    assert (found[: look.CROP // 4 - 2] == 235).all()
    assert (found[look.CROP // 4 + 2 : look.CROP // 2] == 50).all()
