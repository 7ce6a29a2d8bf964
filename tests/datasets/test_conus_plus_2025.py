"""CONUS+: embedded table against the digitisation, the one nuisance, choices and errors."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cevjax
from cevjax.datasets import conus_plus_2025 as conus
from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.tables import data_dir, read_toml

NAME = conus.NAME


@pytest.fixture(scope="module")
def digitised():
    """The digitisation; the test is skipped without it."""
    releases = Path(os.environ.get("CEVJAX_RELEASES", Path(__file__).parents[3] / "shared" / "releases"))
    path = releases / NAME / "excess_digitised.csv"
    if not path.is_file():
        pytest.skip("the digitisation of arXiv:2501.05206 is not at hand: set CEVJAX_RELEASES to its folder's parent")
    return np.loadtxt(path, delimiter=",", skiprows=2)


@pytest.fixture(scope="module")
def like():
    return cevjax.Likelihood(cevjax.load(NAME), cevjax.StandardModel())


def test_embedded_table_is_the_digitisation(digitised):
    measurement = cevjax.load(NAME)
    assert digitised.shape == (19, 4)
    np.testing.assert_array_equal(measurement.observed, digitised[:, 2])
    np.testing.assert_array_equal(measurement.sigma, digitised[:, 3])
    ((_, edges),) = measurement.axes
    np.testing.assert_allclose(edges, np.append(digitised[:, 0], digitised[-1, 1]) * 1e-3, rtol=1e-12)


def test_numbers_of_the_publication():
    measurement = cevjax.load(NAME)
    assert measurement.shape == (19,)
    ((axis, edges),) = measurement.axes
    assert axis == "E_keVee" and (edges[0], edges[-1]) == (0.16, 0.35)
    # 395 +- 106 in 327 kg days; the digitised bins give 344, and statistics alone 81
    counts = 327 / 119 * float(measurement.observed.sum())
    assert abs(counts - 395) < 0.5 * 106
    facts = read_toml(data_dir(NAME) / "measurement.toml")
    assert (facts["detector"]["baseline_m"], facts["detector"]["lindhard_k"]) == (20.7, 0.162)
    assert (facts["flux"]["per_cm2_s"], facts["flux"]["relative_error"]) == (1.5e13, 0.169)
    assert sum(facts["flux"]["fractions"].values()) == pytest.approx(1)
    assert np.any(np.asarray(measurement.observed) < 0)  # an excess over the background may be negative


def test_what_everyone_must_know_is_said(like):
    remark = like.measurements[0].remark
    assert "third party" in remark and "2501.05206" in remark and "no official" in remark
    assert "2501.05206" in like.measurements[0].citation


def test_lowest_recoil_ionises_one_pair():
    """Solved by hand: E_ee(27.2 eV) = 2.96 eV with Lindhard quenching of k = 0.162."""
    found = 1e6 * float(cevjax.load(NAME).components[0].response.quenching({}, 0.0272e-3))
    assert found == pytest.approx(2.96, rel=5e-3)
    grid = cevjax.load(NAME).components[0].grid
    assert grid.panels[0][0] == pytest.approx(0.0272e-3, rel=1e-12)


def test_electrons_count_where_they_are_asked_for():
    sm, moments = cevjax.StandardModel(), cevjax.StandardModel() + cevjax.MagneticMoment()
    for es, in_sm, in_mm in ((None, False, True), (True, True, True), (False, False, False)):
        measurement = cevjax.load(NAME, es=es)
        for interaction, there in ((sm, in_sm), (moments, in_mm)):
            names = [c.name for c in measurement.components if c.relevant(interaction)]
            assert names == ["cevns", *["es"] * there]


def test_both_names_of_the_statistic_are_the_same(like):
    other = cevjax.Likelihood(cevjax.load(NAME, statistic="2501.17843"), cevjax.StandardModel())
    assert other.measurements[0].statistic == "2501.17843"
    point = like.nominal(conus_signal=0.7)
    assert float(other.nll(point)) == pytest.approx(float(like.nll(point)), rel=1e-14)


def test_the_normalisation(like):
    nominal = np.asarray(like.expected(like.nominal())[NAME]["cevns"])
    shifted = np.asarray(like.expected(like.nominal(conus_signal=1.0))[NAME]["cevns"])
    np.testing.assert_allclose(shifted / nominal, 1.169, rtol=1e-12)
    assert like.nuisances == ("conus_signal",)
    empty = np.asarray(like.expected(like.nominal(conus_signal=-1 / 0.169))[NAME]["cevns"])
    np.testing.assert_allclose(empty, 0, atol=1e-12)
    with pytest.raises(InvalidValueError, match="conus_signal"):
        like.nominal(conus_signal=-6.0)


def test_the_fit_has_a_closed_form(like):
    """One linear nuisance: chi2 and its minimum follow from the expected counts."""
    m = like.measurements[0]
    mu, n, sigma = (np.asarray(x) for x in (like.expected(like.nominal())[NAME]["cevns"], m.observed, m.sigma))
    information = 1 + np.sum((0.169 * mu / sigma) ** 2)
    best = np.sum(0.169 * mu * (n - mu) / sigma**2) / information
    found = cevjax.fit(like)
    assert found.converged
    assert found.values["conus_signal"] == pytest.approx(best, abs=1e-4)
    assert found.errors["conus_signal"] == pytest.approx(information**-0.5, rel=1e-5)
    chi2 = np.sum(((n - (1 + 0.169 * best) * mu) / sigma) ** 2) + best**2
    assert found.chi2_min == pytest.approx(chi2, abs=1e-7)


@pytest.mark.parametrize("form_factor", ["klein-nystrand", "fermi"])
def test_form_factors_hardly_matter(like, form_factor):
    """q R < 0.3 for all recoils of reactor antineutrinos."""
    other = cevjax.Likelihood(cevjax.load(NAME, form_factor=form_factor), cevjax.StandardModel())
    ours, theirs = (np.asarray(x.expected(x.nominal())[NAME]["cevns"]) for x in (like, other))
    np.testing.assert_allclose(theirs, ours, rtol=0.01)
    assert np.abs(theirs / ours - 1).max() > 1e-6


def test_gradient_of_the_likelihood(like):
    point = like.nominal(conus_signal=0.4)
    found = jax.jit(jax.grad(like.nll))(point)
    for name in ("conus_signal", "sin2_theta_w", "conus_fission_U235", "conus_fission_U238", "R_n_Ge72"):
        h = 1e-3 * like.parameters[name].scale
        ends = [float(like.nll({**point, name: point[name] + s * h})) for s in (-1, 1)]
        assert float(found[name]) == pytest.approx((ends[1] - ends[0]) / (2 * h), rel=1e-5, abs=1e-6), name


def test_jit_equals_eager_equals_vmap(like):
    points = [like.nominal(), like.nominal(conus_signal=-0.8, sin2_theta_w=0.2)]
    columns = {name: jnp.array([p[name] for p in points]) for name in points[0]}
    measurement = like.measurements[0]
    eager = measurement.expected(points[1], like.interaction)["cevns"]
    chi2 = np.sum(np.asarray((measurement.observed - eager) / measurement.sigma) ** 2) + 0.8**2
    assert float(like.chi2(points[1])) == pytest.approx(chi2, rel=1e-11)
    np.testing.assert_allclose(jax.vmap(like.nll)(columns), [float(like.nll(p)) for p in points], rtol=1e-11)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"statistic": "2501.17834"}, r"Unknown statistic '2501\.17834'\. Did you mean '2501\.17843'"),
        ({"flux": "kopeikin"}, "Unknown reactor flux 'kopeikin'"),
        ({"flux": "HMK"}, "Did you mean 'hmk'"),
        ({"form_factor": "ferm"}, "Unknown form factor 'ferm'. Did you mean 'fermi'"),
        ({"release": "somewhere"}, "Unknown choice of data set 'conus-plus-2025' 'release'"),
        ({"quenching": "fef"}, "Unknown choice of data set 'conus-plus-2025' 'quenching'"),
    ],
)
def test_unknown_choices_are_named(choice, message):
    with pytest.raises(UnknownNameError, match=message):
        cevjax.load(NAME, **choice)


def test_choice_of_electrons_must_be_a_flag():
    with pytest.raises(InvalidValueError, match="Argument `es` must be True, False or None, but was 1"):
        cevjax.load(NAME, es=1)
