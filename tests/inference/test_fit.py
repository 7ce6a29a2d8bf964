"""Fits: best values, errors, several minima, and what a user may ask wrongly."""

import equinox as eqx
import numpy as np
import pytest

import cevjax
from cevjax.errors import InvalidValueError, UnknownNameError


def test_asimov_fit_finds_the_truth(csi_likelihood):
    like = csi_likelihood()
    truth = like.nominal(sin2_theta_w=0.26, csi2021_qf0=0.5, csi2021_timing=-0.2)
    result = cevjax.fit(like.asimov(truth), free=("sin2_theta_w",))
    # the pulled nuisances cost their penalty, so the fit ends between the truth and nominal
    assert result.converged
    assert result.chi2_min < 0.5**2 + 0.2**2
    exact = cevjax.fit(like.asimov(like.nominal(sin2_theta_w=0.26)), free=("sin2_theta_w",))
    assert exact.chi2_min == pytest.approx(0, abs=1e-7)
    assert exact.values["sin2_theta_w"] == pytest.approx(0.26, abs=1e-5)


def test_result_is_consistent(csi_likelihood):
    like = csi_likelihood()
    result = cevjax.fit(like, free=("sin2_theta_w",))
    assert float(like.chi2(result.values)) == pytest.approx(result.chi2_min, abs=2e-8)
    assert result.ndof == 99 + 9 - 10
    assert set(result.nuisances) == set(like.nuisances)
    assert result.covariance.shape == (10, 10)
    assert result.errors["sin2_theta_w"] == pytest.approx(np.sqrt(result.covariance[0, 0]))
    assert result.other_minima == ()
    counts = result.expected()["coherent-csi-2021"]
    assert set(counts) == {"cevns", "brn", "nin", "ssb"}


def test_nuisances_alone(csi_likelihood):
    result = cevjax.fit(csi_likelihood("2211.11905"))
    assert result.free == () and result.converged
    assert result.ndof == 99


@pytest.mark.slow
def test_a_fixed_nuisance_stays(csi_likelihood):
    result = cevjax.fit(csi_likelihood(), values={"csi2021_brn": 1.5})
    assert result.values["csi2021_brn"] == 1.5
    assert "csi2021_brn" not in result.names


@pytest.mark.slow
def test_a_free_radius_replaces_the_radius_nuisance(csi_likelihood):
    result = cevjax.fit(csi_likelihood(), free=("R_n_CsI",))
    assert result.dropped == ("csi2021_radius",)
    assert "csi2021_radius" not in result.names and result.values["csi2021_radius"] == 0
    one = cevjax.fit(csi_likelihood(), free=("R_n_Cs133",))
    assert one.dropped == ("csi2021_radius",)


def test_both_nsi_minima_are_found(csi_likelihood):
    """The rate is quadratic in one coupling: the minima mirror each other at nearly equal chi2."""
    like = csi_likelihood("2211.11905", nsi=True)
    result = cevjax.fit(like, free=("eps_dV_ee",))
    assert len(result.other_minima) == 1
    other = result.other_minima[0]
    assert result.chi2_min < other.chi2 < result.chi2_min + 1
    low, high = sorted([result.values["eps_dV_ee"], other.values["eps_dV_ee"]])
    grid = np.linspace(-0.2, 0.6, 81)
    chi2 = cevjax.profile(like, {"eps_dV_ee": grid}).chi2
    valleys = grid[1:-1][(chi2[1:-1] < chi2[:-2]) & (chi2[1:-1] < chi2[2:])]
    np.testing.assert_allclose([low, high], valleys, atol=0.01)


def test_degenerate_couplings_are_reported_at_their_bound(csi_likelihood):
    result = cevjax.fit(csi_likelihood("2211.11905", nsi=True), free=("eps_dV_ee", "eps_uV_ee"))
    assert result.converged
    assert result.at_bound and result.at_bound[0] in ("eps_dV_ee", "eps_uV_ee")
    assert result.errors[result.at_bound[0]] is None
    assert "at a bound" in result.message


@pytest.mark.slow
def test_a_parameter_without_effect_has_no_error(csi_likelihood):
    """There are no tau neutrinos at a stopped-pion source."""
    result = cevjax.fit(csi_likelihood("2303.09360", nsi=True), free=("eps_uV_tautau",))
    assert result.converged
    assert result.errors["eps_uV_tautau"] is None
    assert "does not depend on eps_uV_tautau" in result.message
    others = cevjax.fit(csi_likelihood("2303.09360", nsi=True))
    for name in others.names:
        assert result.errors[name] == pytest.approx(others.errors[name], rel=1e-3)


def test_starting_where_the_derivative_vanishes_still_descends(csi_likelihood):
    """Flavour-changing couplings enter squared: their gradient is zero at the standard model."""
    like = csi_likelihood("2303.09360", nsi=True)
    shifted = like.asimov(like.nominal(eps_uV_emu=0.15))
    result = cevjax.fit(shifted, free=("eps_uV_emu",))
    assert result.converged
    assert abs(result.values["eps_uV_emu"]) == pytest.approx(0.15, abs=1e-3)
    assert result.chi2_min == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"free": ("sin2_thet_w",)}, UnknownNameError, "Did you mean 'sin2_theta_w'"),
        ({"free": ("sin2_theta_w",), "values": {"sin2_theta_w": 0.2}}, InvalidValueError, "either free or set"),
        ({"free": ("R_n_CsI", "R_n_I127")}, InvalidValueError, "stands for R_n_I127"),
        ({"free": ("R_n_CsI",), "values": {"R_n_I127": 5.0}}, InvalidValueError, "stands for R_n_I127"),
        ({"values": {"sin2_theta_w": -0.1}}, InvalidValueError, "between 0 and 1, but was -0.1"),
        ({"values": {"sin2_theta_w": np.nan}}, InvalidValueError, "must be finite"),
        ({"values": {"csi2021_brnn": 0.0}}, UnknownNameError, "Did you mean 'csi2021_brn'"),
        ({"free": ("sin2_theta_w",), "starts": 0}, InvalidValueError, "`starts` must be at least 1"),
    ],
)
def test_unusable_requests(csi_likelihood, arguments, error, message):
    with pytest.raises(error, match=message):
        cevjax.fit(csi_likelihood(), **arguments)


@pytest.mark.parametrize(
    "call",
    [
        lambda like: cevjax.fit(like, free=("sin2_theta_w",)),
        lambda like: cevjax.scan(like, {"sin2_theta_w": [0.2, 0.3]}),
        lambda like: cevjax.toys(like, {"sin2_theta_w": 0.2}, n=10),
        lambda like: cevjax.forecast(like, free=("sin2_theta_w",)),
    ],
)
def test_data_without_a_model_are_no_likelihood(call):
    with pytest.raises(InvalidValueError, match=r"must be a likelihood, such as cevjax.Likelihood.*was a Measurement"):
        call(cevjax.load("coherent-csi-2021"))


def test_one_name_may_be_given_as_a_string(csi_likelihood):
    result = cevjax.fit(csi_likelihood("2303.09360"), free="sin2_theta_w")
    assert result.free == ("sin2_theta_w",)


@pytest.mark.slow
def test_a_set_nuisance_stays_even_when_a_free_parameter_supersedes_it(csi_likelihood):
    result = cevjax.fit(csi_likelihood(), free=("R_n_CsI",), values={"csi2021_radius": 0.5})
    assert result.values["csi2021_radius"] == 0.5
    assert result.dropped == ()


def test_a_likelihood_that_is_not_finite_does_not_converge(csi_likelihood):
    like = csi_likelihood("2303.09360")
    broken = eqx.tree_at(lambda m: m.components[3].total, like.measurements[0], np.nan)
    lost = cevjax.Likelihood([broken], like.interaction)
    result = cevjax.fit(lost)
    assert not result.converged
    assert "not finite" in result.message
    assert not np.any(cevjax.profile(lost, {"sin2_theta_w": [0.2]}).converged)
    with pytest.raises(InvalidValueError, match="not finite anywhere"):
        cevjax.interval(lost, "sin2_theta_w")


@pytest.mark.slow
def test_fits_go_on_along_a_level_valley():
    """A heavy mediator: the coupling grows with the mass at almost the same chi2, and the minimum is at one end."""
    data = [cevjax.load(name, statistic="2005.01645") for name in ("coherent-csi-2017", "coherent-lar-2020")]
    like = cevjax.Likelihood(data, cevjax.StandardModel() + cevjax.LightVector(model="universal"))
    result = cevjax.fit(like, free=("g_zprime", "m_zprime"))
    assert result.converged and result.steps > 200
    coupling = np.geomspace(7.5e-4, 8.5e-4, 21)  # where a plane of 151 by 241 points has its minimum, 443 MeV
    grid = cevjax.scan(like, {"m_zprime": np.linspace(420, 470, 11), "g_zprime": coupling})
    assert result.chi2_min == pytest.approx(float(np.min(grid.chi2)), abs=2e-4)


def test_narrow_minima_of_mass_and_coupling_are_found():
    """The amplitude reversed by a heavy mediator and a little larger: a strip a few percent wide, of decades."""
    lar = cevjax.load("coherent-lar-2020", statistic="2211.11905")
    like = cevjax.Likelihood([lar], cevjax.StandardModel() + cevjax.LightVector(model="universal"))
    reversed_ = cevjax.profile(like, {"g_zprime": np.geomspace(1e-5, 1e-4, 600)}, values={"m_zprime": 10.0})
    result = cevjax.fit(like, ("g_zprime", "m_zprime"))
    assert result.chi2_min < cevjax.fit(like).chi2_min - 0.9
    assert result.chi2_min <= reversed_.chi2.min() + 1e-3
