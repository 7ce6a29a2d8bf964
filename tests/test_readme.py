"""The README's own-interaction example, word for word, as a package that cevjax does not know."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import cevjax
from cevjax import registry, studies
from cevjax.analysis import read_runs
from cevjax.cli import app
from cevjax.datasets import statistics

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(language, holding):
    """The one code block of the README in ``language`` that holds a text."""
    (found,) = (b for b in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if holding in b)
    return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the example as an installed distribution."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "my_package.py").write_text(block("python", "class NeutronForce"))
    info = folder / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    group, line = re.fullmatch(r'\[project\.entry-points\."(.+)"\]\n(.+)\n', block("toml", "NeutronForce")).groups()
    (info / "entry_points.txt").write_text(f"[{group}]\n{line}\n".replace('"', ""))
    return folder


def command(installed, *words):
    path = os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "cevjax.cli", *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
        cwd=installed,
    )


def test_the_example_is_short():
    lines = [line for line in block("python", "class NeutronForce").splitlines() if line.strip()]
    assert len(lines) <= 20


def test_the_command_of_the_readme(installed):
    (words,) = re.findall(r"^    cevjax (interval .*neutron-force.*)$", README, re.MULTILINE)
    done = command(installed, *words.split(), "--json", "-")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["interaction"] == "standard-model + neutron-force"
    # nothing added is allowed, and so is the shift that turns the sign of the muon neutrino's charge
    mirror = -2 * (0.0300 * 54 / 76 - 0.5117)
    assert [low < value < high for (low, high), value in zip(found["intervals"], (0.0, mirror), strict=True)] == [
        True,
        True,
    ]


def test_it_is_listed(installed):
    done = command(installed, "list", "interactions", "--json", "-")
    (row,) = (r for r in json.loads(done.stdout)["interactions"] if r["name"] == "neutron-force")
    assert row["adds"] == "coherent" and row["parameters"] == "eps_n_mumu [1]" and row["source"] == "this README"


def test_every_interaction_is_in_the_table():
    from cevjax.registry import interaction_class, interaction_names

    for name in interaction_names():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", README, re.MULTILINE)
        assert all(source in row for source in re.findall(r"\d{4}\.\d{5}", interaction_class(name).source)), name


def test_the_detector_of_the_readme(tmp_path):
    (tmp_path / "measurement.toml").write_text(block("toml", "[quenching]"))
    detector = cevjax.load(str(tmp_path))
    assert detector.shape == (17,) and [c.name for c in detector.components] == ["cevns", "es", "flat"]
    flat = 10.0 * 3.0 * 365 * (1.0 - 0.15)
    assert float(detector.components[2].counts.sum()) == pytest.approx(flat)
    like = cevjax.Likelihood([detector], cevjax.StandardModel() + cevjax.MagneticMoment())
    ((_, high),) = cevjax.interval(like, "mu_nu_e").intervals
    assert high is not None and 1e-12 < high < 1e-9


def test_every_data_set_and_statistic_is_in_the_readme():
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| .* \| (`default`.*) \|$", README, re.MULTILINE)
    listed = {name: set(re.findall(r"`([^`]+)`", cell)) for name, cell in rows}
    assert listed == {name: set(statistics(name)) for name in registry.dataset_names()}


def test_the_analysis_file_of_the_readme(tmp_path):
    (tmp_path / "analysis.toml").write_text(block("toml", "[variant.csi]"))
    first, second, third = read_runs(tmp_path / "analysis.toml", typer.main.get_command(app).commands)
    assert (first.name, second.name, third.name) == ("plane-csi", "plane-both", "contours-2")
    assert second.words[:3] == ["scan", "coherent-csi-2021", "coherent-lar-2020"] and "plane-both.nc" in second.words
    assert third.words == ["contours", "plane-csi.nc", "plane-both.nc", "--plot", "plane.png,pdf"]


def test_the_study_of_the_readme(tmp_path):
    run = '[[run]]\nname = "angle"\ncommand = "interval"\ndatasets = ["coherent-lar-2020"]\npoi = "sin2_theta_w"\n'
    (tmp_path / "analysis.toml").write_text(block("toml", "[[row]]") + run)
    (row,) = studies.read_study(str(tmp_path), typer.main.get_command(app).commands).rows
    assert (row.run, row.of, row.published, row.agree, row.within) == ("angle", "best_fit", 0.31, 0.0075, 0.015)


def test_the_readme_names_every_command():
    for name in typer.main.get_command(app).commands:
        assert f"cevjax {name}" in README, name
