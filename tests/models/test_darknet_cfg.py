"""Darknet's cfg files as sections with options."""

import os
import pathlib

import pytest

from detjax.errors import UserError
from detjax.models.darknet import cfg

DARKNET = os.environ.get("DETJAX_DARKNET")
TEXT = """
# a comment
[network]
width = 64
height=32
 channels=3

[conv]
filters=16
size=3
; another
pad = 1
activation=leaky
filters=32
[route]
layers=-1, 0
[max]
size=2
stride=2
"""
# Of sequences and games, and one whose layers are of nothing that is known.
OTHERS = {"rnn", "rnn.train", "gru"}


def test_sections_and_options():
    read = cfg.parse(TEXT)
    assert [s.kind for s in read.layers] == ["convolutional", "route", "maxpool"]
    conv, route, pool = read.layers
    assert (read.net.whole("width"), read.net.whole("height")) == (64, 32)
    assert conv.whole("filters") == 16  # the first one counts
    assert conv.flag("pad") and not conv.flag("batch_normalize")
    assert route.wholes("layers") == (-1, 0)
    assert (pool.line, pool.whole("padding", 1)) == (17, 1)
    assert "stride" in pool and "stride" not in conv
    assert cfg.parse(read.written()) == read
    assert read.with_net(width=96).net.whole("width") == 96
    assert read.with_net(width=96) != read


def test_numbers_end_where_they_stop_being_some():
    text = "[net]\na=1,000\nb=1e-3x\nc=.5, 2.\nd=-7\n[avgpool]"
    section = cfg.parse(text).net
    assert section.whole("a") == 1
    assert section.number("b") == 1e-3
    assert section.numbers("c") == (0.5, 2.0)
    assert section.whole("d") == -7
    assert section.wholes("none") == ()


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "does not begin with [net]"),
        ("[net]\nwidth=3", "has no layers"),
        ("[maxpool]\nsize=2", "does not begin with [net]"),
        ("size=2", "line 1: 'size=2' is no [net]"),
        ("[net]\nhello", "line 2: 'hello' is no option=value"),
        ("[net]\n[convolution]\n", "line 2: [convolution] is not a section"),
        ("[net]\n\n[lstm]\n", "line 3: [lstm] is of networks for sequences"),
        ("[net]\n[maxpool]\n[net]\n", "line 3, [net]: there is one [net] only"),
    ],
)
def test_what_is_no_cfg_is_a_sentence(text, said):
    with pytest.raises(UserError) as caught:
        cfg.parse(text, "a.cfg")
    assert said in str(caught.value)
    assert "a.cfg" in str(caught.value)


@pytest.mark.parametrize(
    "ask, said",
    [
        (lambda s: s.whole("size"), "there is no size=; give a whole number"),
        (lambda s: s.whole("filters"), "filters=many is not a whole number"),
        (lambda s: s.number("filters"), "filters=many is not a number"),
        (lambda s: s.numbers("anchors"), "anchors=1,b are not numbers"),
        (lambda s: s.one_of("filters", {"few": 1}, "few"), "is not one of few"),
    ],
)
def test_options_that_are_none_are_sentences(ask, said):
    text = "[net]\n[convolutional]\nfilters=many\nanchors=1,b"
    [section] = cfg.parse(text, "a.cfg").layers
    with pytest.raises(UserError, match=r"a\.cfg, line 2, \[convolutional\]") as caught:
        ask(section)
    assert said in str(caught.value)


@pytest.mark.skipif(not DARKNET, reason="DETJAX_DARKNET is not set")
def test_every_real_cfg_is_read():
    found = sorted(pathlib.Path(DARKNET).glob("cfg*/*.cfg"))
    assert len(found) > 50
    for path in found:
        if path.stem in OTHERS:
            with pytest.raises(UserError, match=r"line \d+: \[\w+\] is of networks"):
                cfg.read(path)
            continue
        read = cfg.read(path)
        assert read.net.whole("channels", 3) > 0, path
        assert len(read.layers) > 1, path
