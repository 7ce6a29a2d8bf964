"""The standard model on nuclei and electrons, and its axial term, against formulas and numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import spherical_jn

from cevjax.electrons import Electron
from cevjax.errors import UnknownNameError
from cevjax.form_factors import form_factor
from cevjax.interactions import Axial, StandardModel, strengths
from cevjax.nuclear_model import BoundNucleus
from cevjax.nuclei import Nucleus, Spin, nucleus
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


# electrons

G_F, M_E, HBARC = 1.1663788e-11, 0.51099895069, 197.3269804
HALF = np.array([0.5, -0.5, -0.5])


def on_fermion(E, T, M, gV, gA, antineutrino=False):
    """Scattering on a free point-like fermion, cm^2/MeV."""
    gA = -gA if antineutrino else gA
    total = (gV + gA) ** 2 + (gV - gA) ** 2 * (1 - T / E) ** 2 - (gV**2 - gA**2) * M * T / E**2
    return G_F**2 * M / (2 * np.pi) * (HBARC * 1e-13) ** 2 * total


def electron_recoils(E):
    return np.array([1e-4, 0.01, 0.2, 0.5, 0.9, 0.999]) * 2 * E**2 / (M_E + 2 * E)


@pytest.mark.parametrize("couplings", PUBLISHED)
def test_electron_couplings(couplings):
    # g_V = 2 sin^2 theta_W +- 1/2, g_A = +- 1/2: at tree level whatever the couplings to nuclei
    found = StandardModel(couplings).electron_couplings({"sin2_theta_w": 0.21}, jnp.array([0.1, 5.0]))
    for matrix, truth in ((found.vector, 0.42 + HALF), (found.axial, HALF)):
        assert matrix.shape == (3, 3, 2)
        np.testing.assert_allclose(matrix, np.repeat(np.diag(truth)[..., None], 2, 2), rtol=1e-15)


@pytest.mark.parametrize("antineutrino", [False, True])
def test_cross_section_on_electrons(antineutrino):
    for E in (0.3, 6.0, 52.0):
        T = electron_recoils(E)
        found = differential_cross_section(NOMINAL, StandardModel(), Electron(), E, T, antineutrino=antineutrino)
        truth = [on_fermion(E, T, M_E, 2 * 0.23857 + h, h, antineutrino) for h in HALF]
        np.testing.assert_allclose(found, truth, rtol=1e-12)
        beyond = differential_cross_section(NOMINAL, StandardModel(), Electron(), E, 2 * E**2 / (M_E + 2 * E) * 1.001)
        assert np.all(np.asarray(beyond) == 0)


@pytest.mark.parametrize(("antineutrino", "published"), [(False, (93, 15, 15)), (True, (39, 13, 13))])
def test_total_cross_section_on_electrons(antineutrino, published):
    # Giunti & Kim, table 5.1: sigma/s in 1e-46 cm^2/MeV^2 at high energy, with the weak mixing angle at the Z mass
    E = 1e4
    end, params = 2 * E**2 / (M_E + 2 * E), {"sin2_theta_w": 0.2312}

    @jax.jit
    def section(T):
        return differential_cross_section(params, StandardModel(), Electron(), E, T, antineutrino=antineutrino)

    total = [quad(lambda T, a=a: float(section(T)[a]) * 1e40, 0.0, end, epsrel=1e-8)[0] * 1e-40 for a in range(3)]
    np.testing.assert_allclose(np.array(total) / (2 * M_E * E) / 1e-46, published, atol=0.5)


@pytest.mark.parametrize("antineutrino", [False, True])
def test_derivative_in_the_weak_mixing_angle_on_electrons(antineutrino):
    # dg_V/ds = 2
    E, s2w = 12.0, 0.23857
    T = electron_recoils(E)

    def section(s2w):
        params = {"sin2_theta_w": s2w}
        return differential_cross_section(params, StandardModel(), Electron(), E, T, antineutrino=antineutrino)

    truth = []
    for h in HALF:
        gV, gA = 2 * s2w + h, -h if antineutrino else h
        slope = 4 * (gV + gA) + 4 * (gV - gA) * (1 - T / E) ** 2 - 4 * gV * M_E * T / E**2
        truth.append(G_F**2 * M_E / (2 * np.pi) * (HBARC * 1e-13) ** 2 * slope)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(section))(s2w), truth, rtol=1e-11)
    np.testing.assert_allclose(jax.jit(jax.jacrev(section))(s2w).sum(), np.sum(truth), rtol=1e-11)


# the axial term

# J, spins of protons and neutrons
SPINS = {"Cs133": (7 / 2, -0.225, 0.002), "I127": (5 / 2, 0.342, 0.031), "Ge73": (9 / 2, 0.031, 0.439)}


def numpy_helm(q, radius, s=0.9):
    x = q / HBARC * (5 / 3 * (radius**2 - 3 * s**2)) ** 0.5
    return 3 * spherical_jn(1, x) / x * np.exp(-((q * s / HBARC) ** 2) / 2)


def free_nucleon(proton):
    name, Z, N, mass = ("H1", 1, 0, 938.27208943) if proton else ("n1", 0, 1, 939.56542194)
    spin = Spin(1 / 2, 1 / 2, 0.0) if proton else Spin(1 / 2, 0.0, 1 / 2)
    nuclide = Nucleus(name, Z, N, mass, 0.8, 0.8, spin)
    return BoundNucleus(nuclide, form_factor("point"), jnp.asarray(0.8), jnp.asarray(0.8))


def test_axial_charge_of_a_free_nucleon():
    for proton, truth in ((True, 0.6378), (False, -0.6378)):
        charge = np.asarray(Axial().axial_charge({"g_A": 1.2756}, free_nucleon(proton), jnp.array([0.0, 50.0])))
        assert charge.shape == (3, 3, 2)
        np.testing.assert_allclose(charge, truth * np.repeat(np.eye(3)[..., None], 2, 2), rtol=1e-15)


@pytest.mark.parametrize("proton", [True, False])
def test_free_nucleon_is_a_dirac_particle(proton):
    # slow against its mass, and without the vector-axial interference, in which neutrinos and antineutrinos differ
    E, target = 1e-4, free_nucleon(proton)
    T = np.array([0.1, 0.5, 0.9]) * 2 * E**2 / (target.mass + 2 * E)
    gV, gA = (0.02286, 0.6378) if proton else (-0.5, -0.6378)
    truth = sum(on_fermion(E, T, target.mass, gV, gA, antineutrino) for antineutrino in (False, True)) / 2
    params = {**NOMINAL, "g_A": 1.2756}
    found = differential_cross_section(params, StandardModel("tree") + Axial(), target, E, T)
    np.testing.assert_allclose(found, [truth] * 3, rtol=1e-6)


@pytest.mark.parametrize("name", SPINS)
def test_axial_charge_of_nuclei(name):
    # from the transverse structure factor at q = 0, S_11 = 2/3 (2J + 1)(J + 1)/(4 pi J) (S_p - S_n)^2, and its
    # (G_F^2 M/(4 pi)) 8 pi/(2J + 1) g_A^2 S_11
    J, S_p, S_n = SPINS[name]
    S_11 = 2 / 3 * (2 * J + 1) * (J + 1) / (4 * np.pi * J) * (S_p - S_n) ** 2
    truth = 2 * np.pi / (2 * J + 1) * 1.2756**2 * S_11
    terms = strengths(Axial(), {"g_A": 1.2756}, bound(name), jnp.array([0.0, 40.0]))
    assert set(terms) == {"axial"}
    np.testing.assert_allclose(terms["axial"], np.full((3, 2), truth), rtol=1e-13)


# by hand: 1.2756 sqrt(4.5/10.5) (-0.227), 1.2756 sqrt(3.5/7.5) 0.311 and 1.2756 sqrt(5.5/13.5) (-0.408)
@pytest.mark.parametrize(("name", "charge"), [("Cs133", -0.18956), ("I127", 0.27101), ("Ge73", -0.33219)])
def test_axial_charge_in_numbers(name, charge):
    found = Axial().axial_charge({"g_A": 1.2756}, bound(name), jnp.array(0.0))
    np.testing.assert_allclose(np.diagonal(found), [charge] * 3, atol=1e-5)


def test_axial_term_adds_to_the_cross_section():
    # 1 + MT/(2E^2), with the form factors of protons and neutrons
    name, E = "I127", 40.0
    M = nucleus(name).mass
    T = np.array([0.01, 0.3, 0.9]) * 2 * E**2 / (M + 2 * E)
    q = np.sqrt(2 * M * T)
    protons, neutrons = numpy_helm(q, 4.8), numpy_helm(q, 5.1)
    vector = 53 * 0.02286 * protons - 74 * 0.5 * neutrons
    axial = 1.3 * np.sqrt(3.5 / 7.5) * (0.342 * protons - 0.031 * neutrons)
    y = M * T / (2 * E**2)
    truth = G_F**2 * M / np.pi * (HBARC * 1e-13) ** 2 * (vector**2 * (1 - y) + axial**2 * (1 + y))
    params, target = {**NOMINAL, "g_A": 1.3}, bound(name, "helm")
    found = differential_cross_section(params, StandardModel("tree") + Axial(), target, E, T)
    np.testing.assert_allclose(found, [truth] * 3, rtol=1e-12)


@pytest.mark.parametrize("name", ["Ar40", "Ge74", "C12", "Xe132", "W184"])
def test_no_axial_term_in_even_nuclei(name):
    params, T = {**NOMINAL, "g_A": 1.2756}, np.array([1e-4, 2e-3, 5e-3])
    assert np.all(np.asarray(Axial().axial_charge(params, bound(name, "helm"), jnp.array([0.0, 40.0]))) == 0)
    found, without = (
        differential_cross_section(params, model, bound(name, "helm"), 30.0, T)
        for model in (StandardModel() + Axial(), StandardModel())
    )
    np.testing.assert_array_equal(found, without)


def test_axial_parameter():
    (g_A,) = Axial().parameters
    assert (g_A.name, g_A.nominal) == ("g_A", 1.2756)
    assert Axial().electron_couplings({"g_A": 1.2756}, jnp.array(1.0)) is None
