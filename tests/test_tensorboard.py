"""Pictures and texts in TensorBoard's files, as its readers find them."""

import struct

import cv2
import numpy as np

from detjax import log, tensorboard


def events(folder):
    """The events in the files of a folder, in order."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + size]))
            at += 16 + size
    return found


def test_pictures_and_the_config_are_events_of_their_step(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = (250, 100, 10)
    config = {"train": {"steps": 5, "nested": {"a": None}}, "classes": ["x"]}
    with log.Log(tmp_path, float, 0, 9, {}, progress=False) as lines:
        text = tensorboard.text("config", tensorboard.config(config))
        lines.show(0, [text])
        lines.show(7, [tensorboard.picture("evaluation/3", image)])
    shown = [e for e in events(tmp_path / "tensorboard") if e.summary.value]
    said, drawn = (e.summary.value[0] for e in shown)
    assert [e.step for e in shown] == [0, 7]
    # TensorBoard appends the kind of a text to its name.
    assert said.tag.startswith("config")
    written = said.tensor.string_val[0].decode()
    assert "| `steps` | `5` |" in written and "| `nested.a` | `None` |" in written
    assert "['x']" in written
    assert drawn.tag == "evaluation/3"
    assert (drawn.image.height, drawn.image.width) == (40, 60)
    data = np.frombuffer(drawn.image.encoded_image_string, np.uint8)
    back = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    np.testing.assert_allclose(back[5:-5, 40:-5], image[5:-5, 40:-5], atol=12)


def test_large_pictures_are_shrunk():
    held = tensorboard.picture("a", np.zeros((30, 4000, 3), np.uint8)).value[0].image
    assert (held.height, held.width) == (8, tensorboard.MOST_SIDE)
