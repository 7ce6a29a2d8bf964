"""Published results on real data. What does not agree is explained in the README of the study."""

import numpy as np
import pytest

import cevjax

NAME = "coherent-csi-2021"


def cevns(like, values):
    return float(like.expected(values)[NAME]["cevns"].sum())


def test_csi_standard_model_with_shape_uncertainties(csi_likelihood):
    """An independent fit of the chi2 of 2211.11905 with timing and efficiency free gives 80.2."""
    assert cevjax.fit(csi_likelihood("2211.11905-shape")).chi2_min == pytest.approx(80.2, abs=0.7)


@pytest.mark.xfail(strict=True, reason="84.04: 0.14 too much, cause not established (README of the study)")
def test_csi_standard_model(csi_likelihood):
    """2211.11905: 83.2."""
    assert cevjax.fit(csi_likelihood("2211.11905")).chi2_min == pytest.approx(83.2, abs=0.7)


def test_csi_standard_model_is_where_the_study_says(csi_likelihood):
    """The two figures that the README of the study quotes: as defined, and with the beam 10 ns later."""
    assert cevjax.fit(csi_likelihood("2211.11905")).chi2_min == pytest.approx(84.04, abs=0.01)
    later = {"csi2021_timing": 10 / 250, "csi2021_efficiency": 0.0}
    assert cevjax.fit(csi_likelihood("2211.11905-shape"), values=later).chi2_min == pytest.approx(83.21, abs=0.01)


def test_csi_events(csi_likelihood):
    """2110.07730: 306 +- 20 fitted CEvNS events; predictions of the literature lie between 305 and 345."""
    like = csi_likelihood("default")
    assert 305 < cevns(like, like.nominal()) < 345
    assert cevns(like, cevjax.fit(like).values) == pytest.approx(306, abs=15)


def test_csi_weak_mixing_angle(csi_likelihood):
    """2205.09484 and 2303.09360: 0.231 +0.027 -0.024."""
    result = cevjax.interval(csi_likelihood("2303.09360"), "sin2_theta_w", cl=0.6827)
    assert result.best_fit == pytest.approx(0.231, abs=0.008)
    np.testing.assert_allclose(result.intervals, [[0.207, 0.258]], atol=0.008)


def test_csi_neutron_radius(csi_likelihood):
    """2205.09484: 5.47 +- 0.38 fm."""
    result = cevjax.interval(csi_likelihood("2303.09360"), "R_n_CsI", cl=0.6827)
    assert result.best_fit == pytest.approx(5.47, abs=0.15)
    ((low, high),) = result.intervals
    assert (high - low) / 2 == pytest.approx(0.38, abs=0.08)


def best_and_ends(like):
    result = cevjax.interval(like, "sin2_theta_w", cl=0.6827)
    ((low, high),) = result.intervals
    return low, result.best_fit, high


@pytest.fixture(scope="module")
def shape(csi_likelihood):
    return best_and_ends(csi_likelihood("2211.11905-shape"))


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="0.005 too low at all three points, cause not established (README of the study)")
def test_csi_weak_mixing_angle_of_the_shape_statistic(shape):
    """An independent fit: 0.240 [0.211, 0.272]."""
    np.testing.assert_allclose(shape, [0.211, 0.240, 0.272], atol=0.004)


@pytest.mark.slow
def test_csi_weak_mixing_angle_of_the_shape_statistic_is_where_the_study_says(shape):
    np.testing.assert_allclose(shape, [0.2056, 0.2348, 0.2670], atol=2e-4)


def test_csi_nsi_minimum_is_below_the_standard_model(csi_likelihood):
    """2211.11905: 0.3 below with eps_dV_ee and eps_uV_ee free; an independent fit: 0.7."""
    standard = cevjax.fit(csi_likelihood("2211.11905")).chi2_min
    free = cevjax.fit(csi_likelihood("2211.11905", nsi=True), ("eps_dV_ee", "eps_uV_ee")).chi2_min
    assert 0.0 < standard - free < 0.9


def with_interaction(statistic, interaction, es):
    measurement = cevjax.load(NAME, statistic=statistic, es=es)
    return cevjax.Likelihood([measurement], cevjax.StandardModel() + interaction)


@pytest.mark.slow
def test_csi_millicharge_is_bound_two_orders_better_with_electrons():
    widths = []
    for es in (False, True):
        like = with_interaction("2211.11905", cevjax.Millicharge(), es)
        pieces = cevjax.interval(like, "q_nu_mumu").intervals
        widths.append(pieces[-1][1] - pieces[0][0])
    assert 100 < widths[0] / widths[1] < 1000


@pytest.mark.slow
def test_nsi_band_follows_its_slope(csi_likelihood):
    """Along eps_u (2Z+N) + eps_d (Z+2N) = const the charge does not change: chi2 stays flat."""
    like = csi_likelihood("2211.11905", nsi=True)
    slope = -(2 * 54 + 76) / (54 + 2 * 76)  # mean of Cs and I
    eps_u = np.array([-0.3, 0.0, 0.3])
    along = cevjax.profile(like, {"eps_uV_ee": eps_u, "eps_dV_ee": slope * eps_u}).chi2
    across = cevjax.profile(like, {"eps_uV_ee": eps_u, "eps_dV_ee": -slope * eps_u}).chi2
    assert np.ptp(along) < 0.05
    assert np.ptp(across) > 10
