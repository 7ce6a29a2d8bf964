"""Provenance: two computations have the same identity if, and only if, their results are the same."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest

import cevjax
from cevjax import provenance
from cevjax.fluxes import PionDecayAtRest
from cevjax.interactions.generalized import NucleonCharges
from cevjax.parameters import Gaussian

CSI, CONUS, DRESDEN = "coherent-csi-2021", "conus-plus-2025", "dresden-ii-2022"


def likelihood(*names, of=None, **choices):
    return cevjax.Likelihood([cevjax.load(name, **choices) for name in names], of or cevjax.StandardModel())


def identity(like):
    return provenance.identity(like, "scan")


@pytest.fixture(scope="module")
def csi():
    return likelihood(CSI)


# --- hashes


def test_hashes_are_those_of_what_was_loaded(csi):
    found = provenance.hashes(csi)
    assert found == provenance.hashes(likelihood(CSI)) and [*found] == [CSI]
    assert re.fullmatch("[0-9a-f]{16}", found[CSI])
    both = provenance.hashes(likelihood(CSI, DRESDEN))
    assert both[CSI] == found[CSI] and both[DRESDEN] not in found.values()


def test_hashes_know_the_data(csi):
    counts = np.array(csi.measurements[0].observed)
    assert provenance.hashes(csi.with_observed([counts])) == provenance.hashes(csi)
    counts[3, 4] += 1
    assert provenance.hashes(csi.with_observed([counts])) != provenance.hashes(csi)


@pytest.mark.parametrize(
    "where",
    [
        lambda m: m.components[1].energy,
        lambda m: m.components[0].response.quenching.coefficients,
        lambda m: m.components[0].scatterers.atoms,
        lambda m: m.components[1].time.source.plain,
    ],
    ids=["template", "quenching", "mass", "times"],
)
def test_hashes_know_every_table(csi, where):
    measurement = csi.measurements[0]
    other = eqx.tree_at(where, measurement, where(measurement) * (1 + 1e-12))
    assert provenance.hashes(csi.with_measurements([other])) != provenance.hashes(csi)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        (CSI, {"statistic": "2211.11905"}),
        (CSI, {"statistic": "2303.09360"}),
        (CSI, {"form_factor": "klein-nystrand"}),
        (CSI, {"es": True}),
        (DRESDEN, {"quenching": "ybe"}),
        (DRESDEN, {"flux": "efk"}),
        (DRESDEN, {"statistic": "2205.09484"}),
    ],
    ids=lambda x: x if isinstance(x, str) else "-".join(map(str, x.values())),
)
def test_hashes_know_the_choices(name, choices):
    default, other = likelihood(name), likelihood(name, **choices)
    assert provenance.hashes(default) != provenance.hashes(other)
    assert identity(default) != identity(other)


# --- identity


def test_equal_likelihoods_have_equal_identities(csi):
    assert identity(csi) == identity(likelihood(CSI))
    assert provenance.identity(csi, "toys") != identity(csi)


def test_identities_know_the_auxiliary_measurements_and_parameters(csi):
    data = csi.data
    moved = csi.with_data(data._replace(auxiliary=data.auxiliary.at[0].set(0.5)))
    assert identity(moved) != identity(csi)

    measurement = cevjax.load(CONUS)
    parameter = measurement.nuisances[0]
    for change in ({"constraint": Gaussian(0.0, 2.0)}, {"bounds": (-3.0, 3.0)}, {"scale": 0.5}):
        other = replace(measurement, nuisances=(replace(parameter, **change),))
        like = cevjax.Likelihood(other, cevjax.StandardModel())
        assert identity(like) != identity(likelihood(CONUS)), change


INTERACTIONS = {
    "sm": cevjax.StandardModel(),
    "tree": cevjax.StandardModel(couplings="tree"),
    "exact": cevjax.StandardModel(exact_kinematics=True),
    "nsi": cevjax.StandardModel() + cevjax.NSI(),
    "complex nsi": cevjax.StandardModel() + cevjax.NSI(complex_entries=True),
    "nsi on tree level": cevjax.StandardModel(couplings="tree") + cevjax.NSI(),
    "radius": cevjax.StandardModel() + cevjax.ChargeRadius(),
    "b-l": cevjax.StandardModel() + cevjax.LightVector(model="b-l"),
    "universal": cevjax.StandardModel() + cevjax.LightVector(model="universal"),
    "b-2le-lmu": cevjax.StandardModel() + cevjax.LightVector(model="b-2le-lmu"),
    "b-3le": cevjax.StandardModel() + cevjax.LightVector(model="b-3le"),
    "scalar": cevjax.StandardModel() + cevjax.LightScalar(),
    "generalized": cevjax.StandardModel() + cevjax.Generalized(),
}


@pytest.mark.slow
def test_identities_know_the_interaction_and_its_choices():
    """Those of one name, with the same parameters, differ too: a scan must not continue that of another model."""
    known = {}
    for label, of in INTERACTIONS.items():
        key = json.dumps(identity(likelihood(CONUS, of=of)), sort_keys=True)
        assert key not in known, f"{label} is {known[key]}"
        known[key] = label


def test_identities_know_what_an_interaction_holds():
    one, other = (cevjax.Generalized(nucleon_charges=NucleonCharges(14.0, x)) for x in (14.0, 15.0))
    with_each = [likelihood(CONUS, of=cevjax.StandardModel() + term) for term in (one, other)]
    assert identity(with_each[0]) != identity(with_each[1])


def test_identities_know_what_is_no_array(csi):
    """Bins, and relative errors of normalisations, are not among the arrays of a measurement."""
    measurement = csi.measurements[0]
    norm = replace(measurement.components[1].norm, pulls=(("csi2021_brn", 0.5),))
    larger = eqx.tree_at(lambda m: m.components[1].norm, measurement, norm)
    (name, edges), *rest = measurement.axes
    shifted = replace(measurement, axes=((name, (*edges[:-1], edges[-1] + 1.0)), *rest))
    for other in (larger, shifted):
        assert identity(csi.with_measurements([other])) != identity(csi)


def test_identities_of_asimov_data_tell_what_they_are(csi):
    assert identity(csi.asimov(csi.nominal(sin2_theta_w=0.25))) != identity(csi.asimov(csi.nominal(sin2_theta_w=0.26)))


def test_everything_is_json(csi):
    for facts in (identity(csi), provenance.provenance(csi, "scan")):
        assert json.loads(json.dumps(facts)) == facts


CODE = """
import json, sys, cevjax
from cevjax import provenance
of = cevjax.StandardModel() + cevjax.LightVector(model="b-l")
like = cevjax.Likelihood([cevjax.load(n) for n in sys.argv[1:]], of)
print(json.dumps(provenance.identity(like, "scan"), sort_keys=True))
"""


@pytest.mark.slow
def test_identities_are_the_same_in_every_process():
    names = (CSI, DRESDEN)
    environment = {"PYTHONHASHSEED": "7", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    found = subprocess.run(
        [sys.executable, "-c", CODE, *names], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    here = identity(likelihood(*names, of=cevjax.StandardModel() + cevjax.LightVector(model="b-l")))
    assert json.loads(found.stdout) == here
    assert PionDecayAtRest.__name__ not in found.stdout and " at 0x" not in found.stdout


def test_provenance_says_where_and_when(csi):
    found = provenance.provenance(csi, "scan")
    assert {k: v for k, v in found.items() if k in identity(csi)} == identity(csi)
    assert datetime.fromisoformat(found["created"]).tzinfo is not None
    assert found["machine"] and found["cevjax"] and found["command"] == "scan"
    assert found["commit"] == provenance.commit()


def test_labels():
    found = provenance.labels(likelihood(CSI))
    assert found["R_n_CsI"] == (r"$R_n(\mathrm{CsI})$", "fm")
    assert found["csi2021_brn"] == ("csi2021_brn", "sigma")


# --- the commit

FIRST, SECOND = "0123456789abcdef0123456789abcdef01234567", "fedcba9876543210fedcba9876543210fedcba98"


@pytest.fixture
def git(tmp_path):
    folder = tmp_path / ".git"
    folder.mkdir()
    return folder


def test_commit_of_a_branch(git):
    (git / "HEAD").write_text("ref: refs/heads/some/branch\n")
    (git / "refs/heads/some").mkdir(parents=True)
    (git / "refs/heads/some/branch").write_text(FIRST + "\n")
    (git / "packed-refs").write_text(f"{SECOND} refs/heads/some/branch\n")  # an older state
    assert provenance.commit(git.parent) == FIRST


def test_commit_of_a_packed_branch(git):
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text(
        f"# pack-refs with: peeled fully-peeled sorted \n{FIRST} refs/heads/main2\n{SECOND} refs/heads/main\n^{FIRST}\n"
    )
    assert provenance.commit(git.parent) == SECOND


def test_commit_without_a_branch(git):
    (git / "HEAD").write_text(FIRST + "\n")
    assert provenance.commit(git.parent) == FIRST


def test_no_commit(git, tmp_path):
    assert provenance.commit(git.parent) == ""  # nothing is there
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert provenance.commit(git.parent) == ""  # nothing is committed
    (git / "packed-refs").write_text(f"{FIRST} refs/heads/other\n")
    assert provenance.commit(git.parent) == ""
    assert provenance.commit(tmp_path / "nowhere") == ""
    file = tmp_path / "worktree"
    file.mkdir()
    (file / ".git").write_text("gitdir: /somewhere/else\n")
    assert provenance.commit(file) == ""


def test_commit_of_this_checkout():
    root = Path(cevjax.__file__).parents[1]
    if not (root / ".git").is_dir() or not shutil.which("git"):
        pytest.skip("not in a checkout")
    head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        pytest.skip("git refuses to read the checkout")
    assert provenance.commit() == head.stdout.strip()
