"""Installing: the requirements, a clone on Windows, and a package outside the repository."""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from smai_lib.core import paths
from tests.conftest import output_of

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def requirements(name: str) -> list[str]:
    """Return the lines of a file of requirements without comments."""
    lines = (paths.ROOT / name).read_text(encoding="utf-8").splitlines()
    return [re.split(r"\s+#", line)[0] for line in lines if line and not line.startswith("#")]


def test_the_requirements_are_those_of_the_package_each_with_its_reason():
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *extras["lab"], *extras["test"]]
    assert requirements("requirements.txt") == listed
    assert requirements("requirements-cluster.txt") == extras["cluster"]
    text = (paths.ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"^\w.*\s# \S+", text, re.MULTILINE)) == len(listed)


def test_the_lock_has_every_requirement():
    locked = {re.split("==", line)[0] for line in requirements("requirements.lock")}
    names = {re.split(r"[<>=]", line)[0] for line in requirements("requirements.txt")}
    assert names <= locked


def test_a_clone_that_converts_line_ends_keeps_every_recorded_byte(tmp_path):
    if not (paths.ROOT / ".git").exists():
        pytest.skip("needs a clone of the repository")
    output_of("git", "clone", "-q", "-c", "core.autocrlf=true", paths.ROOT, tmp_path / "clone")
    for folder in ("results", "weights"):
        copy = tmp_path / "clone" / "report" / folder
        output_of("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS", cwd=copy)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package installed in it, not editable."""
    source = tmp_path_factory.mktemp("source")  # since a build leaves files behind
    shutil.copytree(paths.PACKAGE, source / "smai_lib")
    shutil.copy(paths.ROOT / "pyproject.toml", source)
    folder = tmp_path_factory.mktemp("site-packages")
    install = ["install", "-q", "--no-deps", "--no-build-isolation", "--target", folder]
    output_of(*PIP, *install, source)
    return folder


@pytest.mark.slow
def test_an_installed_package_uses_the_repository_around_the_current_folder(installed, tmp_path):
    code = "import smai_lib as smai; print(smai.__file__); smai.load_study('q1_lambda').results"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    assert str(installed) in output_of(*command, cwd=paths.NOTEBOOKS, env=environment)
    with pytest.raises(AssertionError, match="IntegrityError: no recorded results"):
        output_of(*command, cwd=tmp_path, env=environment)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_requirements_resolve_for_python_3_14(tmp_path):
    wheels = [line for line in requirements("requirements.txt") if not line.startswith("fvcore")]
    lookup = [*PIP, "index", "versions", "numpy"]
    if subprocess.run(lookup, capture_output=True, check=False).returncode:
        pytest.skip("needs a package index")
    only_3_14 = ["--python-version", "3.14", "--only-binary", ":all:", "--target", tmp_path]
    out = output_of(*PIP, "install", "--dry-run", "--ignore-installed", *only_3_14, *wheels)
    assert "Would install" in out
