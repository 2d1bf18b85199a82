"""Benchmark a data set of COCO's size: time and memory of each step.

    python scripts/scale.py DIR --images=100000

The data set is made by scripts/synthetic_coco.py with 14-digit ids and train2017's
faults; then it is prepared, a small YOLACT takes 20 steps on it, is evaluated on a
twentieth of it, and resumes for 20 more steps. Each is a process of its own, as a user
starts it. Seconds are wall-clock; memory is the largest resident size of a process and
of its children together.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIG = """
from configs import quickstart

def get_config():
    config = quickstart.get_config()
    config.data.prepare = None
    config.data.name = "synthetic"
    config.data.size = (128, 160)
    config.data.max_objects = 16
    config.model.backbone = "resnet10"
    config.train.log_every = 10
    return config
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--objects", type=int, default=8)
    flags = parser.parse_args()
    folder = flags.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    config, source = folder / "scale.py", folder / "source"
    config.write_text(CONFIG)
    train = [
        "train",
        f"--config={config}",
        f"--workdir={folder / 'run'}",
        f"--config.data.data_dir={folder / 'datasets'}",
    ]
    steps = {
        "made": [
            "synthetic_coco",
            source,
            f"--images={flags.images}",
            f"--objects={flags.objects}",
            "--ids=14-digit",
            "--faults",
        ],
        "prepared": [
            "make_dataset",
            "coco",
            "--name=synthetic",
            f"--out={folder / 'datasets'}",
            f"--images={source / 'images'}",
            f"--split=train={source / 'train.json'}",
            f"--split=val={source / 'val.json'}",
            "--on-error=skip",
        ],
        "found prepared": [],
        "20 steps, evaluated": [*train, "--config.train.steps=20"],
        "evaluated alone": ["evaluate", f"--workdir={folder / 'run'}"],
        "20 steps more, evaluated": [*train, "--config.train.steps=40"],
    }
    steps["found prepared"] = steps["prepared"]
    print("| step | seconds | MB at most |\n|---|---|---|")
    for name, (script, *arguments) in steps.items():
        seconds, megabytes = measured(script, *map(str, arguments))
        print(f"| {name} | {seconds:.1f} | {megabytes:.0f} |", flush=True)


def measured(script: str, *arguments: str) -> tuple[float, float]:
    """Seconds and megabytes of a script. Exits with its output if it fails."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    most = [0.0]
    watch = threading.Thread(target=follow, args=(process, most), daemon=True)
    watch.start()
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"{script} failed: {said[-2000:]}")
    return time.monotonic() - begin, most[0]


def follow(process: subprocess.Popen, most: list[float]) -> None:
    """Keeps the largest resident size, in MB, of a process and those below it."""
    page = os.sysconf("SC_PAGE_SIZE") / 1e6
    while process.poll() is None:
        parents, sizes = {}, {}
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                # Pages that are shared with others count once for each of them.
                sizes[int(path.name)] = int((path / "statm").read_text().split()[1])
            except (OSError, IndexError):
                continue
            parents[int(path.name)] = int(fields[1])
        total = sum(
            size for pid, size in sizes.items() if below(pid, process.pid, parents)
        )
        most[0] = max(most[0], total * page)
        time.sleep(0.2)


def below(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    """Whether a process is `ancestor` or descends from it."""
    while pid and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor


if __name__ == "__main__":
    main()
