"""Joint likelihoods: shared parameters, Poisson and Gaussian parts together, and what does not go together."""

import itertools

import jax
import numpy as np
import pytest

import cevjax
from cevjax.analysis import build_likelihood
from cevjax.errors import InvalidValueError, ParameterClashError

NAMES = ("coherent-csi-2021", "coherent-lar-2020", "dresden-ii-2022", "conus-plus-2025")


@pytest.fixture(scope="module")
def alone():
    return {name: cevjax.Likelihood([cevjax.load(name)], cevjax.StandardModel()) for name in NAMES}


@pytest.fixture(scope="module")
def joint():
    return cevjax.Likelihood([cevjax.load(name) for name in NAMES[:3]], cevjax.StandardModel())


def random_point(like, seed):
    rng = np.random.default_rng(seed)
    moved = {}
    for name in like.nuisances:
        parameter = like.parameters[name]
        moved[name] = float(np.clip(parameter.nominal + 0.5 * parameter.scale * rng.normal(), *parameter.bounds))
    return like.nominal(**moved, sin2_theta_w=0.2 + 0.05 * rng.random())


def penalties(like, params, names):
    constraints = {name: like.parameters[name].constraint for name in names}
    return sum(0.5 * ((params[n] - c.mean) / c.sigma) ** 2 for n, c in constraints.items() if c)


@pytest.mark.parametrize("seed", range(3))
def test_is_the_sum_of_its_parts_with_shared_constraints_counted_once(joint, alone, seed):
    params = random_point(joint, seed)
    parts = [alone[m.name] for m in joint.measurements]
    total = sum(float(like.nll({n: params[n] for n in like.nominal()})) for like in parts)
    names = [name for like in parts for name in like.nuisances]
    twice = penalties(joint, params, [name for name in set(names) if names.count(name) == 2])
    assert float(joint.nll(params)) == pytest.approx(total - twice, rel=1e-12)
    assert twice > 0


def test_shares_the_flux_of_the_source_and_nothing_else(alone):
    for a, b in itertools.combinations(NAMES, 2):
        common = set(alone[a].nuisances) & set(alone[b].nuisances)
        assert common == ({"sns_flux"} if {a, b} == set(NAMES[:2]) else set())


def test_shares_the_nuclides_of_two_germanium_detectors(alone):
    like = cevjax.Likelihood([cevjax.load("dresden-ii-2022"), cevjax.load("conus-plus-2025")], cevjax.StandardModel())
    assert len(like.parameters) == len(alone["dresden-ii-2022"].parameters) + len(
        set(alone["conus-plus-2025"].parameters) - set(alone["dresden-ii-2022"].parameters)
    )


def test_flux_is_moved_by_the_common_pull_in_both(joint):
    nominal, moved = (joint.expected(joint.nominal(sns_flux=pull)) for pull in (0.0, 1.0))
    for name in NAMES[:2]:
        ratio = float(moved[name]["cevns"].sum() / nominal[name]["cevns"].sum())
        assert ratio == pytest.approx(1.10, rel=1e-12)


@pytest.mark.slow
def test_gradient_agrees_with_finite_differences(joint):
    params = random_point(joint, 7)
    gradient = jax.grad(joint.nll)(params)
    for name in ("sin2_theta_w", "sns_flux", "R_n_Ar40", "dresden_decay", "lar2020_timing", "dresden_fission_U235"):
        scale = joint.parameters[name].scale
        ahead, behind = (float(joint.nll({**params, name: params[name] + h * scale})) for h in (1e-4, -1e-4))
        assert float(gradient[name]) * scale == pytest.approx((ahead - behind) / 2e-4, rel=1e-5, abs=1e-6)


def test_vmap_agrees_with_a_loop(joint):
    values = np.linspace(0.2, 0.28, 3)
    params = joint.nominal()
    batch = jax.vmap(lambda x: joint.nll({**params, "sin2_theta_w": x}))(values)
    loop = [float(joint.nll({**params, "sin2_theta_w": x})) for x in values]
    np.testing.assert_allclose(batch, loop, rtol=1e-13)


def test_clash_of_definitions_names_both_owners():
    data = [cevjax.load("coherent-csi-2021", form_factor="klein-nystrand"), cevjax.load("cryocsi-1")]
    with pytest.raises(
        ParameterClashError, match="R_n_Cs133.*measurement coherent-csi-2021 and by measurement"
    ) as error:
        cevjax.Likelihood(data, cevjax.StandardModel())
    assert all(word in str(error.value) for word in ("R_n_Cs133", "measurement cryocsi-1", "5.09"))


def test_different_couplings_need_a_choice():
    data = [cevjax.load("coherent-csi-2021"), cevjax.load("coherent-lar-2020", statistic="2005.01645")]
    with pytest.raises(InvalidValueError, match="2023, erler-su"):
        cevjax.Likelihood(data, cevjax.StandardModel())
    like = cevjax.Likelihood(data, cevjax.StandardModel(couplings="tree"))
    assert {m.sigma is None for m in like.measurements} == {True, False}


def test_electrons_are_asked_of_those_data_that_may_count_them():
    names = ("coherent-csi-2021", "coherent-lar-2020")
    like = build_likelihood(names, ["magnetic-moment"], statistic="2211.11905", es=True)
    expected = like.expected(like.nominal(mu_nu_e=1e-9))
    assert "es" in expected["coherent-csi-2021"] and "es" not in expected["coherent-lar-2020"]
    with pytest.raises(cevjax.errors.UnknownNameError, match="'es'"):
        build_likelihood(names[1:], ["magnetic-moment"], es=True)


def test_no_event_counts_twice():
    data = [cevjax.load("coherent-csi-2021"), cevjax.load("coherent-csi-2017")]
    with pytest.raises(InvalidValueError, match="coherent-csi-2021 contains those of coherent-csi-2017"):
        cevjax.Likelihood(data, cevjax.StandardModel())
