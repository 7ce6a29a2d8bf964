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


def test_csi_standard_model(csi_likelihood):
    """2211.11905 publishes 83.2; ours is 84.04.

    The excess over 83.2 is what the common time offset decides: with all beam components 10 ns later, 4 % of its range,
    the published value is met. Both figures are pinned here.
    """
    like = csi_likelihood("2211.11905")
    assert cevjax.fit(like).chi2_min == pytest.approx(84.04, abs=0.02)
    later = {"csi2021_timing": 10 / 250, "csi2021_efficiency": 0.0}
    assert cevjax.fit(csi_likelihood("2211.11905-shape"), values=later).chi2_min == pytest.approx(83.2, abs=0.1)


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


def test_csi_weak_mixing_angle_of_the_shape_statistic(csi_likelihood):
    """An independent fit gives 0.240 [0.211, 0.272], ours is 0.005 lower at every point.

    With 1.5 % less steady-state background, within its 2.1 % uncertainty, ours agrees to 0.002.
    """
    import equinox as eqx

    like = csi_likelihood("2211.11905-shape")
    measurement = eqx.tree_at(lambda m: m.components[3].total, like.measurements[0], 1267.0)
    less = cevjax.Likelihood([measurement], like.interaction)
    published = [0.211, 0.240, 0.272]
    for each, tolerance in ((like, 0.006), (less, 0.0025)):
        result = cevjax.interval(each, "sin2_theta_w", cl=0.6827)
        ((low, high),) = result.intervals
        np.testing.assert_allclose([low, result.best_fit, high], published, atol=tolerance)


def test_csi_nsi_minimum_is_below_the_standard_model(csi_likelihood):
    """2211.11905: 0.3 below with eps_dV_ee and eps_uV_ee free; an independent fit: 0.7."""
    standard = cevjax.fit(csi_likelihood("2211.11905")).chi2_min
    free = cevjax.fit(csi_likelihood("2211.11905", nsi=True), ("eps_dV_ee", "eps_uV_ee")).chi2_min
    assert 0.0 < standard - free < 0.9


def test_nsi_band_follows_its_slope(csi_likelihood):
    """Along eps_u (2Z+N) + eps_d (Z+2N) = const the charge does not change: chi2 stays flat."""
    like = csi_likelihood("2211.11905", nsi=True)
    slope = -(2 * 54 + 76) / (54 + 2 * 76)  # mean of Cs and I
    eps_u = np.array([-0.3, 0.0, 0.3])
    along = cevjax.profile(like, {"eps_uV_ee": eps_u, "eps_dV_ee": slope * eps_u}).chi2
    across = cevjax.profile(like, {"eps_uV_ee": eps_u, "eps_dV_ee": -slope * eps_u}).chi2
    assert np.ptp(along) < 0.05
    assert np.ptp(across) > 10
