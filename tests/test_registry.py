"""Plug-ins are found by name: the package's own, and those that other distributions offer."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

import cevjax
from cevjax import registry
from cevjax.datasets import load, statistics
from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.interactions import Interaction, interaction
from cevjax.tables import data_dir

NAME = "coherent-csi-2021"


def modules(package):
    found = {info.name for info in pkgutil.iter_modules(importlib.import_module(package).__path__)}
    return {name for name in found if name != "base" and not name.startswith("_")}


def test_every_file_is_found():
    names = registry.interaction_names()
    assert len(set(names)) == len(names)
    files = {registry.interaction_class(name).__module__.rpartition(".")[2] for name in names}
    assert modules("cevjax.interactions") <= files
    assert modules("cevjax.datasets") <= {name.replace("-", "_") for name in registry.dataset_names()}
    assert "base" not in registry.dataset_names()


@pytest.mark.parametrize("name", registry.interaction_names())
def test_interactions_answer_to_their_name(name):
    found = interaction(name)
    assert isinstance(found, Interaction) and found.name == name
    assert "interaction-sum" not in registry.interaction_names()


@pytest.mark.parametrize("name", registry.dataset_names())
def test_data_sets_answer_to_their_name(name):
    assert load(name).name == name
    assert "default" in statistics(name)
    for statistic in statistics(name):
        assert load(name, statistic=statistic).statistic == statistic


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="Unknown interaction 'nis'. Did you mean 'nsi'"):
        registry.interaction_class("nis")
    with pytest.raises(UnknownNameError, match="Unknown data set 'coherent-csi-2020'. Did you mean"):
        registry.dataset_loader("coherent-csi-2020")
    with pytest.raises(UnknownNameError, match="Did you mean 'statistic'"):
        load(NAME, statistics="default")
    for name in ("base", "InteractionSum", ""):
        with pytest.raises(UnknownNameError):
            registry.interaction_class(name)
        with pytest.raises(UnknownNameError):
            registry.dataset_loader(name)


def test_a_path_is_the_folder_of_a_detector(tmp_path, monkeypatch):
    ours = data_dir("future") / "ess-xe"
    assert load(str(ours)).name == "ess-xe"
    monkeypatch.chdir(ours.parent)
    assert registry.dataset_loader("ess-xe").args == (ours,)
    for missing in ("../base", str(tmp_path)):
        with pytest.raises(InvalidValueError, match="must be a folder with a file measurement.toml"):
            load(missing)


class Point:
    """What importlib.metadata says about an entry point."""

    def __init__(self, name, value):
        self.name, self.value = name, value

    def load(self):
        return self.value


@pytest.fixture
def offer(monkeypatch):
    def make(group, **plugins):
        points = {name.replace("_", "-"): Point(name, value) for name, value in plugins.items()}
        monkeypatch.setattr(registry, "_offered", lambda wanted: points if wanted == group else {})

    return make


def test_own_plug_ins_come_before_offered_ones(offer):
    offer("cevjax.interactions", nsi=lambda: pytest.fail("was used"))
    assert interaction("nsi").name == "nsi"
    assert registry.interaction_names().count("nsi") == 1
    offer("cevjax.datasets", coherent_csi_2021=lambda: pytest.fail("was used"))
    assert load(NAME).name == NAME


def test_a_data_set_must_be_a_measurement(offer):
    offer("cevjax.datasets", mine=lambda: {"counts": [1, 2]})
    with pytest.raises(InvalidValueError, match="'mine' must load as a Measurement, but gave dict"):
        load("mine")


# ------------------------------------------------------------------------------------------- another distribution

MODULE = '''
"""A package that knows cevjax, but that cevjax does not know."""
import dataclasses

import jax.numpy as jnp

import cevjax
from cevjax.interactions import Interaction
from cevjax.interactions.base import flavour_diagonal
from cevjax.parameters import Parameter

STATISTICS = ("default", "halved")


class NeutronForce(Interaction):
    """Couples to neutrons alone."""

    name = "neutron-force"
    source = "nowhere"

    @property
    def parameters(self):
        return (Parameter("g_neutron", bounds=(-1.0, 1.0), scale=0.05, window=(-0.2, 0.2)),)

    def weak_charge(self, params, nucleus, q):
        return flavour_diagonal(jnp.multiply.outer(jnp.full(3, params["g_neutron"]), nucleus.neutrons(q)))


def not_one():
    return "no interaction"


def load(statistic="default", weight="1"):
    csi = cevjax.load("coherent-csi-2021", statistic="2303.09360")
    observed = csi.observed * float(weight) / (2 if statistic == "halved" else 1)
    return dataclasses.replace(csi, name="outside-csi", statistic=statistic, observed=observed)
'''
ENTRY_POINTS = """
[cevjax.interactions]
neutron-force = outside_cevjax:NeutronForce
broken-force = outside_cevjax_broken:Force
no-force = outside_cevjax:not_one

[cevjax.datasets]
outside-csi = outside_cevjax:load
"""
SCRIPT = """
import json
import numpy as np
from typer.testing import CliRunner
import cevjax
from cevjax import registry
from cevjax.cli import app

cevjax.enable_compilation_cache()


def run(*words):
    result = CliRunner().invoke(app, [*words, "--json", "-"])
    return json.loads(result.stdout) if result.exit_code == 0 else {"error": result.stderr, "status": result.exit_code}


cheap = ("coherent-csi-2021", "--statistic", "2303.09360")
print(json.dumps({
    "interactions": registry.interaction_names(),
    "datasets": registry.dataset_names(),
    "force": run("predict", *cheap, "--interaction", "neutron-force", "--set", "g_neutron=0.3"),
    "unknown": run("predict", *cheap, "--interaction", "neutron-farce"),
    "fit": run("fit", "outside-csi:weight=2", "--statistic", "halved"),
    "own": run("fit", *cheap),
    "choice": run("fit", "outside-csi:weigth=2"),
    "statistics": cevjax.datasets.statistics("outside-csi"),
    "broken": run("predict", *cheap, "--interaction", "broken-force"),
    "none": run("predict", *cheap, "--interaction", "no-force"),
    "listed": {row["name"]: row["description"] for row in run("list", "interactions")["interactions"]},
}))
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """What a process sees that has another distribution with plug-ins, one of them broken, on its path."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "outside_cevjax.py").write_text(MODULE)
    (folder / "outside_cevjax_broken.py").write_text("raise ImportError('broken on purpose')\n")
    info = folder / "outside_cevjax-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-cevjax\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_plug_ins_of_other_distributions_are_found(outside):
    assert {"neutron-force", "broken-force", "no-force", *registry.interaction_names()} == set(outside["interactions"])
    assert {"outside-csi", *registry.dataset_names()} == set(outside["datasets"])
    assert outside["statistics"] == ["default", "halved"]


def test_an_interaction_from_outside_acts_as_one_from_inside(outside):
    """Neutrons alone are what quark couplings -g/3 (u) and 2g/3 (d) amount to."""
    assert outside["force"]["interaction"] == "standard-model + neutron-force"
    measurement = cevjax.load(NAME, statistic="2303.09360")
    like = cevjax.Likelihood([measurement], cevjax.StandardModel() + cevjax.NSI())
    couplings = {f"eps_{q}V_{f}": c for q, c in (("u", -0.1), ("d", 0.2)) for f in ("ee", "mumu", "tautau")}
    expected = like.expected(like.nominal(**couplings))[NAME]["cevns"]
    found = outside["force"]["datasets"][NAME]["components"]["cevns"]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_name_from_outside_is_offered(outside):
    assert outside["unknown"]["status"] == 2
    assert "Did you mean 'neutron-force'" in outside["unknown"]["error"]


def test_a_data_set_from_outside_is_fitted(outside):
    data = outside["fit"]
    assert (data["datasets"], data["statistic"]) == (["outside-csi"], "halved")
    assert data["observed"] == {"outside-csi": 1578}
    assert data["chi2_min"] == pytest.approx(outside["own"]["chi2_min"], abs=1e-8)
    assert "Did you mean 'weight'" in outside["choice"]["error"] and outside["choice"]["status"] == 2


def test_a_broken_plug_in_does_not_stop_the_others(outside):
    assert outside["own"]["converged"] is True


def test_a_parameter_of_an_interaction_that_was_left_out(csi_likelihood):
    with pytest.raises(
        UnknownNameError, match=r"'eps_uV_ee'.*belongs to the interaction 'nsi', which is not part.*add `NSI\(\)`"
    ):
        csi_likelihood("2303.09360").nominal(eps_uV_ee=0.1)
    with pytest.raises(UnknownNameError, match="Did you mean 'eps_uV_ee'"):
        csi_likelihood("2303.09360", nsi=True).nominal(eps_uV_e=0.1)


def test_a_broken_plug_in_spoils_nothing_but_itself(outside):
    said = {"broken": "cannot be loaded: ImportError('broken on purpose')", "none": "must make an Interaction"}
    for key, words in said.items():
        assert outside[key]["status"] == 2 and words in outside[key]["error"]
    assert "cannot be loaded" in outside["listed"]["broken-force"]
    assert outside["listed"]["neutron-force"] == "Couples to neutrons alone."


def test_paths_and_things_that_are_neither():
    folder = data_dir("future") / "ess-ge"
    assert load(folder).name == load(folder / "measurement.toml").name == "ess-ge"
    assert load(folder, form_factor="fermi").choices == (("form_factor", "fermi"),)
    for wrong in (None, 5, b"ess-ge"):
        with pytest.raises(InvalidValueError, match="by its name or the path of a folder"):
            load(wrong)


def test_an_own_detector_cannot_pass_for_known_data(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "measurement.toml").write_text((data_dir("future") / "ess-ge" / "measurement.toml").read_text())
    with pytest.raises(InvalidValueError, match="key `name` must be given, and not be that of a known data set"):
        load(folder)
