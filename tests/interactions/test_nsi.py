"""Vector NSI against an explicit flavour algebra in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cevjax.form_factors import form_factor
from cevjax.interactions import NSI, StandardModel, strengths
from cevjax.nuclear_model import BoundNucleus
from cevjax.nuclei import nucleus

ENTRIES = {"ee": (0, 0), "mumu": (1, 1), "tautau": (2, 2), "emu": (0, 1), "etau": (0, 2), "mutau": (1, 2)}
NAMES = [f"eps_{quark}V_{entry}" for quark in "ud" for entry in ENTRIES]
ZERO = {"sin2_theta_w": 0.23857, **dict.fromkeys(NAMES, 0.0)}
Q = 40.0


def bound(name, R_p=4.8, R_n=4.8):
    return BoundNucleus(nucleus(name), form_factor("helm"), jnp.asarray(R_p), jnp.asarray(R_n))


@functools.cache
def rate(name, R_n=4.8):
    """Strength of each incoming flavour in SM + NSI, jitted in the twelve couplings."""

    @jax.jit
    def function(eps):
        params = {**ZERO, **dict(zip(NAMES, eps, strict=True))}
        return strengths(StandardModel("tree") + NSI(), params, bound(name, R_n=R_n), jnp.array(Q))["vector"]

    return function


def explicit(name, eps, R_n=4.8):
    """sum_b |Q_ba|^2 with the matrices written out."""
    Z, N = nucleus(name).Z, nucleus(name).N
    helm = form_factor("helm")
    protons, neutrons = Z * float(helm(Q, 4.8)), N * float(helm(Q, R_n))
    up, down = np.zeros((3, 3)), np.zeros((3, 3))
    for matrix, values in ((up, eps[:6]), (down, eps[6:])):
        for (b, a), value in zip(ENTRIES.values(), values, strict=True):
            matrix[b, a] = matrix[a, b] = value
    charge = (0.02286 * protons - 0.5 * neutrons) * np.eye(3)
    charge += (2 * up + down) * protons + (up + 2 * down) * neutrons
    return np.array([sum(charge[b, a] ** 2 for b in range(3)) for a in range(3)])


def couplings(**values):
    return np.array([values.get(name, 0.0) for name in NAMES])


def test_parameter_names():
    assert [p.name for p in NSI().parameters] == NAMES
    assert all(p.nominal == 0 and p.constraint is None for p in NSI().parameters)


@pytest.mark.parametrize("name", ["Cs133", "Ar40"])
@given(eps=hnp.arrays(float, 12, elements=st.floats(-1, 1)))
@settings(max_examples=50, deadline=None)
def test_sum_of_squares_over_outgoing_flavours(name, eps):
    np.testing.assert_allclose(rate(name, 5.1)(eps), explicit(name, eps, 5.1), rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("name", ["Cs133", "Ar40", "Ge73"])
def test_no_couplings_is_exactly_the_standard_model(name):
    q = jnp.linspace(0.0, 100.0, 20)
    both = strengths(StandardModel("tree") + NSI(), ZERO, bound(name), q)["vector"]
    np.testing.assert_array_equal(both, strengths(StandardModel("tree"), ZERO, bound(name), q)["vector"])


def test_flavour_changing_part_is_not_inside_the_linear_charge():
    # the rate is even in a lone off-diagonal coupling; added linearly to the charge it would be far from even
    plus, minus, zero = (np.asarray(rate("Cs133")(couplings(eps_uV_emu=e))) for e in (0.1, -0.1, 0.0))
    np.testing.assert_allclose(plus, minus, rtol=1e-14)
    assert plus[0] > zero[0] and plus[1] > zero[1]
    assert plus[2] == zero[2]


def test_flavour_diagonal_part_interferes():
    # destructive for small positive couplings: the standard-model charge is negative
    small = np.asarray(rate("Cs133")(couplings(eps_dV_ee=0.02)))
    zero = np.asarray(rate("Cs133")(couplings()))
    assert small[0] < zero[0]
    np.testing.assert_array_equal(small[1:], zero[1:])


@pytest.mark.parametrize(("name", "Z", "N"), [("Cs133", 55, 78), ("Ar40", 18, 22), ("Ge74", 32, 42)])
@pytest.mark.parametrize("entry", ENTRIES)
def test_degeneracy_of_up_and_down(name, Z, N, entry):
    # along eps_d = -(2Z + N)/(Z + 2N) eps_u nothing changes, when protons and neutrons have one form factor
    zero = np.asarray(rate(name)(couplings()))
    for up in (-0.5, 0.1, 0.7):
        down = -(2 * Z + N) / (Z + 2 * N) * up
        along = couplings(**{f"eps_uV_{entry}": up, f"eps_dV_{entry}": down})
        np.testing.assert_allclose(rate(name)(along), zero, rtol=1e-12)
        across = couplings(**{f"eps_uV_{entry}": up, f"eps_dV_{entry}": -down})
        assert not np.allclose(rate(name)(across), zero, rtol=1e-2)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_cancellation_and_mirror_solution(factor):
    # a diagonal coupling that shifts the charge by -Q switches a flavour off; by -2Q it mirrors the standard model
    Z, N = 55, 78
    standard = 0.02286 * Z - 0.5 * N
    found = rate("Cs133")(couplings(eps_dV_mumu=-factor * standard / (Z + 2 * N)))
    zero = np.asarray(rate("Cs133")(couplings()))
    np.testing.assert_allclose(found, zero * [1, (1 - factor) ** 2, 1], rtol=1e-13, atol=1e-25 * zero[1])


def test_gradient_at_the_standard_model():
    # 2 Q dQ/deps for the diagonal couplings of the flavour, nothing for the others
    Z, N, nuclear = 55, 78, float(form_factor("helm")(Q, 4.8))
    jacobian = np.asarray(jax.jacfwd(rate("Cs133"))(couplings()))
    truth = np.zeros((3, 12))
    for flavour in range(3):
        truth[flavour, flavour] = 2 * Z + N
        truth[flavour, 6 + flavour] = Z + 2 * N
    truth *= 2 * (0.02286 * Z - 0.5 * N) * nuclear**2
    np.testing.assert_allclose(jacobian, truth, rtol=1e-12, atol=1e-10)


def test_jit_equals_eager_equals_vmap():
    points = np.linspace(-0.5, 0.5, 36).reshape(3, 12)
    mapped, loop = jax.vmap(rate("Cs133"))(points), np.stack([rate("Cs133")(p) for p in points])
    np.testing.assert_allclose(mapped, loop, rtol=1e-14)
    with jax.disable_jit():
        np.testing.assert_allclose(rate("Cs133")(points[0]), loop[0], rtol=1e-14)
