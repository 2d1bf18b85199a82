"""What the README tells users to type: known commands, snippets that run."""

import pathlib
import re
import shlex
import subprocess
import sys

import cv2
import numpy as np
import pytest

from detjax.commands import make_dataset

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.M | re.S)


def commands():
    """(script, arguments) of every line of the pages that starts one of ours."""
    found = []
    for path in PAGES:
        for block in blocks(path, "sh"):
            text = re.sub(r"\\\n\s*", " ", block)
            for line in re.findall(r"python scripts/.*", text):
                # Of a command inside another's quotes the last one is left over.
                line = line.removesuffix('"') if line.count('"') % 2 else line
                words = shlex.split(line, comments=True)
                found.append((words[1], words[2:]))
    return found


def test_there_are_commands():
    scripts = {script for script, _ in commands()}
    assert {
        f"scripts/{x}.py" for x in ("train", "predict", "look", "anchors")
    } <= scripts


@pytest.mark.parametrize("script", sorted({script for script, _ in commands()}))
def test_flags_are_known(script):
    assert (ROOT / script).is_file()
    given = [words for name, words in commands() if name == script]
    if script == "scripts/make_dataset.py":
        assert len({make_dataset.arguments(words)["format"] for words in given}) > 7
        return
    done = subprocess.run(
        [sys.executable, script, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for word in {word for words in given for word in words if word.startswith("--")}:
        flag = word.split("=")[0]
        known = "--config" if flag.startswith("--config.") else flag
        assert known in done.stdout, f"{script} {flag}"


@pytest.mark.long
def test_snippets_run_as_they_stand(tmp_path):
    """In their order, in one process, in a folder with a photograph."""
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.jpg"), image)
    code = "\n".join(blocks(ROOT / "README.md", "python"))
    assert code.count("import") > 5
    checks = (
        "assert metrics['segm/AP'] >= 0 and drawn.shape[2] == 3 and len(several) == 2\n"
    )
    code = code.replace("import jax\n", f"{checks}import jax\n", 1)
    code += "\nassert np.isfinite(loss) and detections.boxes.shape[0] == 1\n"
    (tmp_path / "snippets.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "snippets.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "TrainedModel(yolact, step 300" in done.stdout
