"""Lists read row by row are what json reads at once."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detjax.data.formats import jsonwalk

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=3), VALUES), max_size=4)


def walked(path, *names):
    found = {name: [] for name in names}
    takes = {
        name: lambda row, start, end, name=name: found[name].append((row, start, end))
        for name in names
    }
    return jsonwalk.walk(path, takes, "end"), found


@given(ROWS, ROWS, VALUES, st.sampled_from([None, 1]))
def test_rows_and_their_texts(tmp_path_factory, first, second, other, indent):
    path = tmp_path_factory.getbasetemp() / "walked.json"
    content = {"a": first, "other": other, "b": second}
    path.write_text(f" {json.dumps(content, indent=indent)}\n")
    text, found = walked(path, "a", "b")
    for name in "ab":
        assert [row for row, _, _ in found[name]] == content[name]
        assert [json.loads(text[i:j]) for _, i, j in found[name]] == content[name]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": [{"x": 1}], ', "line 1, column 19 .*too early"),
        ('{"a": [{"x": 1}', "line 1, column 16 .*too early"),
        ('{"a": []} x', "line 1, column 11 .*Extra data"),
        ('{"a": [] "b"}', "line 1, column 10 .*','"),
        ('{"a" []}', "line 1, column 6 .*':'"),
        ("{a: []}", "line 1, column 2 .*property name"),
        ('{\n"a": [{},]}', r"line 2, column 10"),
        ('{"a": [], "a": []}', "has 'a' twice"),
        ("{}", "has no list of a; end"),
        ("3", "has no list of a; end"),
        ('{"a": {}}', "has no list of a; end"),
        ('{"a": [[]]}', "has no list of a; end"),
        ('{"a": ' + "[" * 100_000, "cannot be read as JSON"),
        ('{"b": ' + "[" * 100_000, "cannot be read as JSON"),
        ('{"a": [{"x": ' + "1" * 5000 + "}]}", "cannot be read as JSON"),
    ],
)
def test_what_is_not_such_a_file(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        walked(path, "a")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_of_byte_order(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_text('{"a": [{"ü": "猫"}]}', encoding=encoding)
    assert walked(path, "a")[1]["a"][0][0] == {"ü": "猫"}
