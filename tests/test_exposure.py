"""More exposure: what grows, what stays, and that the factor is a number to differentiate by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cevjax
from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.exposure import scaled, total_factor, with_exposure
from cevjax.folding import fold
from cevjax.measurement import Measurement, Norm, Template
from cevjax.parameters import Gaussian, Parameter, size_pull

SIGNAL, BACKGROUND = np.array([40.0, 10.0]), np.array([60.0, 90.0])


def toy(sigma=None, **fields) -> Measurement:
    """Two bins with two components, whose sizes are known to 10 % and 20 %."""
    components = (
        Template("signal", jnp.asarray(SIGNAL), Norm((("toy_signal", 0.1),))),
        Template("background", jnp.asarray(BACKGROUND), Norm((("toy_background", 0.2),))),
    )
    return Measurement(
        name="toy",
        statistic="default",
        axes=(("E_keVee", (0.0, 1.0, 2.0)),),
        observed=np.array([111.0, 95.0]),
        components=components,
        nuisances=(size_pull("toy_signal", 0.1), size_pull("toy_background", 0.2)),
        sigma=sigma,
        **fields,
    )


def likelihood(measurement) -> cevjax.Likelihood:
    return cevjax.Likelihood([measurement], cevjax.StandardModel())


def counts(like, **values) -> dict[str, np.ndarray]:
    (parts,) = like.expected(like.nominal(**values)).values()
    return {name: np.asarray(values) for name, values in parts.items()}


def test_every_component_grows_by_the_factor_and_relative_errors_stay():
    found = counts(likelihood(scaled(toy(), 3.0)), toy_signal=1.0, toy_background=-2.0)
    np.testing.assert_allclose(found["signal"], 3 * 1.1 * SIGNAL)
    np.testing.assert_allclose(found["background"], 3 * 0.6 * BACKGROUND)


def test_there_are_no_data_but_the_expectation():
    measurement = toy(remark="digitised")
    longer = scaled(measurement, 3.0)
    np.testing.assert_allclose(longer.observed, 3 * (SIGNAL + BACKGROUND))
    assert (
        longer.remark == "digitised; forecast: no data, counts are the expectation in the standard model; exposure x 3"
    )
    assert measurement.remark == "digitised" and float(measurement.observed[0]) == 111


def test_the_errors_of_gaussian_data_are_statistical():
    longer = scaled(toy(sigma=np.array([5.0, 7.0])), 4.0)
    np.testing.assert_allclose(longer.sigma, [10.0, 14.0])
    like = with_exposure(likelihood(toy(sigma=np.array([5.0, 7.0]))), 4.0)
    np.testing.assert_allclose(like.measurements[0].sigma, [10.0, 14.0])


def test_a_side_band_lets_a_background_be_known_better():
    found = counts(likelihood(scaled(toy(), 4.0, sideband=("toy_background",))), toy_signal=1.0, toy_background=1.0)
    np.testing.assert_allclose(found["background"], 4 * 1.1 * BACKGROUND)
    np.testing.assert_allclose(found["signal"], 4 * 1.1 * SIGNAL)
    like = with_exposure(likelihood(toy()), 4.0, sideband=("toy_background",))
    np.testing.assert_allclose(counts(like, toy_background=1.0)["background"], 4 * 1.1 * BACKGROUND)


def test_exposures_multiply():
    twice = scaled(scaled(toy(), 2.0), 1.5)
    assert total_factor(twice) == 3.0 and total_factor(toy()) == 1.0
    assert twice.remark.split("; ")[1:] == ["exposure x 3"]
    np.testing.assert_allclose(twice.observed, 3 * (SIGNAL + BACKGROUND))


def test_a_forecast_grows_as_if_it_were_described_so():
    """The other way leads through the masses and days of the description."""
    ours = scaled(cevjax.load("ess-si"), 2.5)
    described = cevjax.load("ess-si", exposure_factor=2.5)
    np.testing.assert_allclose(ours.observed, described.observed, rtol=1e-12)
    a, b = counts(likelihood(ours), ess_flux=1.0), counts(likelihood(described), ess_flux=1.0)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "statistic"),
    [
        ("conus-plus-2025", "default"),
        pytest.param("dresden-ii-2022", "default", marks=pytest.mark.slow),
        pytest.param("coherent-csi-2017", "default", marks=pytest.mark.slow),
        pytest.param("coherent-lar-2020", "default", marks=pytest.mark.slow),
        pytest.param("ess-xe", "default", marks=pytest.mark.slow),
    ],
)
def test_every_measurement_grows(name, statistic):
    measurement = cevjax.load(name, statistic=statistic)
    model = cevjax.StandardModel() + cevjax.MagneticMoment()  # electrons count, too
    like = cevjax.Likelihood([measurement], model)
    point = like.nominal(mu_nu_e=3e-9, **{n: 0.3 for n in like.nuisances if like.parameters[n].unit == "sigma"})
    for longer in (cevjax.Likelihood([scaled(measurement, 3.0)], model), with_exposure(like, 3.0)):
        before, after = like.expected(point)[name], longer.expected(point)[name]
        assert before.keys() == after.keys()
        for component in before:
            np.testing.assert_allclose(after[component], 3 * before[component], rtol=1e-12)
        assert (measurement.sigma is None) == (longer.measurements[0].sigma is None)
        if measurement.sigma is not None:
            np.testing.assert_allclose(longer.measurements[0].sigma, np.sqrt(3) * measurement.sigma)
        assert longer.parameters == like.parameters


def test_one_factor_for_each_measurement_and_what_is_said_about_it():
    names = ("ess-si", "conus-plus-2025")
    like = cevjax.Likelihood([cevjax.load(name) for name in names], cevjax.StandardModel())
    longer = with_exposure(like, [3.0, 1.0])
    before, after = like.expected(like.nominal()), longer.expected(like.nominal())
    for name, factor in zip(names, (3.0, 1.0), strict=True):
        np.testing.assert_allclose(after[name]["cevns"], factor * before[name]["cevns"], rtol=1e-12)
    assert longer.note.startswith("exposure x 3 of ess-si, x 1 of conus-plus-2025; Asimov data")
    assert with_exposure(like, 2.0).note.startswith("exposure x 2; Asimov data")
    assert float(longer.nll(longer.nominal())) == pytest.approx(0, abs=1e-12)


def test_the_factor_is_an_argument_like_any_other():
    measurement = toy(sigma=np.array([5.0, 7.0]))
    like = likelihood(measurement)

    def events(factor):
        return with_exposure(like, factor).measurements[0].observed.sum()

    total = (SIGNAL + BACKGROUND).sum()
    assert float(jax.grad(events)(2.0)) == pytest.approx(total)
    np.testing.assert_allclose(jax.vmap(jax.jit(events))(jnp.array([1.0, 2.0, 5.0])), total * np.array([1, 2, 5]))
    assert float(jax.grad(lambda f: scaled(measurement, f).observed[0])(2.0)) == pytest.approx(100)
    assert float(jax.grad(lambda f: scaled(scaled(measurement, f), 3.0).observed[0])(2.0)) == pytest.approx(300)
    assert float(jax.jit(lambda f: scaled(scaled(measurement, f), 3.0).observed[0])(3.0)) == pytest.approx(900)


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_a_folded_likelihood_knows_the_exposure(factor):
    like = with_exposure(likelihood(cevjax.load("ess-si")), factor, sideband=("ess_si_steady",))
    at = {"ess_flux": 0.5, "ess_si_steady": -1.0}
    folded = fold(like, ("sin2_theta_w", "ess_flux", "ess_si_steady"), {}, {})
    for value in (0.2, 0.3):
        exact = counts(like, sin2_theta_w=value, **at)
        near = counts(folded, sin2_theta_w=value, **at)
        held = folded.hold({"sin2_theta_w": value})
        total = np.sqrt(sum(exact.values()))
        for name in exact:
            assert np.all(np.abs(near[name] - exact[name]) < 0.01 * total)
            np.testing.assert_allclose(counts(held, sin2_theta_w=value, **at)[name], near[name], rtol=1e-9)


def unconstrained() -> Measurement:
    components = (Template("signal", jnp.asarray(SIGNAL)),)
    size = Parameter("toy_size", 1.0, constraint=Gaussian(1.0, 0.1), nuisance=True)
    return Measurement("toy", "default", (("E_keVee", (0.0, 1.0, 2.0)),), SIGNAL, components, (size,))


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan, np.inf, "three", None, [1.0, 2.0], np.ones(3)])
def test_unusable_factors(factor):
    with pytest.raises(InvalidValueError, match="Argument `factor` must be a finite number above 0, but was"):
        scaled(toy(), factor)
    with pytest.raises(InvalidValueError, match="Argument `factor` must be"):
        with_exposure(likelihood(toy()), factor)


def test_unusable_side_bands():
    with pytest.raises(UnknownNameError, match="Did you mean 'toy_background'"):
        scaled(toy(), 2.0, sideband=("toy_backgroud",))
    with pytest.raises(UnknownNameError, match="Did you mean 'toy_background'"):
        with_exposure(likelihood(toy()), 2.0, sideband=("toy_backgroud",))
    with pytest.raises(InvalidValueError, match="must name pulls, constrained to 0 .- 1, but toy_size is none"):
        scaled(unconstrained(), 2.0, sideband=("toy_size",))
