"""Configs by name, from files, and as parts of an installed package."""

import pathlib
import subprocess
import sys
import tomllib

import pytest

from detjax import __main__ as command
from detjax import cli, config_files
from detjax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
MINE = """
from configs import quickstart

def get_config():
    config = quickstart.get_config()
    config.train.steps = 7
    return config
"""


def test_a_config_is_found_by_name_path_and_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # away from the clone
    shipped = str(ROOT / "configs" / "quickstart.py")
    assert config_files.find("quickstart") == shipped
    assert config_files.find("configs/quickstart.py") == shipped
    (tmp_path / "mine.py").write_text(MINE)
    assert config_files.find("mine.py") == "mine.py"
    assert config_files.load("mine.py").train.steps == 7
    assert config_files.load("quickstart").train.steps == 1400
    with pytest.raises(
        UserError, match=r"no config configs/quickstrat\.py; did you mean"
    ):
        config_files.find("configs/quickstrat.py")
    with pytest.raises(
        UserError, match=r"no config nine\.py; did you mean \S*mine\.py\?"
    ):
        config_files.find("nine.py")
    with pytest.raises(UserError, match=r"'quickstar' \(did you mean 'quickstart'\?\)"):
        config_files.find("quickstar")
    with pytest.raises(UserError, match=r"no config none\.py"):
        config_files.load("none.py")


def test_flags_may_name_one():
    found = str(ROOT / "configs" / "quickstart.py")
    for argv in (["x", "--config=quickstart", "a"], ["x", "--config", "quickstart"]):
        assert found in " ".join(cli.with_paths(argv))
    other = ["x", "--config.data.name=quickstart", "quickstart"]
    assert cli.with_paths(other) == other


def test_every_package_and_command_is_listed():
    held = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = held["tool"]["setuptools"]["packages"]
    folders = {p.parent for p in (ROOT / "detjax").rglob("__init__.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert {*listed} == names | {"detjax.configs"}
    files = {p.stem for p in (ROOT / "detjax" / "commands").glob("*.py")}
    commands = {name.replace("-", "_") for name in command.COMMANDS}
    assert commands == files - {"__init__"}
    assert {p.stem for p in config_files.paths()} == {
        p.stem for p in (ROOT / "configs").glob("*.py")
    }


def test_the_command_lists_helps_and_refuses(capsys, monkeypatch):
    def said(*arguments):
        monkeypatch.setattr(sys, "argv", ["detjax", *arguments])
        command.main()
        return capsys.readouterr().out

    assert all(name in said() for name in command.COMMANDS)
    assert said("--version").startswith("detjax ")
    with pytest.raises(SystemExit):
        said("trian")
    assert "'trian' is no command" in capsys.readouterr().err


@pytest.mark.parametrize(
    "script, flags",
    [
        ("train", ["--workdir", "--profile", "--config"]),
        ("evaluate", ["--split", "--best", "--config.SECTION.KEY"]),
        ("predict", ["--min_score", "--tile", "--debug"]),
    ],
)
def test_help_lists_the_flags(script, flags):
    done = subprocess.run(
        [sys.executable, f"scripts/{script}.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(flag in done.stdout for flag in flags), done.stdout
    assert "tensorflow" not in done.stdout
