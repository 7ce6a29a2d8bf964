"""What is installed: the data come with the package and are those of the manifest."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = "coherent-csi-2021"
DATA = sorted((ROOT / "data").iterdir())


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("folder", DATA, ids=lambda folder: folder.name)
def test_data_are_those_of_the_manifest(folder):
    manifest = tomllib.loads((folder / "manifest.toml").read_text())
    assert manifest["name"] == folder.name
    found = {
        path.relative_to(folder).as_posix(): digest(path) for path in files(folder) if path.name != "manifest.toml"
    }
    assert found == manifest["sha256"]["derived"]


def test_all_studies_are_to_be_installed():
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    listed = {file for file in included["force-include"] if file.startswith("experiments/")}
    found = {file.relative_to(ROOT).as_posix() for file in (ROOT / "experiments").glob("*/analysis.toml")}
    assert listed == found and all(included["force-include"][file] == f"cevjax/{file}" for file in listed)


def run(*words, **options):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("build")
    skipped = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "shared", "*.egg-info")
    shutil.copytree(ROOT, folder / "source", ignore=skipped)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", folder / "source", "--no-deps", "-w", folder / "wheel")
    (path,) = (folder / "wheel").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("target")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


def python(installed, folder, *words):
    """Python with the installed package first on its path, in an empty folder outside the checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(installed), "JAX_PLATFORMS": "cpu"}
    return run(sys.executable, *words, cwd=folder, env=environment)


@pytest.mark.slow
def test_the_wheel_holds_code_and_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for folder in DATA:
            for path in files(folder):
                inside = f"cevjax/data/{path.relative_to(ROOT / 'data').as_posix()}"
                assert inside in names and archive.read(inside) == path.read_bytes()
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cevjax").rglob("*.py")}
    studies = {f"cevjax/{f.relative_to(ROOT).as_posix()}" for f in (ROOT / "experiments").glob("*/analysis.toml")}
    assert code | studies <= names and studies
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"cevjax"}
    assert not any("__pycache__" in name or "tests" in name for name in names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert "cevjax = cevjax.cli:main" in archive.read(entry).decode()


@pytest.mark.slow
def test_the_installed_package_fits(installed, tmp_path):
    where = "import cevjax, cevjax.tables as b; print(cevjax.__file__); print(b.data_dir('coherent-csi-2021'))"
    package, data = map(Path, python(installed, tmp_path, "-c", where).split())
    assert package == installed / "cevjax" / "__init__.py"
    assert data == installed / "cevjax" / "data" / NAME
    text = python(installed, tmp_path, "-m", "cevjax.cli", "fit", NAME, "--statistic", "2303.09360", "--json", "-")
    fit = json.loads(text)
    assert fit["chi2_min"] == pytest.approx(84.28, abs=0.05)
    assert fit["converged"] is True
    listed = json.loads(python(installed, tmp_path, "-m", "cevjax.cli", "reproduce", "--json", "-"))["studies"]
    assert "2211.11905" in [study["name"] for study in listed]
    assert not list(tmp_path.iterdir())
