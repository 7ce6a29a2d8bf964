"""The protocol of interactions and their sums, on toy interactions with hand-made charges."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cevjax
from cevjax.electrons import Electron
from cevjax.errors import InvalidValueError, ParameterClashError, UnknownNameError
from cevjax.fluxes import PionDecayAtRest
from cevjax.form_factors import form_factor
from cevjax.interactions import NSI, Interaction, InteractionSum, StandardModel, strengths
from cevjax.interactions.base import (
    ElectronCouplings,
    Oscillation,
    contributes,
    flavour_diagonal,
    shapes_of,
    smooth_part,
)
from cevjax.kinematics import SHAPES, Shape
from cevjax.nuclear_model import BoundNucleus
from cevjax.nuclei import nucleus
from cevjax.parameters import Parameter
from cevjax.rates import differential_cross_section, recoil_spectrum

ARGON = BoundNucleus(nucleus("Ar40"), form_factor("point"), jnp.asarray(3.4), jnp.asarray(3.5))
Q = jnp.array([1.0, 30.0])


class Charge(Interaction):
    """A constant flavour matrix."""

    name = "charge"
    matrix: np.ndarray

    def weak_charge(self, params, nucleus, q):
        return jnp.multiply.outer(jnp.asarray(self.matrix), jnp.ones_like(q))


class Scalar(Interaction):
    """Strength ``size`` in the scalar and ``size/2`` in the vector shape; a third of the neutrinos arrive."""

    name = "scalar"
    size: float
    couplings: str | None = eqx.field(static=True, default=None)

    @property
    def parameters(self):
        return (Parameter("C_S", scale=self.size),)

    def incoherent_terms(self, params, nucleus, q):
        strength = self.size * jnp.ones((3, *q.shape))
        return {"scalar": strength, "vector": strength / 2}

    def flux_factor(self, params, energy, baseline_m):
        return jnp.ones((3, *energy.shape)) / 3

    def with_couplings(self, name):
        return Scalar(self.size, self.couplings or name)


HERMITIAN = np.array([[1.0, 2j, 0.5], [-2j, 3.0, 1 + 1j], [0.5, 1 - 1j, -1.0]])
# sum_b |Q_ba|^2, by hand: 1 + 4 + 0.25, 4 + 9 + 2, 0.25 + 2 + 1
COLUMNS = np.array([5.25, 15.0, 3.25])


def test_strength_is_the_sum_over_outgoing_flavours():
    found = strengths(Charge(HERMITIAN), {}, ARGON, Q)
    assert set(found) == {"vector"}
    assert not jnp.iscomplexobj(found["vector"])
    np.testing.assert_allclose(found["vector"], np.repeat(COLUMNS[:, None], 2, 1), rtol=1e-15)


def test_columns_are_the_incoming_flavours():
    matrix = np.zeros((3, 3))
    matrix[2, 0] = 7.0  # nu_e to nu_tau
    np.testing.assert_array_equal(strengths(Charge(matrix), {}, ARGON, Q)["vector"][:, 0], [49.0, 0.0, 0.0])


def test_charges_add_coherently():
    both = Charge(HERMITIAN) + Charge(-0.5 * HERMITIAN)
    np.testing.assert_allclose(strengths(both, {}, ARGON, Q)["vector"][:, 0], COLUMNS / 4, rtol=1e-15)
    cancelled = Charge(HERMITIAN) + Charge(-HERMITIAN)
    np.testing.assert_array_equal(strengths(cancelled, {}, ARGON, Q)["vector"], np.zeros((3, 2)))


def test_incoherent_terms_add_to_each_other_and_to_the_charge():
    found = strengths(Scalar(2.0) + Scalar(3.0) + Charge(HERMITIAN), {}, ARGON, Q)
    np.testing.assert_allclose(found["scalar"], np.full((3, 2), 5.0), rtol=1e-15)
    np.testing.assert_allclose(found["vector"][:, 1], COLUMNS + 2.5, rtol=1e-15)


def test_each_strength_meets_its_shape():
    E, T, M = 30.0, 0.02, ARGON.mass
    section = differential_cross_section({}, Scalar(2.0) + Charge(HERMITIAN), ARGON, E, T)
    unit = 1.1663788e-11**2 * (197.3269804e-13) ** 2 / np.pi
    truth = unit * M * (2.0 * M * T / E**2 + (COLUMNS + 1) * (1 - M * T / (2 * E**2)))
    np.testing.assert_allclose(section, truth, rtol=1e-13)


def test_sums_are_flat_and_named():
    total = (StandardModel() + NSI()) + (Charge(HERMITIAN) + Scalar(1.0))
    assert [type(t) for t in total.terms] == [StandardModel, NSI, Charge, Scalar]
    assert total.name == "standard-model + nsi + charge + scalar"
    assert set(shapes_of(total, ARGON)) == {"vector", "scalar"}


def test_parameters_of_a_sum():
    names = [p.name for p in (StandardModel() + NSI() + StandardModel()).parameters]
    assert names[0] == "sin2_theta_w"
    assert len(names) == len(set(names)) == 13
    with pytest.raises(ParameterClashError, match="C_S"):
        _ = (Scalar(1.0) + Scalar(2.0)).parameters


def test_survival_probabilities_multiply():
    energy = jnp.array([10.0, 20.0])
    for unchanged in (StandardModel(), StandardModel() + NSI()):
        assert not contributes(unchanged, "flux")
        assert smooth_part(unchanged) == ()
        np.testing.assert_array_equal(unchanged.flux_factor({}, energy, 20.0), np.ones((3, 2)))
    total = Scalar(1.0) + StandardModel() + Scalar(1.0)
    assert contributes(total, "flux")
    assert [type(term) for term in smooth_part(total)] == [Scalar, Scalar]
    np.testing.assert_allclose(total.flux_factor({}, energy, 20.0), np.full((3, 2), 1 / 9), rtol=1e-15)


def test_couplings_reach_the_terms_that_left_them_open():
    total = (StandardModel() + Scalar(1.0)).with_couplings("tree")
    assert isinstance(total, InteractionSum)
    assert [t.couplings for t in total.terms] == ["tree", "tree"]
    # what one term chooses is for all of them, before anybody else is asked
    for model in (StandardModel("2023") + Scalar(1.0), StandardModel() + Scalar(1.0, "2023")):
        assert [t.couplings for t in model.terms] == ["2023", "2023"]
        assert [t.couplings for t in model.with_couplings("tree").terms] == ["2023", "2023"]


def test_only_interactions_can_be_added():
    with pytest.raises(TypeError):
        StandardModel() + 1.0


def test_defaults_contribute_nothing():
    class Nothing(Interaction):
        name = "nothing"

    assert Nothing().parameters == ()
    assert (Nothing() + Nothing()).weak_charge({}, ARGON, Q) is None
    np.testing.assert_array_equal(strengths(Nothing(), {}, ARGON, Q)["vector"], np.zeros((3, len(Q))))
    params = {"sin2_theta_w": 0.23857}
    np.testing.assert_array_equal(
        strengths(StandardModel() + Nothing(), params, ARGON, Q)["vector"],
        strengths(StandardModel(), params, ARGON, Q)["vector"],
    )


def test_flavour_diagonal():
    entries = np.arange(6.0).reshape(3, 2) + 1
    matrix = np.asarray(flavour_diagonal(jnp.asarray(entries)))
    assert matrix.shape == (3, 3, 2)
    for i in range(2):
        np.testing.assert_array_equal(matrix[..., i], np.diag(entries[:, i]))


def test_a_survival_probability_acts_on_rates_and_counts():
    """Half of the muon neutrinos and all of the electron neutrinos arrive, at any energy."""

    class Lost(Interaction):
        name = "lost"

        def flux_factor(self, params, energy, baseline_m):
            return jnp.ones((3, *energy.shape)) * jnp.array([1.0, 0.5, 0.5]).reshape(3, *[1] * energy.ndim)

    measurement = cevjax.load("coherent-csi-2021", statistic="2303.09360")
    like = cevjax.Likelihood([measurement], StandardModel())
    lossy = cevjax.Likelihood([measurement], StandardModel() + Lost())
    full, less = (each.measurements[0].components[0] for each in (like, lossy))
    spectra = np.asarray(full.recoils(like.nominal(), like.interaction))
    np.testing.assert_allclose(
        less.recoils(lossy.nominal(), lossy.interaction), spectra * [[0.5], [1.0], [0.5]], rtol=1e-12
    )
    events = [float(each.expected(each.nominal())["coherent-csi-2021"]["cevns"].sum()) for each in (like, lossy)]
    assert 0.5 < events[1] / events[0] < 0.8


def test_exact_kinematics_is_for_the_whole_charge():
    exact = StandardModel(exact_kinematics=True) + NSI()
    assert shapes_of(exact, ARGON) == {"vector_exact": SHAPES["vector_exact"]}
    assert shapes_of(NSI() + StandardModel(), ARGON) == {"vector": SHAPES["vector"]}
    params = {p.name: p.nominal for p in exact.parameters}
    assert set(strengths(exact, params, ARGON, Q)) == {"vector_exact"}


def test_a_coherent_and_an_incoherent_vector_term_keep_their_own_shapes():
    class Incoherent(Interaction):
        name = "incoherent"

        def incoherent_terms(self, params, nucleus, q):
            return {"vector": jnp.ones((3, *q.shape))}

    total = StandardModel(exact_kinematics=True) + Incoherent()
    assert set(shapes_of(total, ARGON)) == {"vector", "vector_exact"}
    like = cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic="2303.09360")], total)
    assert np.isfinite(float(like.nll(like.nominal())))


def mass_over_energies(E, T, M, m):
    return m / (E * T)


class Own(Interaction):
    """A kinematic shape of its own, to a lepton of mass ``m_X``, and a common one."""

    name = "own"

    @property
    def parameters(self):
        return (Parameter("m_X", 10.0, "MeV"),)

    @property
    def shapes(self):
        return {"own": Shape(mass_over_energies, mass="m_X")}

    def incoherent_terms(self, params, nucleus, q):
        return {"own": 2.0 * jnp.ones((3, *q.shape)), "scalar": jnp.ones((3, *q.shape))}


@pytest.mark.parametrize("interaction", [Own(), StandardModel() + Own(), Own() + NSI()])
def test_an_interaction_brings_its_own_shapes(interaction):
    found = shapes_of(interaction, ARGON)
    assert found["own"] == Shape(mass_over_energies, mass="m_X")
    assert all(shape == SHAPES[name] for name, shape in found.items() if name != "own")
    assert "scalar" in found
    assert "own" in interaction.shapes and "own" not in SHAPES


def test_own_shapes_have_the_phase_space_of_their_lepton():
    E, m, M = 30.0, 20.0, ARGON.mass
    # the centre of mass moves with E/(E + M); the recoil has this energy and momentum in it
    root_s = np.sqrt(M**2 + 2 * M * E)
    energy = (root_s**2 + M**2 - m**2) / (2 * root_s)
    momentum = np.sqrt((root_s**2 - (M - m) ** 2) * (root_s**2 - (M + m) ** 2)) / (2 * root_s)
    ends = [(E + M) / root_s * energy + sign * E / root_s * momentum - M for sign in (-1, 1)]
    T = np.array([0.99 * ends[0], 1.01 * ends[0], np.mean(ends), 0.99 * ends[1], 1.001 * ends[1]])
    unit = 1.1663788e-11**2 * (197.3269804e-13) ** 2 / np.pi
    truth = unit * M * (2 * m / (E * T) * np.array([0, 1, 1, 1, 0]) + M * T / E**2)
    section = differential_cross_section({"m_X": m}, Own(), ARGON, E, T)
    np.testing.assert_allclose(section, [truth] * 3, rtol=1e-13)


class Spin(Interaction):
    """A constant axial flavour matrix."""

    name = "spin"
    matrix: np.ndarray

    def axial_charge(self, params, nucleus, q):
        return jnp.multiply.outer(jnp.asarray(self.matrix), jnp.ones_like(q))


def test_axial_charges_interfere_with_each_other_alone():
    assert not contributes(Spin(HERMITIAN), "coherent") and contributes(Spin(HERMITIAN), "incoherent")
    found = strengths(Spin(HERMITIAN) + Charge(2 * HERMITIAN) + Spin(2 * HERMITIAN), {}, ARGON, Q)
    assert set(found) == {"vector", "axial"}
    np.testing.assert_allclose(found["axial"][:, 0], 9 * COLUMNS, rtol=1e-15)
    np.testing.assert_allclose(found["vector"][:, 0], 4 * COLUMNS, rtol=1e-15)
    # exact kinematics is for the vector charge
    exact = strengths(StandardModel(exact_kinematics=True) + Spin(HERMITIAN), {"sin2_theta_w": 0.25}, ARGON, Q)
    assert set(exact) == {"vector_exact", "axial"}
    assert strengths(Spin(HERMITIAN) + Spin(-HERMITIAN), {}, ARGON, Q)["axial"].sum() == 0


def test_axial_charge_meets_the_axial_shape():
    E, T, M = 30.0, 0.02, ARGON.mass
    unit = 1.1663788e-11**2 * (197.3269804e-13) ** 2 / np.pi
    truth = unit * M * COLUMNS * (1 + M * T / (2 * E**2))
    np.testing.assert_allclose(differential_cross_section({}, Spin(HERMITIAN), ARGON, E, T), truth, rtol=1e-13)


class Leptonic(Interaction):
    """Constant couplings to electrons, and an incoherent term."""

    name = "leptonic"
    vector: np.ndarray
    axial: np.ndarray
    size: float = 0.0

    def electron_couplings(self, params, q):
        flat = jnp.ones_like(q)
        return ElectronCouplings(jnp.multiply.outer(self.vector, flat), jnp.multiply.outer(self.axial, flat))

    def electron_terms(self, params, q):
        return {"magnetic": self.size * jnp.ones((3, *q.shape))}


@pytest.mark.parametrize("antineutrino", [False, True])
def test_electron_couplings_add_coherently_and_their_terms_do_not(antineutrino):
    generator = np.random.default_rng(3)
    V, A, V2, A2 = generator.normal(size=(4, 3, 3)) + 1j * generator.normal(size=(4, 3, 3))
    E, T, m = 20.0, 0.7, 0.51099895069
    found = differential_cross_section(
        {}, Leptonic(V, A, 3.0) + Charge(HERMITIAN) + Leptonic(V2, A2, 4.0), Electron(), E, T, antineutrino
    )
    g_V, g_A = V + V2, (A + A2) * (-1 if antineutrino else 1)
    left, right = abs(g_V + g_A) ** 2, abs(g_V - g_A) ** 2
    bracket = left + right * (1 - T / E) ** 2 - (abs(g_V) ** 2 - abs(g_A) ** 2) * m * T / E**2
    unit = 1.1663788e-11**2 * (197.3269804e-13) ** 2 / np.pi * m
    np.testing.assert_allclose(found, unit * (bracket.sum(axis=0) / 2 + 7 * (1 / T - 1 / E)), rtol=1e-13)


def test_nuclei_and_electrons_see_their_own_part():
    both = Leptonic(HERMITIAN, HERMITIAN, 1.0) + Charge(HERMITIAN)
    assert set(strengths(both, {}, ARGON, Q)) == {"vector"}
    assert set(strengths(both, {}, Electron(), Q)) == {"electron_left", "electron_right", "scalar", "magnetic"}
    assert [contributes(both, what) for what in ("coherent", "incoherent", "electrons", "flux")] == [
        True,
        False,
        True,
        False,
    ]
    assert Charge(HERMITIAN).electron_couplings({}, Q) is None
    np.testing.assert_array_equal(strengths(Charge(HERMITIAN), {}, Electron(), Q)["vector"], np.zeros((3, 2)))


def test_contributions_have_names():
    with pytest.raises(UnknownNameError, match="Unknown contribution 'electron'. Did you mean 'electrons'"):
        contributes(StandardModel(), "electron")


class Vibration(Interaction):
    name = "vibration"

    def oscillation(self, params, baseline_m):
        return Oscillation(jnp.array([0.5, 0.2, 0.0]), jnp.asarray(3.0 * baseline_m))


def test_oscillation_gives_the_flux_factor():
    energy = np.array([[10.0, 20.0], [30.0, 40.0]])
    truth = 1 - np.multiply.outer([0.5, 0.2, 0.0], np.sin(60.0 / energy) ** 2)
    np.testing.assert_allclose(Vibration().flux_factor({}, jnp.asarray(energy), 20.0), truth, rtol=1e-15)
    assert contributes(Vibration(), "flux")
    # with a smooth loss they multiply, and each is known as what it is
    total = StandardModel() + Vibration() + Scalar(1.0)
    np.testing.assert_allclose(total.flux_factor({}, jnp.asarray(energy), 20.0), truth / 3, rtol=1e-15)
    assert [type(term) for term in smooth_part(total)] == [Scalar]
    np.testing.assert_array_equal(total.oscillation({}, 20.0).amplitude, [0.5, 0.2, 0.0])
    assert float(total.oscillation({}, 20.0).frequency) == 60.0
    assert (StandardModel() + Scalar(1.0)).oscillation({}, 20.0) is None


def test_only_one_term_can_oscillate():
    with pytest.raises(
        InvalidValueError, match="Only one term .* but vibration \\+ standard-model \\+ vibration has 2"
    ):
        (Vibration() + StandardModel() + Vibration()).oscillation({}, 20.0)


def test_smooth_and_oscillating_losses_multiply_in_the_spectrum():
    T, flux, names = jnp.array([2e-3, 1e-2]), PionDecayAtRest(), {"sin2_theta_w": 0.23857}
    effects = (Charge(np.zeros((3, 3))), Vibration(), Lossy(), Vibration() + Lossy())
    spectra = jax.jit(
        lambda t: [recoil_spectrum(names, StandardModel("tree") + x, flux, ARGON, t, 20.0) for x in effects]
    )
    plain, waving, lossy, both = map(np.asarray, spectra(T))
    np.testing.assert_allclose(lossy / plain, [[0.25] * 2, [0.5] * 2, [0.25] * 2], rtol=1e-13)
    np.testing.assert_allclose(both, waving * [[0.25], [0.5], [0.25]], rtol=1e-13)
    # the line, of muon flavour, at (m_pi^2 - m_mu^2)/(2 m_pi)
    line = (139.57039**2 - 105.6583755**2) / (2 * 139.57039)
    np.testing.assert_allclose(waving[0] / plain[0], 1 - 0.2 * np.sin(60 / line) ** 2, rtol=1e-12)


class Lossy(Interaction):
    name = "lossy"

    def flux_factor(self, params, energy, baseline_m):
        return jnp.ones((3, *energy.shape)) * jnp.array([0.5, 0.25, 1.0]).reshape(3, *[1] * energy.ndim)


def test_mistakes_of_an_interaction_are_named():
    class Misspelt(Interaction):
        name = "misspelt"

        def incoherent_terms(self, params, nucleus, q):
            return {"magnetik": jnp.ones((3, *q.shape))}

    class Undeclared(Interaction):
        name = "undeclared"

        def incoherent_terms(self, params, nucleus, q):
            return {"magnetic": params["mu_nu"] * jnp.ones((3, *q.shape))}

    csi = cevjax.load("coherent-csi-2021", statistic="2303.09360")
    with pytest.raises(UnknownNameError, match="Unknown kinematic shape 'magnetik'. Did you mean 'magnetic'"):
        cevjax.Likelihood([csi], StandardModel() + Misspelt())
    with pytest.raises(InvalidValueError, match="must declare its parameters, but uses 'mu_nu'"):
        cevjax.Likelihood([csi], StandardModel() + Undeclared())
    with pytest.raises(InvalidValueError, match="must be an Interaction, but was <class"):
        cevjax.Likelihood([csi], StandardModel)
