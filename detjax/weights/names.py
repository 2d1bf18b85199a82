"""Parameter names of each source for our modules.

Our dotted paths follow torchvision's state-dict keys: a key is the path with its last
word translated by `LEAVES`. Other sources have a list of (pattern, replacement) pairs
that turn our names into theirs, all applied in order.
"""

import re
from collections.abc import Callable, Collection

from detjax.errors import UserError

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

Rename = tuple[str, str | Callable[[re.Match], str]]


def _lower(offset: int, form: str) -> Callable[[re.Match], str]:
    """A replacement that puts (offset - first group) into `form`."""
    return lambda m: form.format(offset - int(m[1]))


# The authors count backbone stages from 0 and pyramid levels from the coarsest.
YOLACT: list[Rename] = [
    (r"^backbone\.layer(\d+)\.", lambda m: f"backbone.layers.{int(m[1]) - 1}."),
    # Darknet: a convolution and its norm are items 0 and 1 of a list.
    (r"^backbone\.stem\.", "backbone._preconv."),
    (r"^(backbone\..*)\.conv\.", r"\1.0."),
    (r"^(backbone\..*)\.bn\.", r"\1.1."),
    (r"^fpn\.inner_blocks\.(\d)\.0\.", _lower(2, "fpn.lat_layers.{}.")),
    (r"^fpn\.layer_blocks\.(\d)\.0\.", _lower(2, "fpn.pred_layers.{}.")),
    (
        r"^fpn\.extra_blocks\.p(\d)\.",
        lambda m: f"fpn.downsample_layers.{int(m[1]) - 6}.",
    ),
]

# Keys that the authors' loader drops too: leftovers in their first files.
LEFTOVERS = {
    "yolact": r"^backbone\.layer\d|^fpn\.downsample_layers\.[2-9]\.",
}

# Names in files of torchvision's first detectors, which torchvision too renames when it
# loads them.
FORMER: dict[str, list[Rename]] = {
    "torchvision": [
        (r"(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
        (r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
        (
            r"^roi_heads\.mask_head\.mask_fcn(\d)\.",
            lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.",
        ),
        # DenseNet's, from before torch forbade dots in names.
        (r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2."),
    ]
}

# RetinaNet's first file counts its convolutions with the ReLUs between; FCOS's has the
# same names for others, with norms between.
_RETINANET_BEFORE = "head.classification_head.conv.2.weight"
_RETINANET: Rename = (
    r"^(head\.\w+\.conv)\.(\d)\.(weight|bias)$",
    lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}",
)

# Darknet's files have no names; `weights.darknet` gives them these.
SOURCES: dict[str, list[Rename]] = {
    "torchvision": [],
    "yolact": YOLACT,
    "darknet": [],
    # Classifiers whose modules have their names.
    "timm": [],
    "megvii": [],
    "caffe": [],
    "lenet": [],
}


def spell(path: str, source: str) -> str:
    """The key of `source` for our dotted `path`, as 'backbone.conv1.kernel'.

    Raises UserError for an unknown source.
    """
    if source not in SOURCES:
        raise UserError(f"no source is called {source!r}; choose one of {[*SOURCES]}")
    stem, _, leaf = path.rpartition(".")
    key = f"{stem}.{LEAVES.get(leaf, leaf)}"
    for pattern, replacement in SOURCES[source]:
        key = re.sub(pattern, replacement, key)
    return key


def modern(key: str, source: str, keys: Collection[str] = ()) -> str:
    """The current name in `source` of `key`, which may be an older name.

    Some names mean one thing or another by the others in their file, its `keys`.
    """
    renames = FORMER.get(source, [])
    if source == "torchvision" and _RETINANET_BEFORE in keys:
        renames = [*renames, _RETINANET]
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key
