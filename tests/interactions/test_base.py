"""The protocol of interactions and their sums, on toy interactions with hand-made charges."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import cevjax
from cevjax.errors import InvalidValueError, ParameterClashError, UnknownNameError
from cevjax.form_factors import form_factor
from cevjax.interactions import NSI, Interaction, InteractionSum, StandardModel, strengths
from cevjax.interactions.base import flavour_diagonal, shapes_of
from cevjax.nuclear_model import BoundNucleus
from cevjax.nuclei import nucleus
from cevjax.parameters import Parameter
from cevjax.rates import differential_cross_section

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

    @property
    def changes_flux(self):
        return True

    def flux_factor(self, params, energy, baseline_m):
        return jnp.ones((3, *energy.shape)) / 3

    def with_couplings(self, name):
        return Scalar(self.size, name)


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
        assert not unchanged.changes_flux
        np.testing.assert_array_equal(unchanged.flux_factor({}, energy, 20.0), np.ones((3, 2)))
    total = Scalar(1.0) + StandardModel() + Scalar(1.0)
    np.testing.assert_allclose(total.flux_factor({}, energy, 20.0), np.full((3, 2), 1 / 9), rtol=1e-15)


def test_couplings_reach_the_terms_that_left_them_open():
    total = (StandardModel() + StandardModel("2023") + Scalar(1.0)).with_couplings("tree")
    assert isinstance(total, InteractionSum)
    assert [t.couplings for t in total.terms] == ["tree", "2023", "tree"]


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

        @property
        def changes_flux(self):
            return True

        def flux_factor(self, params, energy, baseline_m):
            return jnp.ones((3, *energy.shape)) * jnp.array([1.0, 0.5, 0.5]).reshape(3, *[1] * energy.ndim)

    measurement = cevjax.load("coherent-csi-2021", statistic="2303.09360")
    like = cevjax.Likelihood([measurement], StandardModel())
    lossy = cevjax.Likelihood([measurement], StandardModel() + Lost())
    full, less = (each.measurements[0].components[0] for each in (like, lossy))
    spectra = np.asarray(full.spectra(like.nominal(), like.interaction))
    np.testing.assert_allclose(
        less.spectra(lossy.nominal(), lossy.interaction), spectra * [[0.5], [1.0], [0.5]], rtol=1e-12
    )
    events = [float(each.expected(each.nominal())["coherent-csi-2021"]["cevns"].sum()) for each in (like, lossy)]
    assert 0.5 < events[1] / events[0] < 0.8


def test_exact_kinematics_is_for_the_whole_charge():
    exact = StandardModel(exact_kinematics=True) + NSI()
    assert shapes_of(exact, ARGON) == ("vector_exact",)
    assert shapes_of(NSI() + StandardModel(), ARGON) == ("vector",)
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
