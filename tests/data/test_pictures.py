"""The pictures of folders."""

import pytest

from detjax.data import pictures
from detjax.errors import MissingFileError


def test_pictures_below_a_folder(tmp_path):
    names = ["b.JPG", "a/c.avif", "a/d.txt", "._b.jpg", ".git/e.png", "a/.f.png", "z"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert pictures.below(tmp_path) == ["a/c.avif", "b.JPG"]
    assert pictures.below(tmp_path, (".txt",)) == ["a/d.txt"]
    assert pictures.inside(tmp_path) == ["b.JPG"]
    with pytest.raises(MissingFileError):
        pictures.below(tmp_path / "nowhere")
