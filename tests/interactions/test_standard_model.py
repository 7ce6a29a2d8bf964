"""The standard-model weak charge against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cevjax.errors import UnknownNameError
from cevjax.form_factors import form_factor
from cevjax.interactions import StandardModel, strengths
from cevjax.nuclear_model import BoundNucleus
from cevjax.nuclei import nucleus
from cevjax.rates import differential_cross_section

NOMINAL = {"sin2_theta_w": 0.23857}
# published couplings (e, mu, tau, neutron), and how well four decimals fix Z g_p + N g_n
PUBLISHED = {
    "tree": (0.02286, 0.02286, 0.02286, -0.5),
    "erler-su": (0.0401, 0.0318, 0.0275, -0.50947),
    "2023": (0.0382, 0.0300, 0.0256, -0.5117),
}


def bound(name, model="point", R_p=4.8, R_n=5.1):
    return BoundNucleus(nucleus(name), form_factor(model), jnp.asarray(R_p), jnp.asarray(R_n))


@pytest.mark.parametrize("couplings", PUBLISHED)
@pytest.mark.parametrize(("name", "Z", "N"), [("Cs133", 55, 78), ("Ar40", 18, 22)])
def test_charge_of_a_point_nucleus(couplings, name, Z, N):
    *proton, neutron = PUBLISHED[couplings]
    charge = np.asarray(StandardModel(couplings).weak_charge(NOMINAL, bound(name), jnp.array([0.0, 40.0])))
    assert charge.shape == (3, 3, 2)
    truth = np.diag(Z * np.array(proton) + N * neutron)
    np.testing.assert_allclose(charge, np.repeat(truth[..., None], 2, 2), atol=5e-5 * (Z + N))


def test_flavours_do_not_mix():
    charge = np.asarray(StandardModel().weak_charge(NOMINAL, bound("Cs133", "helm"), jnp.array(40.0)))
    assert np.all(charge[~np.eye(3, dtype=bool)] == 0)
    assert np.all(np.diag(charge) != 0)


def test_protons_and_neutrons_have_their_own_form_factor():
    model, cs = StandardModel("tree"), bound("Cs133", "helm", R_p=4.8, R_n=5.5)
    q = jnp.array(40.0)
    helm = form_factor("helm")
    truth = 55 * 0.02286 * float(helm(q, 4.8)) - 78 * 0.5 * float(helm(q, 5.5))
    np.testing.assert_allclose(strengths(model, NOMINAL, cs, q)["vector"], [truth**2] * 3, rtol=1e-13)


def test_coherence_grows_with_the_square_of_the_neutron_number():
    # protons drop out at sin^2 theta_W = 1/4
    values = [
        float(strengths(StandardModel("tree"), {"sin2_theta_w": 0.25}, bound(n), jnp.array(0.0))["vector"][0])
        for n in ("C12", "Ar40", "Cs133")
    ]
    np.testing.assert_allclose(values, [9.0, 121.0, 1521.0], rtol=1e-14)


def test_default_couplings():
    q, cs = jnp.array(20.0), bound("Cs133")

    def charge(model):
        return np.asarray(model.weak_charge(NOMINAL, cs, q))

    np.testing.assert_array_equal(charge(StandardModel()), charge(StandardModel("2023")))
    np.testing.assert_array_equal(charge(StandardModel().with_couplings("tree")), charge(StandardModel("tree")))
    np.testing.assert_array_equal(
        charge(StandardModel("erler-su").with_couplings("tree")), charge(StandardModel("erler-su"))
    )


def test_unknown_couplings():
    with pytest.raises(UnknownNameError, match="Did you mean 'tree'"):
        StandardModel("treee")


def test_parameter():
    (s2w,) = StandardModel().parameters
    assert (s2w.name, s2w.nominal, s2w.bounds) == ("sin2_theta_w", 0.23857, (0.0, 1.0))
    assert s2w.constraint is None


def test_derivative_in_the_weak_mixing_angle():
    # d(Q^2)/ds = 2 Q dQ/ds, dQ/ds = -2 Z at tree level
    def section(s2w):
        model = StandardModel("tree")
        return differential_cross_section({"sin2_theta_w": s2w}, model, bound("Cs133"), 30.0, 0.005)

    value, slope = jax.jit(section)(0.23857), jax.jit(jax.jacfwd(section))(0.23857)
    np.testing.assert_allclose(slope / value, np.full(3, -4 * 55 / (55 * 0.02286 - 39)), rtol=1e-12)
