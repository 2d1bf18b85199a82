"""Reading ahead: how much is under way, whoever fills it, and what goes wrong."""

import threading
import time

import numpy as np
import pytest
from test_loader import prepare, record

from detjax.data import ahead, loader
from detjax.errors import UserError


class Counted:
    """Batches that count how many of them are under way, and who fills rows."""

    rows = 4

    def __init__(self, count=50, pause=0.0):
        self.count, self.pause = count, pause
        self.made, self.fillers = 0, set()
        self.steps = prepare(mask_stride=None)

    def __len__(self):
        return self.count

    buckets = 1

    def bucket(self, number):
        return 0

    def begun(self, first):
        return self

    def empty(self, bucket, rows):
        self.made += 1
        return self.steps.empty(rows, (8, 8))

    def clear(self, batch, at):
        self.steps.clear(batch, at)

    def fill(self, batch, at, number, row):
        time.sleep(self.pause)
        self.fillers.add(threading.get_ident())
        batch.index[at] = number * self.rows + row


@pytest.mark.parametrize("threads", [1, 3, 64])
def test_what_is_under_way_does_not_grow_with_the_threads(threads):
    batches = Counted(pause=0.002)
    stream = ahead.prefetched(batches, threads)
    for taken in range(1, 20):
        batch = next(stream)
        # The rows are in their places, whoever came first.
        expected = np.arange(4 * (taken - 1), 4 * taken)
        np.testing.assert_array_equal(batch.index, expected)
        assert batches.made <= taken + ahead.AHEAD
    assert len(batches.fillers) <= threads
    assert len(batches.fillers) > 1 or threads == 1
    stream.close()


def test_a_stream_ends_after_its_last_batch():
    assert len(list(ahead.prefetched(Counted(count=5), 2))) == 5


def test_an_error_in_a_row_comes_with_its_batch():
    batches = Counted()

    def fill(batch, at, number, row):
        if (number, row) == (2, 3):
            raise UserError("row 3 of batch 2")

    batches.fill = fill
    stream = ahead.prefetched(batches, 2)
    next(stream), next(stream)
    with pytest.raises(UserError, match="row 3 of batch 2"):
        next(stream)
    stream.close()


class Rows(Counted):
    """Batches whose rows leave a file each, wherever they are made."""

    def __init__(self, folder, rows):
        super().__init__(count=1000)
        self.folder, self.rows = folder, rows

    def fill(self, batch, at, number, row):
        (self.folder / f"{number}-{row}").touch()
        batch.index[at] = number * self.rows + row


@pytest.mark.parametrize("workers, rows", [(2, 16), (6, 2)])
def test_what_worker_processes_hold_does_not_grow_with_them(tmp_path, workers, rows):
    stream = ahead.prefetched(Rows(tmp_path, rows), workers=workers)
    for taken in range(1, 4):
        batch = next(stream)
        expected = np.arange(rows * (taken - 1), rows * taken)
        np.testing.assert_array_equal(batch.index, expected)
        most = rows * (taken + ahead.AHEAD)
        while len(list(tmp_path.iterdir())) < most:
            time.sleep(0.01)
        time.sleep(0.1)
        assert len(list(tmp_path.iterdir())) == most
    stream.close()


def test_evaluation_draws_no_masks():
    records = [record(i) for i in range(3)]
    (batch,) = loader.eval_loader(records, prepare(mask_size=7), batch_size=3)
    assert batch.target.masks is None
    assert batch.target.box_masks is None


def test_masks_on_boxes_are_the_masks_in_their_boxes():
    some = record(size=(64, 96))
    for a in some.truth[:1]:
        # Half of the box: its left part.
        mask = np.zeros((64, 96), bool)
        x1, y1, x2, y2 = map(int, a.box)
        mask[y1:y2, x1 : (x1 + x2) // 2] = True
        from tests import reference

        a.rle = reference.rle(mask)["counts"].encode()
    got = prepare(mask_stride=None, mask_size=20)(some).target
    assert got.masks is None
    assert got.box_masks.shape == (4, 20, 20)
    np.testing.assert_array_equal(got.box_masks[0, :, :9], 1)
    np.testing.assert_array_equal(got.box_masks[0, :, 11:], 0)
    np.testing.assert_array_equal(got.box_masks[1:3], 1)
    assert not got.box_masks[3].any()
    # A box that reaches out of the input keeps what is in it.
    some.truth[1].box = (-4.0, 8.0, 12.0, 20.0)
    mask = np.zeros((64, 96), bool)
    mask[8:20, :12] = True
    some.truth[1].rle = reference.rle(mask)["counts"].encode()
    got = prepare(mask_stride=None, mask_size=20)(some).target
    np.testing.assert_array_equal(got.boxes[1][[0, 2]], [0, 6])
    np.testing.assert_array_equal(got.box_masks[1], 1)


def test_bytes_of_a_batch():
    """What COCO's Mask R-CNN config holds in memory, at its full size."""
    from configs import mask_rcnn_r50_coco
    from detjax import experiment

    section = experiment.plain(mask_rcnn_r50_coco.get_config().data)
    steps = prepare(
        size=section["buckets"][2],
        max_objects=100,
        mask_stride=section["mask_stride"],
        mask_size=section["mask_size"],
    )
    batch = steps.empty(section["batch_size"], section["buckets"][2])
    assert batch.inputs.images.nbytes == 16 * 800 * 1344 * 3
    assert batch.target.box_masks.nbytes < 21e6


def test_small_objects_are_left_out_and_counted():
    got = prepare(min_size=6)(record())
    # 10, 11 and 12 pixels wide of 90, which become 48: 5.3, 5.9 and 6.4.
    assert got.counts["objects too small"] == 2
    assert got.target.valid.tolist() == [True, False, False, False]
    assert got.target.labels[0] == 2
    assert prepare()(record()).counts["objects too small"] == 0
