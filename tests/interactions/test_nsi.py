"""Vector and tensor NSI against an explicit flavour algebra in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import spherical_jn

from cevjax.form_factors import form_factor
from cevjax.interactions import NSI, StandardModel, TensorNSI, strengths
from cevjax.nuclear_model import BoundNucleus
from cevjax.nuclei import nucleus
from cevjax.rates import differential_cross_section

ENTRIES = {"ee": (0, 0), "mumu": (1, 1), "tautau": (2, 2), "emu": (0, 1), "etau": (0, 2), "mutau": (1, 2)}
NAMES = [f"eps_{quark}V_{entry}" for quark in "ud" for entry in ENTRIES]
IMAGINARY = [f"eps_{quark}V_{entry}_im" for quark in "ud" for entry in ("emu", "etau", "mutau")]
ZERO = {"sin2_theta_w": 0.23857, **dict.fromkeys(NAMES + IMAGINARY, 0.0)}
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


# complex entries


@functools.cache
def complex_rate(name, R_n=4.8):
    """Strength of each incoming flavour in SM + complex NSI, jitted in the eighteen couplings."""

    @jax.jit
    def function(eps):
        params = {**ZERO, **dict(zip(NAMES + IMAGINARY, eps, strict=True))}
        interaction = StandardModel("tree") + NSI(complex_entries=True)
        return strengths(interaction, params, bound(name, R_n=R_n), jnp.array(Q))["vector"]

    return function


def hermitian(real, imaginary):
    """Matrix of six real and three imaginary parts: epsilon_ba = conjugate(epsilon_ab)."""
    ee, mumu, tautau, emu, etau, mutau = real
    emu, etau, mutau = (x + 1j * y for x, y in zip((emu, etau, mutau), imaginary, strict=True))
    return np.array(
        [
            [ee, emu, etau],
            [np.conj(emu), mumu, mutau],
            [np.conj(etau), np.conj(mutau), tautau],
        ]
    )


def explicit_complex(name, eps, R_n=4.8):
    """sum_b |Q_ba|^2 with the hermitian matrices written out."""
    Z, N = nucleus(name).Z, nucleus(name).N
    protons, neutrons = Z * numpy_helm(Q, 4.8), N * numpy_helm(Q, R_n)
    up, down = hermitian(eps[:6], eps[12:15]), hermitian(eps[6:12], eps[15:])
    charge = (0.02286 * protons - 0.5 * neutrons) * np.eye(3) + 0j
    charge += (2 * up + down) * protons + (up + 2 * down) * neutrons
    return np.array([sum(abs(charge[b, a]) ** 2 for b in range(3)) for a in range(3)])


def numpy_helm(q, radius, s=0.9):
    hbarc = 197.3269804
    x = q / hbarc * (5 / 3 * (radius**2 - 3 * s**2)) ** 0.5
    return 3 * spherical_jn(1, x) / x * np.exp(-((q * s / hbarc) ** 2) / 2)


def complex_couplings(**values):
    return np.array([values.get(name, 0.0) for name in NAMES + IMAGINARY])


def test_names_of_the_complex_parameters():
    assert [p.name for p in NSI(complex_entries=True).parameters] == NAMES + IMAGINARY


@pytest.mark.parametrize("name", ["Cs133", "Ar40"])
@given(eps=hnp.arrays(float, 18, elements=st.floats(-1, 1)))
@settings(max_examples=50, deadline=None)
def test_sum_of_complex_squares(name, eps):
    np.testing.assert_allclose(complex_rate(name, 5.1)(eps), explicit_complex(name, eps, 5.1), rtol=1e-12, atol=1e-10)


def test_complex_charge_is_hermitian():
    eps = np.random.default_rng(3).uniform(-1, 1, 18)
    params, q = {**ZERO, **dict(zip(NAMES + IMAGINARY, eps, strict=True))}, jnp.array([5.0, 40.0, 80.0])
    charge = np.asarray(NSI(complex_entries=True).weak_charge(params, bound("Cs133", R_n=5.1), q))
    protons, neutrons = 55 * numpy_helm(np.array(q), 4.8), 78 * numpy_helm(np.array(q), 5.1)
    up, down = hermitian(eps[:6], eps[12:15]), hermitian(eps[6:12], eps[15:])
    truth = np.multiply.outer(2 * up + down, protons) + np.multiply.outer(up + 2 * down, neutrons)
    # the parameter is the imaginary part of the entry above the diagonal, row e and column mu
    np.testing.assert_allclose(charge, truth, rtol=1e-13)
    np.testing.assert_array_equal(charge, np.conj(np.swapaxes(charge, 0, 1)))
    assert np.all(np.diagonal(charge).imag == 0)


def test_transposed_couplings_have_the_same_rate():
    # the transpose of a hermitian matrix is its conjugate, so that sum_b |Q_ba|^2 = sum_b |Q_ab|^2
    eps = np.random.default_rng(4).uniform(-1, 1, (5, 18))
    for point in eps:
        found = complex_rate("Cs133", 5.1)(point)
        np.testing.assert_allclose(found, complex_rate("Cs133", 5.1)(point * np.repeat([1, -1], [12, 6])), rtol=1e-14)


@pytest.mark.parametrize(("entry", "flavours"), [("emu", (0, 1)), ("etau", (0, 2)), ("mutau", (1, 2))])
def test_relative_phase_of_up_and_down(entry, flavours):
    # |eps_u (2Z + N) + eps_d exp(i phi) (Z + 2N)|^2
    up, down, a, b = 0.3, 0.2, 2 * 55 + 78, 55 + 2 * 78
    nuclear = numpy_helm(Q, 4.8) ** 2
    standard = (0.02286 * 55 - 0.5 * 78) ** 2 * nuclear
    found = []
    for phase in np.radians([0.0, 50.0, 90.0, 180.0]):
        down_part = {f"eps_dV_{entry}": down * np.cos(phase), f"eps_dV_{entry}_im": down * np.sin(phase)}
        rates = complex_rate("Cs133")(complex_couplings(**{f"eps_uV_{entry}": up}, **down_part))
        truth = np.full(3, standard)
        truth[list(flavours)] += nuclear * ((up * a) ** 2 + (down * b) ** 2 + 2 * up * down * a * b * np.cos(phase))
        np.testing.assert_allclose(rates, truth, rtol=1e-12)
        found.append(rates[flavours[0]])
    assert np.all(np.diff(found) < 0)


def test_common_phase_is_not_observable():
    magnitudes = {"eps_uV_emu": 0.3, "eps_dV_emu": -0.1}
    zero = complex_rate("Cs133")(complex_couplings(**magnitudes))
    for phase in (0.3, 1.5, 2.8):
        turned = {f"{n}_im": v * np.sin(phase) for n, v in magnitudes.items()}
        turned.update({n: v * np.cos(phase) for n, v in magnitudes.items()})
        np.testing.assert_allclose(complex_rate("Cs133")(complex_couplings(**turned)), zero, rtol=1e-13)


def test_without_imaginary_parts_it_is_exactly_the_real_interaction():
    q, target = jnp.linspace(0.0, 100.0, 11), bound("Cs133", R_n=5.1)
    eps = np.random.default_rng(5).uniform(-1, 1, 12)
    params = {**ZERO, **dict(zip(NAMES, eps, strict=True))}
    real, found = (
        strengths(StandardModel() + NSI(complex_entries=c), params, target, q)["vector"] for c in (False, True)
    )
    assert not jnp.iscomplexobj(found)
    np.testing.assert_array_equal(found, real)


def test_gradient_of_imaginary_parts():
    # d/d(im) |x + iy|^2 = 2y: with eps_u = i y alone, 2 y (2Z + N)^2; against the phase of eps_d, the cross term
    a, b, nuclear = 2 * 55 + 78, 55 + 2 * 78, numpy_helm(Q, 4.8) ** 2
    point = complex_couplings(eps_uV_emu=0.1, eps_uV_emu_im=0.2, eps_dV_emu_im=-0.3)
    jacobian = np.asarray(jax.jacrev(complex_rate("Cs133"))(point))
    of_up, of_down = (jacobian[:, (NAMES + IMAGINARY).index(f"eps_{quark}V_emu_im")] for quark in "ud")
    imaginary = 0.2 * a - 0.3 * b
    np.testing.assert_allclose(of_up, np.array([1, 1, 0]) * 2 * a * imaginary * nuclear, rtol=1e-12)
    np.testing.assert_allclose(of_down, np.array([1, 1, 0]) * 2 * b * imaginary * nuclear, rtol=1e-12)


# tensor


TENSOR_NAMES = [f"eps_{quark}T_{2 * flavour}" for quark in "ud" for flavour in ("e", "mu", "tau")]


def test_names_of_the_tensor_parameters():
    assert [p.name for p in TensorNSI().parameters] == TENSOR_NAMES
    assert all(p.nominal == 0 for p in TensorNSI().parameters)


@pytest.mark.parametrize(("name", "Z", "N"), [("Cs133", 55, 78), ("I127", 53, 74), ("Ar40", 18, 22)])
def test_tensor_cross_section(name, Z, N):
    # + 4 G_F^2 M/pi Q_T^2 (1 - MT/(4E^2)) without interference
    up, down = np.array([0.3, -0.1, 0.0]), np.array([-0.2, 0.15, 0.4])
    params = {**ZERO, **dict(zip(TENSOR_NAMES, [*up, *down], strict=True))}
    M = nucleus(name).mass
    for E in (15.0, 52.0):
        T = np.array([1e-4, 0.1, 0.5, 0.9, 0.999]) * 2 * E**2 / (M + 2 * E)
        q = np.sqrt(2 * M * T)
        protons, neutrons = Z * numpy_helm(q, 4.8), N * numpy_helm(q, 5.1)
        standard = 0.02286 * protons - 0.5 * neutrons
        tensor = np.multiply.outer(2 * up + down, protons) + np.multiply.outer(up + 2 * down, neutrons)
        truth = standard**2 * (1 - M * T / (2 * E**2)) + 4 * tensor**2 * (1 - M * T / (4 * E**2))
        truth *= 1.1663788e-11**2 * M / np.pi * 197.3269804e-13**2
        target, interaction = bound(name, R_n=5.1), StandardModel("tree") + TensorNSI()
        found = differential_cross_section(params, interaction, target, E, T)
        np.testing.assert_allclose(found, truth, rtol=1e-12)


def test_tensor_degeneracy_of_up_and_down():
    # the charge vanishes along eps_d = -(2Z + N)/(Z + 2N) eps_u, with one form factor
    params = {**dict.fromkeys(TENSOR_NAMES, 0.0), "eps_uT_mumu": 0.5, "eps_dT_mumu": -0.5 * 188 / 211}
    found = np.asarray(TensorNSI().incoherent_terms(params, bound("Cs133"), jnp.array(Q))["tensor"])
    alone = np.asarray(
        TensorNSI().incoherent_terms({**params, "eps_dT_mumu": 0.0}, bound("Cs133"), jnp.array(Q))["tensor"]
    )
    np.testing.assert_allclose(alone, [0.0, 4 * (0.5 * 188 * numpy_helm(Q, 4.8)) ** 2, 0.0], rtol=1e-13)
    assert np.all(found < 1e-28 * alone[1])
