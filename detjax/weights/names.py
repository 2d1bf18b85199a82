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

# MobileNets' layers, which are items of a list in torchvision's networks for pixels. A
# VGG's, as in SSD, are so too and keep the list's name there.
_SEGMENTATION: list[Rename] = [
    (r"^backbone\.features\.(\d+\.(?:\d+|block|conv)\.)", r"backbone.\1")
]
# The authors' PSPNet: its stem is one list with ReLUs, its stages have no prefix.
SEMSEG: list[Rename] = [
    (r"^backbone\.conv(\d)\.", lambda m: f"layer0.{3 * int(m[1]) - 3}."),
    (r"^backbone\.bn(\d)\.", lambda m: f"layer0.{3 * int(m[1]) - 2}."),
    (r"^backbone\.layer", "layer"),
]
# jfzhang95's DeepLabV3+.
JFZHANG: list[Rename] = [
    (r"^aspp\.convs\.4\.(\d)\.", r"aspp.global_avg_pool.\1."),
    (
        r"^aspp\.convs\.(\d)\.([01])\.",
        lambda m: f"aspp.aspp{int(m[1]) + 1}.{('atrous_conv', 'bn')[int(m[2])]}.",
    ),
    (r"^aspp\.project\.0\.", "aspp.conv1."),
    (r"^aspp\.project\.1\.", "aspp.bn1."),
]
# Gated-SCNN's authors have no prefix, and ASPP's branches are one list; the image's
# mean has a name of its own.
GSCNN: list[Rename] = [
    (r"^backbone\.", ""),
    (r"^aspp\.convs\.4\.(\d)\.", lambda m: f"aspp.img_conv.{int(m[1]) - 1}."),
    (r"^aspp\.convs\.", "aspp.features."),
]
# CornerNet's authors have no prefix; CornerNet-Lite has one and names of its own.
CORNERNET: list[Rename] = [(r"^backbone\.", "")]
CORNERNET_LITE: list[Rename] = [
    (r"^backbone\.kps\.", "hg.hgs."),
    (r"^backbone\.", "hg."),
    (r"^(tl|br)_cnvs\.", r"\1_modules."),
    (r"^(tl|br)_regrs\.", r"\1_offs."),
]
# CenterNet's heads are lists of their own; on hourglasses one for each of these, whose
# first convolution is a block.
CENTERNET: list[Rename] = [
    (r"^backbone\.body\.(base_layer|level\d)\.", r"base.\1."),
    (r"^backbone\.(body\.)?", ""),
    (r"^(hm|wh|reg|hps|hm_hp|hp_offset)\.0\.", r"\1."),
]
CENTERNET_HOURGLASS: list[Rename] = [
    (r"^backbone\.", ""),
    (r"^((?:hm|wh|reg|hps|hm_hp|hp_offset)\.\d)\.0\.", r"\1.0.conv."),
    (r"^((?:hm|wh|reg|hps|hm_hp|hp_offset)\.\d)\.2\.", r"\1.1."),
]
# What torch's DataParallel puts before all names.
_PARALLEL: Rename = (r"^module\.", "")

# Keys that nothing reads: leftovers in the authors' files.
LEFTOVERS = {
    "yolact": r"^backbone\.layer\d|^fpn\.downsample_layers\.[2-9]\.",
    # DLA's authors have layers that nothing reads, and CenterNet's keep its classifier.
    "timm": r"^level[34]\.project\.",
    "centernet": r"^base\.(level[34]\.project|fc)\.",
}

# Names in files of torchvision's first detectors, which torchvision too renames when it
# loads them.
FORMER: dict[str, list[Rename]] = {
    "semseg": [_PARALLEL],
    "jfzhang": [_PARALLEL],
    "gscnn": [_PARALLEL],
    "cornernet": [_PARALLEL],
    "cornernet_lite": [_PARALLEL],
    "centernet": [_PARALLEL],
    "centernet_hourglass": [_PARALLEL],
    "torchvision": [
        _PARALLEL,
        (r"(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
        (r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
        (
            r"^roi_heads\.mask_head\.mask_fcn(\d)\.",
            lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.",
        ),
        # DenseNet's, from before torch forbade dots in names.
        (r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2."),
    ],
}

# RetinaNet's first file counts its convolutions with the ReLUs between; FCOS's has the
# same names for others, with norms between.
_RETINANET_BEFORE = "head.classification_head.conv.2.weight"
_RETINANET: Rename = (
    r"^(head\.\w+\.conv)\.(\d)\.(weight|bias)$",
    lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}",
)


def _grouped(step: int) -> Callable[[re.Match], str]:
    """A replacement of torchvision's VGG-16 layers by Caffe's: conv3_1, conv3_1_bn.

    From a convolution to the next there are `step` layers, and one between groups.
    """

    def name(found: re.Match) -> str:
        layer = int(found[1])
        for group, depth in enumerate((2, 2, 3, 3, 3), start=1):
            if layer < depth * step:
                kind = "_bn" if layer % step else ""
                return f"conv{group}_{layer // step + 1}{kind}."
            layer -= depth * step + 1
        return found[0]

    return name


_VGG_LAYER = r"^backbone\.features\.(\d+)\."

# Darknet's files have no names; `weights.darknet` gives them these.
SOURCES: dict[str, list[Rename]] = {
    "torchvision": _SEGMENTATION,
    "semseg": SEMSEG,
    "jfzhang": JFZHANG,
    "gscnn": GSCNN,
    "cornernet": CORNERNET,
    "cornernet_lite": CORNERNET_LITE,
    "centernet": CENTERNET,
    "centernet_hourglass": CENTERNET_HOURGLASS,
    "yolact": YOLACT,
    "darknet": [],
    # Classifiers whose modules have their names.
    "timm": [],
    "megvii": [],
    "caffe": [],
    "lenet": [],
    # Per-pixel networks on VGG-16.
    "fcn": [(_VGG_LAYER, _grouped(2))],
    "segnet": [(_VGG_LAYER, _grouped(3))],
    "hed": [(r"^backbone\.", "")],
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
