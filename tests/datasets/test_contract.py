"""What every data set must do with every interaction."""

import functools
import inspect

import jax
import numpy as np
import pytest

import cevjax
from cevjax.errors import UnknownNameError
from cevjax.interactions import interaction
from cevjax.interactions.base import contributes
from cevjax.registry import dataset_loader, dataset_names, interaction_names

pytestmark = pytest.mark.slow
# the contract of the interactions has the CsI data of 2021; germanium at one reactor stands for that at the other
OTHERS = [name for name in dataset_names() if name not in ("coherent-csi-2021", "dresden-ii-2022")]
# the dipole portal is the slowest of all: only the CsI data have it
BEYOND = [name for name in interaction_names() if name not in ("standard-model", "dipole-portal")]


def offered(name):
    return inspect.signature(dataset_loader(name)).parameters


def build(data, electrons, model=None):
    measurement = cevjax.load(data, **({"es": electrons} if "es" in offered(data) else {}))
    like = cevjax.Likelihood([measurement], cevjax.StandardModel() + model if model else cevjax.StandardModel())

    @jax.jit
    def evaluate(params):
        """The nll, its gradient and the counts, compiled once for all."""
        nll, gradient = jax.value_and_grad(like.nll)(params)
        return nll, gradient, like.expected(params)[data]

    return like, evaluate


@pytest.fixture(scope="module", params=OTHERS)
def standard(request):
    """The data set, and its nll and counts in the standard model: (electrons count) -> (nll, counts)."""

    @functools.cache
    def values(electrons):
        like, evaluate = build(request.param, electrons)
        nll, _, counts = evaluate(like.nominal())
        return float(nll), counts

    return request.param, values


def active(like, model):
    """A point at which the interaction acts: its parameters a tenth of a search range away from nominal."""
    values = {}
    for p in model.parameters:
        if not p.members and p.name in like.parameters:
            start, end = p.encode(p.nominal), p.encode(p.search_range()[1])
            values[p.name] = float(p.decode(start + 0.1 * (end - start)))
    if "m_4" in values:
        values["m_4"] = 0.1  # recoils that the detectors see, from the neutrinos of a reactor too
    return like.nominal(**values)


@pytest.mark.parametrize("name", BEYOND)
def test_interactions(standard, name):
    """The standard model where it is switched off; counts and derivatives of all kinds where it acts."""
    data, values = standard
    model = interaction(name)
    electrons = contributes(model, "electrons")
    value, counts = values(electrons)
    like, evaluate = build(data, electrons, model)
    nominal = like.nominal()
    if name == "axial":  # it has no standard-model limit: its coupling is known
        nominal["g_A"] = 0.0
    nll, _, usual = evaluate(nominal)
    np.testing.assert_allclose(usual["cevns"], counts["cevns"], rtol=1e-9, atol=1e-12)
    assert float(nll) == pytest.approx(value, rel=1e-7)  # electrons have other recoil nodes where more can act on them
    nll, gradient, moved = evaluate(active(like, model))
    assert np.isfinite(nll) and all(np.isfinite(g) for g in gradient.values())
    for component, counts in moved.items():
        assert np.all(np.isfinite(counts)), component
    assert np.all(np.asarray(moved["cevns"]) >= 0)
    assert ("es" in moved) == (electrons and "es" in offered(data))
    if "es" in moved:
        assert np.all(np.asarray(moved["es"]) >= 0) and np.any(moved["es"] != usual["es"])


@pytest.mark.parametrize("data", [name for name in OTHERS if "es" not in offered(name)])
def test_electrons_only_where_they_are_counted(data):
    with pytest.raises(UnknownNameError, match="'es'"):
        cevjax.load(data, es=True)
