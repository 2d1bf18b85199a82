"""Who may know whom: every room's list, and names that nobody outside may know."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "detjax"
# What each room, or file beside the rooms, may import of the others. Models know no
# task, tasks no model; parity is used by nobody.
KNOWS = {
    "__main__": "config_files settings",
    "accumulate": "errors sharding types",
    "advise": "data embedding errors models probe similarity tasks weights",
    "answers": "data errors sharding types",
    "backbones": "errors nn settings",
    "best": "checkpoint errors log",
    "checkpoint": "cluster errors files integrity",
    "cli": "cluster compilation config_files errors files",
    "cluster": "errors",
    "commands": "advise cli compare_nms config_files data describe_models errors "
    "experiment explain export_darknet fit_anchors import_weights linear look "
    "map_flags models ops predict_files probe reference run settings tables tasks "
    "tiles",
    "compare_nms": "cli cluster eval evaluate files models ops plots run sharding "
    "tables tta types",
    "config_files": "errors files settings",
    "data": "errors files ops settings types",
    "describe_models": "backbones",
    "draw": "data errors files types",
    "embedding": "answers errors files parameters sharding types",
    "evaluate": "answers cluster errors eval files log plots preemption sharding "
    "tables tta types",
    "experiment": "data errors evaluate models optim sections settings sharding tasks "
    "train tta",
    "explain": "data draw embedding errors eval files models nn ops parameters plots "
    "predict predict_paths settings tasks types",
    "export_darknet": "errors files models predict weights",
    "files": "errors",
    "fit_anchors": "cli data errors models ops plots priors types",
    "import_darknet": "data errors files models weights",
    "import_weights": "backbones data errors files import_darknet models weights",
    "integrity": "errors files",
    "log": "cluster compilation errors files",
    "look": "cli data draw errors plots tasks types",
    "losses": "types",
    "map_flags": "errors",
    "models": "backbones errors losses nn ops settings types",
    "nn": "errors ops types",
    "ops": "types",
    "optim": "errors parameters settings unfreezing",
    "parameters": "errors",
    "parity": "backbones data errors explain files models nn ops types weights",
    "plots": "errors files",
    "predict": "checkpoint compilation data errors files models predictor tasks tiles "
    "tta types",
    "predict_files": "answers data draw errors files predict predict_paths predictor",
    "predict_paths": "data draw errors files",
    "predictor": "answers data sharding types",
    "preemption": "cluster",
    "priors": "data models ops types",
    "probe": "checkpoint cli data embedding errors experiment files linear models "
    "optim resume run sharding tasks train types",
    "progress": "cluster data draw log plots tensorboard types",
    "replay": "checkpoint cluster errors files types",
    "reference": "experiment models settings",
    "resume": "cluster data errors experiment optim predict",
    "run": "checkpoint cli cluster data draw errors evaluate experiment files models "
    "optim parameters predict priors progress replay resume settings sharding tables "
    "tasks tensorboard train types weights",
    "sections": "models",
    "settings": "errors",
    "sharding": "errors nn settings types",
    "tables": "types",
    "tasks": "data draw errors eval nn ops plots settings types",
    "tiles": "data errors ops types",
    "train": "accumulate best checkpoint cluster errors files log models nn optim "
    "preemption replay settings sharding types weights",
    "tta": "errors ops settings types",
    "unfreezing": "errors parameters",
    "weights": "backbones checkpoint errors files models types",
    # Nothing but the standard library and what is installed.
    "compilation": "",
    "errors": "",
    "eval": "ops types",
    "linear": "",
    "similarity": "errors",
    "tensorboard": "",
    "types": "",
}
DARKNET = [
    PACKAGE / name
    for name in ("import_darknet.py", "export_darknet.py", "weights/darknet.py")
]
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"tensorflow", "torch", "torchvision"}
# What a kind of file may need from elsewhere; the others may need what they like.
PURE = {
    "ops": {"jax", "numpy", "jaxtyping"},
    "nn": {"jax", "numpy", "jaxtyping", "flax"},
}
# What takes long to load, and only some commands use.
SLOW = [
    "cv2",
    "matplotlib",
    "orbax",
    "pycocotools",
    "scipy",
    "sklearn",
    "supervision",
    "tensorboardX",
    "tensorflow_datasets",
]


def imports(path):
    """The modules that `path` imports, with whether at the top of the file."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield node.module, top
            yield from ((f"{node.module}.{alias.name}", top) for alias in node.names)


def room(parts):
    return parts[1].removesuffix(".py") if len(parts) > 1 else ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_what_it_may_know(path):
    here = room(path.relative_to(PACKAGE.parent).parts)
    known = {here, *KNOWS.get(here, "").split()}
    for name, top in imports(path):
        there = room(name.split("."))
        if name.startswith("detjax.") and there in KNOWS:
            assert there in known, name
        if name.split(".")[0] in HEAVY:
            # torch only where a user hands in a torch file, and only then.
            assert here == "weights", name
            assert not top, name
        if here in PURE:
            installed = PURE[here] | {"detjax"} | sys.stdlib_module_names
            assert name.split(".")[0] in installed, name


def test_the_list_has_every_room_and_no_circle():
    rooms = {room(path.relative_to(PACKAGE.parent).parts) for path in FILES} - {
        "",
        "__init__",
    }
    assert rooms == KNOWS.keys()
    left = {here: set(known.split()) for here, known in KNOWS.items()}
    while left:
        lowest = {here for here, known in left.items() if not known & left.keys()}
        assert lowest, f"these know each other in a circle: {sorted(left)}"
        left = {here: known for here, known in left.items() if here not in lowest}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_models_and_tasks_are_known_by_no_name(path):
    """Outside their rooms they are found in a dict, but for parity's sources.

    Weight files of darknet come with a description of their network.
    """
    here = room(path.relative_to(PACKAGE.parent).parts)
    if here in ("models", "tasks", "parity") or path in DARKNET:
        return
    for name, _ in imports(path):
        parts = name.split(".")
        if parts[:2] in (["detjax", "models"], ["detjax", "tasks"]) and len(parts) > 2:
            inner = PACKAGE / parts[1] / parts[2]
            named = inner.is_dir() or inner.with_suffix(".py").exists()
            # What every family shares is no family.
            assert not named or parts[2] in ("earlier", "ema"), name


BUILT_ON = {
    "localisation": ("classification", "detection"),
    "scene": ("dense", "joint", "segmentation"),
}
# What several families of models are made with.
WIRING = "pixelwise"


def test_families_do_not_know_each_other():
    for folder in ("models", "backbones", "tasks"):
        for path in (PACKAGE / folder).rglob("*.py"):
            family = path.relative_to(PACKAGE / folder).parts[0].removesuffix(".py")
            if family == "__init__":
                continue
            for name, _ in imports(path):
                there = name.split(".")
                if there[:2] == ["detjax", folder] and len(there) > 2:
                    # A task may read the data sets of another, and then builds on it.
                    known = family, WIRING, *BUILT_ON.get(family, ())
                    assert there[2] in known, (path, name)


@pytest.mark.parametrize(
    ("module", "unused"),
    [
        ("detjax.models", SLOW),
        ("detjax.train", ["matplotlib", "orbax", "sklearn", "supervision", "scipy"]),
        ("detjax.run", ["matplotlib", "sklearn", "supervision", "tensorboardX"]),
    ],
)
def test_what_is_slow_to_load_waits_for_its_use(module, unused):
    code = f"import sys, {module}; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {*found.stdout.split()} & {*unused} == set()


# What serves every task, and what only maps of pixels have.
OF_ALL_TASKS = (
    *("train", "evaluate", "predict", "predict_files", "predict_paths", "predictor"),
    *("experiment", "draw", "answers", "tta", "tiles", "run", "commands/predict"),
)
OF_PIXELS = (
    *("labelmap", "labelscores", "valuemap", "segmentation"),
    *("dense", "depth", "palette"),
)


@pytest.mark.parametrize("name", OF_ALL_TASKS)
def test_what_serves_every_task_knows_no_map_of_pixels(name):
    """Neither names nor texts of the code; docstrings do not count."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if id(node) in documented:
            continue
        said = [
            value
            for field in ("id", "attr", "name", "arg", "module", "value")
            if isinstance(value := getattr(node, field, None), str)
        ]
        for text in said:
            plain = text.lower().replace("_", "")
            assert not any(word in plain for word in OF_PIXELS), (name, text)
