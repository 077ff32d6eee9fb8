"""What the project promises about itself."""

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_the_base_dependencies_are_three():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[a-z]+", requirement).group() for requirement in project["dependencies"]]
    assert names == ["numpy", "pillow", "tokenizers"]


def test_every_package_folder_is_installed():
    listed = (ROOT / "pyproject.toml").read_text().partition("packages = [")[2].partition("]")[0]
    installed = set(re.findall(r'"([\w.]+)"', listed))
    folders = {"vlrt": "vlrt", "export": "vlrt_export", "benchmarks": "vlrt_benchmarks"}
    there = {
        ".".join([folders[folder], *path.parent.relative_to(ROOT / folder).parts])
        for folder in folders
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert installed == there
