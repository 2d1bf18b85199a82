"""What transfer is worth: tables by the number of training pictures a class.

    python scripts/transfer.py signs DIR --init_from=WEIGHTS --backbone=mobilenet_v2 \\
        --top='features\\.1[4-8]\\.'
    python scripts/transfer.py detect DIR --init_from=RUN --configs=retinanet_bccd

`signs` compares scratch, frozen, fine-tuned and staged training, and a linear probe, on
hands that show digits ($DETJAX_DATA/sign_digits_100): 5, 20, 50 and all (80) pictures a
class, always judged on the same 20. Staged training sets the head free first, then the
layers that --top names, then all. `detect` compares a detector from scratch with one
from the weights at equal steps. A run that is done is not repeated; the tables so far
are in DIR as well.
"""

import argparse
import json
import os
import pathlib
import shutil

import jax
import numpy as np

from detjax import config_files, experiment, models, parameters, probe, run
from detjax.errors import UserError
from detjax.weights import source

SIGNS = pathlib.Path(os.environ.get("DETJAX_DATA", "../shared/data"), "sign_digits_100")
HELD_OUT = 20  # pictures of a class that are judged


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("signs", "detect"))
    parser.add_argument("folder", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--init_from", required=True)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--width", type=int)
    parser.add_argument(
        "--top", default=r"\.layer4\.", help="the last layers, a regex; a ResNet's"
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--shots", default="5,20,50,80")
    parser.add_argument("--ways", default="scratch,probe,frozen,fine-tuned,staged")
    parser.add_argument("--configs", default="retinanet_nuclei,retinanet_bccd")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--peak", type=float, default=1e-3)
    flags = parser.parse_args()
    try:
        if flags.what == "signs" and "staged" in flags.ways.split(","):
            check_top(flags)
    except UserError as error:
        parser.error(f"--top={flags.top} does not suit {flags.backbone}: {error}")
    flags.folder.mkdir(parents=True, exist_ok=True)
    table = signs(flags) if flags.what == "signs" else detect(flags)
    (flags.folder / f"{flags.what}.md").write_text(table)
    print(table)


def check_top(flags: argparse.Namespace) -> None:
    """Raises UserError if --top names no layer, before anything is trained."""
    settings = experiment.resolve(of_signs(flags, "staged", 1, {}))
    model = models.make(**{**settings["model"], "num_classes": 10})
    images = np.zeros((1, flags.size, flags.size, 3), np.uint8)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), images)
    parameters.check_names(params, model.spec.groups, **settings["optimizer"])


def signs(flags: argparse.Namespace) -> str:
    """Top-1 by the way of transfer (rows) and pictures a class (columns)."""
    shots, ways = [int(n) for n in flags.shots.split(",")], flags.ways.split(",")
    found: dict[str, list[float]] = {way: [] for way in ways}
    for n in shots:
        splits = pictures(flags.folder / "pictures", n)
        for way in ways:
            workdir = flags.folder / f"{way}-{n}"
            held = workdir / "eval.json"
            if not held.exists():
                made = of_signs(flags, way, n, splits)
                if way == "probe":
                    probe.probe(made, workdir, shots=(), folds=2)
                else:
                    run.train(made, workdir)
            found[way].append(json.loads(held.read_text())["top1"])
    lines = [["top-1", *(f"{n} a class" for n in shots)], ["---"] * (1 + len(shots))]
    lines += [[way, *(f"{value:.1%}" for value in found[way])] for way in ways]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def pictures(folder: pathlib.Path, n: int) -> dict[str, str]:
    """The folders of `n` pictures a class, copied, and of those held out."""
    train, held_out = folder / f"train{n}", folder / "val"
    for path in sorted(p for p in SIGNS.iterdir() if p.is_dir()):
        files = sorted(path.iterdir())
        order = np.random.default_rng(0).permutation(len(files))
        for target, part in (
            (held_out, order[:HELD_OUT]),
            (train, order[HELD_OUT : HELD_OUT + n]),
        ):
            (target / path.name).mkdir(parents=True, exist_ok=True)
            for i in part:
                copied = target / path.name / files[i].name
                if not copied.exists():
                    shutil.copyfile(files[i], copied)
    return {"train": str(train), "val": str(held_out)}


def of_signs(flags: argparse.Namespace, way: str, n: int, splits: dict) -> object:
    """The config of one way to learn the digits."""
    made = config_files.load("sign_digits").to_dict()
    made["model"]["backbone"] = {"name": flags.backbone}
    # Scratch sees the same.
    made["model"]["pixels"] = source.pixels(flags.init_from) or "imagenet"
    if flags.width:
        made["model"]["backbone"]["width"] = flags.width
    made["data"] |= {
        "name": f"signs{n}",
        "data_dir": str(flags.folder / "datasets"),
        "prepare": {"format": "folders", "splits": splits},
        "size": (flags.size, flags.size),
        "batch_size": flags.batch_size,
    }
    schedule = {"peak": flags.peak, "warmup_steps": flags.steps // 10}
    made["optimizer"]["schedule"] = schedule
    made["train"] = {"steps": flags.steps, "checkpoint_every": 10_000}
    if way != "scratch":
        made["train"]["init_from"] = flags.init_from
    if way in ("frozen", "staged"):
        made["optimizer"]["freeze"] = "all but head"
    if way == "fine-tuned":
        made["optimizer"]["rates"] = {"backbone": 0.1}
    if way == "staged":
        third = flags.steps // 3
        made["optimizer"]["unfreeze"] = ((third, flags.top), (2 * third, "all"))
        made["optimizer"]["rates"] = {"backbone": 0.1}
    return experiment.config(made)


def detect(flags: argparse.Namespace) -> str:
    """AP and AP50 of boxes from scratch and from the weights, at equal steps."""
    lines = [["data", "start", "AP", "AP50"], ["---"] * 4]
    for name in flags.configs.split(","):
        for way in ("scratch", "transfer"):
            made = config_files.load(name).to_dict()
            made["data"]["data_dir"] = str(flags.folder / "datasets")
            made["train"] = {"steps": flags.steps, "checkpoint_every": 10_000}
            made["optimizer"]["schedule"] = {"peak": flags.peak, "warmup_steps": 30}
            if way == "transfer":
                made["train"]["init_from"] = flags.init_from
            workdir = flags.folder / f"{name}-{way}"
            if not (workdir / "eval.json").exists():
                run.train(experiment.config(made), workdir)
            held = json.loads((workdir / "eval.json").read_text())
            ap, ap50 = (held[f"bbox/{metric}"] for metric in ("AP", "AP50"))
            lines.append([name, way, f"{ap:.3f}", f"{ap50:.3f}"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
