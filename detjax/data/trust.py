"""Security checks of a data set's files before tfds loads them.

tfds imports the module of every class named in features.json, so that loading an
untrusted data set could execute code.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from tensorflow_datasets.core.proto import dataset_info_pb2

from detjax import files
from detjax.errors import MissingFileError, UserError

# The classes of features that tasks declare.
_CORE = "tensorflow_datasets.core.features"
FEATURES = (
    "tensorflow_datasets.FeaturesDict",
    f"{_CORE}.bounding_boxes.BBoxFeature",
    f"{_CORE}.class_label_feature.ClassLabel",
    f"{_CORE}.features_dict.FeaturesDict",
    f"{_CORE}.image_feature.Image",
    f"{_CORE}.sequence_feature.Sequence",
    f"{_CORE}.tensor_feature.Tensor",
    f"{_CORE}.text_feature.Text",
)
_ADVICE = "make the data set anew or get it again"
# How JSON names a class, its older forms included.
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type", "proto_cls")
_KEYS = ("classes", "keypoints", "category_ids", "has_masks", "max_objects")


def check(directory: Path) -> None:
    """Raises UserError where the data set in `directory` names code, or lacks files."""
    _check_features(directory / "features.json")
    for path in directory.glob("*.labels.txt"):
        files.read_text(path)  # by name for tfds, which would block on a FIFO
    path = directory / "dataset_info.json"
    held = files.read_object(path, "name", "splits", "fileFormat", advice=_ADVICE)
    with files.reading(path, _ADVICE):
        if "/" in held["name"]:
            raise UserError(f"its name is {held['name']!r}, which lies elsewhere")
        if held["fileFormat"] != "array_record":
            raise UserError(f"its format is {held['fileFormat']!r}, not array_record")
        # As tfds reads it: JSON has two spellings of every key.
        try:
            parsed = json_format.ParseDict(held, dataset_info_pb2.DatasetInfo(), True)
        except json_format.ParseError as error:
            raise UserError(f"does not hold what it should ({error})") from None
        for text in (parsed.name, *_texts(parsed.splits)):
            if "/" in text or ".." in text:
                raise UserError(f"it names {text!r}, which lies elsewhere")


def _texts(splits: Any) -> Iterator[str]:
    """The file locations of the splits in a dataset_info."""
    for split in splits:
        yield from (split.name, split.filepath_template)


def _check_features(path: Path) -> None:
    held = files.read_object(path, advice=_ADVICE)
    for key, name in _named(held):
        if not isinstance(name, str) or name not in FEATURES:
            raise UserError(
                f"{path} names {name!r} as {key}, which would be run; the classes of "
                f"data sets made here are {', '.join(FEATURES)}; get the data set "
                "from somebody you trust, or make it anew"
            )


def _named(held: Any) -> Iterator[tuple[str, Any]]:
    """(key, value) of everything in `held` that names a class, at any depth."""
    waiting = [held]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            # A feature may be called "type"; what it is, is a dict.
            yield from (
                (key, value[key])
                for key in _CLASS_KEYS
                if key in value and not isinstance(value[key], dict)
            )
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def metadata(directory: Path) -> dict[str, Any]:
    """The content of metadata.json. Raises UserError that names a missing key."""
    return files.read_object(directory / "metadata.json", *_KEYS, advice=_ADVICE)


def check_records(path: Path, length: int) -> None:
    """Raises UserError if the record file `path` does not hold `length` records."""
    # Imported here: reading the JSON files takes none of it.
    from array_record.python import array_record_module

    if not path.is_file():
        raise MissingFileError(f"the record file {path} is not there; {_ADVICE}")
    found = 0
    if path.stat().st_size:
        # A reader of a broken file raises only when it is closed.
        with contextlib.suppress(RuntimeError), files.reading(path, _ADVICE):
            reader = array_record_module.ArrayRecordReader(str(path))
            found = reader.num_records()
            reader.close()
    if found != length:
        raise UserError(
            f"the record file {path} is cut off or damaged: it holds {found} records, "
            f"not {length}; {_ADVICE}"
        )
