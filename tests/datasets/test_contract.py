"""What every data set must do with every interaction."""

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
OTHERS = [name for name in dataset_names() if name not in ("coherent-csi-2021", "conus-plus-2025")]
BEYOND = [name for name in interaction_names() if name != "standard-model"]


def without_electrons(name):
    offered = inspect.signature(dataset_loader(name)).parameters
    return cevjax.load(name, **({"es": False} if "es" in offered else {}))


@pytest.fixture(scope="module", params=OTHERS)
def standard(request):
    like = cevjax.Likelihood([without_electrons(request.param)], cevjax.StandardModel())
    return like, float(like.nll(like.nominal()))


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
def test_interactions_on_nuclei(standard, name):
    like, value = standard
    if (like.measurements[0].name, name) == ("dresden-ii-2022", "dipole-portal"):
        pytest.skip("the slowest of all; test_interactions_on_electrons has it, nuclei included")
    model = interaction(name)
    with_it = cevjax.Likelihood([without_electrons(like.measurements[0].name)], cevjax.StandardModel() + model)
    nominal = with_it.nominal()
    if name == "axial":  # it has no standard-model limit: its coupling is known
        nominal["g_A"] = 0.0
    assert float(with_it.nll(nominal)) == pytest.approx(value, rel=1e-9)
    params = active(with_it, model)
    nll, gradient = jax.value_and_grad(with_it.nll)(params)
    assert np.isfinite(nll) and all(np.isfinite(g) for g in gradient.values())
    expected = with_it.expected(params)[like.measurements[0].name]["cevns"]
    assert np.all(np.isfinite(expected)) and np.all(expected >= 0)


@pytest.mark.parametrize("name", [name for name in BEYOND if contributes(interaction(name), "electrons")])
@pytest.mark.parametrize("data", OTHERS)
def test_interactions_on_electrons(data, name):
    """More electrons recoil where something acts on them, in those detectors that count them."""
    if "es" not in inspect.signature(dataset_loader(data)).parameters:
        with pytest.raises(UnknownNameError, match="'es'"):
            cevjax.load(data, es=True)
        return
    model = interaction(name)
    like = cevjax.Likelihood([cevjax.load(data)], cevjax.StandardModel() + model)
    params = active(like, model)
    standard, moved = (np.asarray(like.expected(p)[data]["es"]) for p in (like.nominal(), params))
    assert np.all(np.isfinite(moved)) and np.all(moved >= 0) and np.any(moved != standard)
    gradient = jax.grad(like.nll)(params)
    assert all(np.isfinite(g) for g in gradient.values())
