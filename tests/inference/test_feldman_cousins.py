"""Feldman-Cousins: the published table, Wilks' theorem where that holds, adaptive numbers, files and errors."""

import numpy as np
import pytest
from scipy.stats import norm

import cevjax
from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.inference.feldman_cousins import FeldmanCousinsResult
from cevjax.likelihood import Likelihood
from cevjax.measurement import Measurement, Norm, Template
from cevjax.parameters import Gaussian, Parameter
from cevjax.scans import ScanResult


def counting(observed, background=3.0):
    """One bin: a signal of 1 + ``more`` events, never negative, on a background that is known to 1e-6."""
    more = Parameter("more", 0.0, bounds=(-1.0, 50.0), window=(-1.0, 20.0))
    tiny = Parameter("b", 0.0, bounds=(-5.0, 5.0), constraint=Gaussian(0.0, 1.0), nuisance=True)
    parts = (
        Template("signal", np.full(1, 1.0), Norm((("more", 1.0),))),
        Template("background", np.full(1, background), Norm((("b", 1e-6),))),
    )
    m = Measurement("counting", "default", (("x", (0.0, 1.0)),), np.full(1, observed), parts, (tiny, more))
    return Likelihood([m], cevjax.StandardModel())


@pytest.mark.parametrize(("observed", "ends"), [(0.0, (0.0, 1.08)), (3.0, (0.0, 4.42)), (8.0, (1.51, 10.99))])
def test_the_table_of_feldman_and_cousins(observed, ends):
    """Signal means at 90 % for a known background of 3 (Table IV of physics/9711021)."""
    like = counting(observed)
    for end, inwards in zip(ends, (0.25, -0.25), strict=True):
        if end > 0:
            around = np.sort([end - 1 - inwards, end - 1 + inwards])
            result = cevjax.feldman_cousins(like, {"more": around}, (0.90,), n_first=4000, n_max=4000, seed=1)
            inside = result.inside(0.90)
            assert list(inside) == ([False, True] if inwards > 0 else [True, False]), result.p_value


def angle():
    return cevjax.Likelihood([cevjax.load("conus-plus-2025")], cevjax.StandardModel())


GRID = {"sin2_theta_w": np.linspace(0.14, 0.34, 9)}


def test_wilks_holds_for_gaussian_data_far_from_bounds():
    result = cevjax.feldman_cousins(angle(), GRID, (0.90,), n_first=400, n_max=400, seed=2)
    expected = 2 * norm.sf(np.sqrt(result.wilks.delta_chi2))
    error = np.sqrt(np.maximum(expected * (1 - expected), 0.01) / 400)
    assert np.all(np.abs(result.p_value - expected) < 4.5 * error)
    near = expected > 0.02
    np.testing.assert_allclose(result.toys.delta_chi2[near], result.wilks.delta_chi2[near], atol=0.9)
    assert np.nanmax(np.abs(result.dataset["critical_90"].values - 2.71)) < 0.9


def test_clear_points_need_few_toys_and_nothing_depends_on_how_many_others_there_are():
    result = cevjax.feldman_cousins(angle(), GRID, (0.90,), n_first=50, n_max=800, seed=3)
    toys = result.dataset["n_toys"].values
    assert toys.min() == 50 and toys.max() > 50
    again = cevjax.feldman_cousins(angle(), GRID, (0.90,), n_first=50, n_max=800, seed=3)
    np.testing.assert_array_equal(result.p_value, again.p_value)
    assert result.scan.facts["n_toys"] == toys.sum() and result.scan.facts["n_failed"] == 0


def test_files_and_resume(tmp_path):
    path = tmp_path / "fc.nc"
    result = cevjax.feldman_cousins(angle(), GRID, (0.90,), n_max=100, seed=4, out=path)
    loaded = FeldmanCousinsResult(ScanResult.load(path))
    np.testing.assert_array_equal(loaded.p_value, result.p_value)
    np.testing.assert_array_equal(loaded.inside(0.90), result.inside(0.90))
    assert [p.name for p in tmp_path.iterdir()] == ["fc.nc"]


def test_unusable_input():
    like = angle()
    with pytest.raises(UnknownNameError, match="sin2_theta_w"):
        cevjax.feldman_cousins(like, {"sin2_theta": [0.2]})
    for options, said in (
        ({"cl": ()}, "at least one"),
        ({"cl": (90,)}, "between 0 and 1"),
        ({"n_first": 0}, "n_first"),
        ({"n_first": 200, "n_max": 100}, "n_max"),
        ({"seed": -1}, "seed"),
        ({"out": "fc.csv"}, "zarr"),
    ):
        with pytest.raises(InvalidValueError, match=said):
            cevjax.feldman_cousins(like, GRID, **options)
