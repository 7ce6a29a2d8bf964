"""Forecasts: closed forms, numerical second derivatives, iminuit, and the gradient of an expected error."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy.special import gammaincinv

import cevjax
from cevjax.errors import InvalidValueError, UnknownNameError
from cevjax.exposure import with_exposure
from cevjax.inference.forecast import ONE_SIGMA, expected_errors, fisher, forecast, information
from cevjax.measurement import Component, Measurement, Norm, Template
from cevjax.parameters import Parameter, size_pull
from cevjax.results import to_json

SIGNAL, BACKGROUND = 100.0, 300.0
SIGNAL_ERROR, BACKGROUND_ERROR = 0.08, 0.05
NUISANCES = ("toy_signal", "toy_background")


class Counter(Component):
    """Counts times the sum of some strengths, or of their squares."""

    name: str = eqx.field(static=True)
    counts: Array
    norm: Norm
    strengths: tuple[str, ...] = eqx.field(static=True)
    power: int = eqx.field(static=True)
    nominal: float = eqx.field(static=True)

    @property
    def parameters(self):
        return tuple(Parameter(name, self.nominal, bounds=(-9.0, 9.0), scale=0.1) for name in self.strengths)

    def __call__(self, params, interaction):
        return self.norm(params) * sum(params[name] ** self.power for name in self.strengths) * self.counts


def toy(
    strengths=("strength",), power=1, nominal=None, signal=SIGNAL, background=BACKGROUND, sigma=None, name="toy"
) -> Measurement:
    """A counting experiment, or several bins of it: signal and background, each with an error of its size."""
    nominal = 1.0 / len(strengths) if nominal is None else nominal
    signal, background = np.atleast_1d(signal), np.atleast_1d(background)
    return Measurement(
        name=name,
        statistic="default",
        axes=(("E_keVee", tuple(map(float, range(len(signal) + 1)))),),
        observed=1.1 * (signal + background),
        sigma=sigma,
        components=(
            Counter("signal", jnp.asarray(signal), Norm((("toy_signal", SIGNAL_ERROR),)), strengths, power, nominal),
            Template("background", jnp.asarray(background), Norm((("toy_background", BACKGROUND_ERROR),))),
        ),
        nuisances=(size_pull("toy_signal", SIGNAL_ERROR), size_pull("toy_background", BACKGROUND_ERROR)),
    )


def likelihood(*measurements) -> cevjax.Likelihood:
    return cevjax.Likelihood(measurements, cevjax.StandardModel())


def closed_form(factor: float = 1.0, side_band: bool = False) -> float:
    """Error of the strength: statistical, of the signal's size and of the background's, in quadrature."""
    steady = (BACKGROUND_ERROR * BACKGROUND) ** 2 / (factor if side_band else 1.0)
    return np.sqrt((SIGNAL + BACKGROUND) / factor + (SIGNAL_ERROR * SIGNAL) ** 2 + steady) / SIGNAL


# --------------------------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("factor", [0.1, 1.0, 30.0, 1e9])
@pytest.mark.parametrize("side_band", [False, True])
def test_one_bin_with_gaussian_nuisances(factor, side_band):
    like = with_exposure(likelihood(toy()), factor, NUISANCES[1:] if side_band else ())
    expected = closed_form(factor, side_band)
    assert fisher(like, free=("strength",)).errors["strength"] == pytest.approx(expected, rel=1e-6)
    error = expected_errors(like, like.nominal(), ("strength", *NUISANCES))[0]
    assert float(error) == pytest.approx(expected, rel=1e-6)


def test_statistics_fall_like_the_root_of_the_exposure_down_to_the_systematic_floor():
    like = likelihood(toy())
    alone = [fisher(with_exposure(like, f), free=("strength",), fixed=NUISANCES).errors["strength"] for f in (1, 4, 9)]
    np.testing.assert_allclose(alone, np.sqrt(SIGNAL + BACKGROUND) / SIGNAL / np.array([1, 2, 3]), rtol=1e-9)
    floor = np.hypot(SIGNAL_ERROR * SIGNAL, BACKGROUND_ERROR * BACKGROUND) / SIGNAL
    assert fisher(with_exposure(like, 1e9), free=("strength",)).errors["strength"] == pytest.approx(floor, rel=1e-5)


def test_gaussian_data():
    like = likelihood(toy(sigma=np.array([25.0])))
    for factor in (1.0, 4.0):
        size = np.hypot(SIGNAL_ERROR * SIGNAL, BACKGROUND_ERROR * BACKGROUND)
        expected = np.hypot(25.0 / np.sqrt(factor), size) / SIGNAL
        error = fisher(with_exposure(like, factor), free=("strength",)).errors["strength"]
        assert error == pytest.approx(expected, rel=1e-9)


def test_independent_measurements_add_their_information():
    one, other = toy(), toy(name="other", signal=50.0, background=20.0)
    matrices = [fisher(likelihood(*pair), free=("strength",)).matrix for pair in ((one,), (other,), (one, other))]
    constraints = np.diag([0.0, 1.0, 1.0])  # shared, so counted once
    np.testing.assert_allclose(matrices[2] + constraints, matrices[0] + matrices[1], rtol=1e-12)


def test_eliminating_parameters():
    like = likelihood(toy(strengths=("a", "b"), signal=[100.0, 40.0], background=[50.0, 300.0]))
    result = fisher(like, {"a": 0.6}, free=("a",))
    kept = [result.names.index(name) for name in ("a", "toy_background")]
    block = result.covariance[np.ix_(kept, kept)]
    np.testing.assert_allclose(result.profiled(("a", "toy_background")), np.linalg.inv(block), rtol=1e-9)
    assert result.profiled("a")[0, 0] == pytest.approx(result.errors["a"] ** -2)
    np.testing.assert_allclose(np.diag(result.correlation), 1)


# ---------------------------------------------------------------------------------------- against independent numerics


def numpy_nll(signal, background, strength, nuisances, observed):
    mu = (1 + SIGNAL_ERROR * nuisances[0]) * strength * signal + (1 + BACKGROUND_ERROR * nuisances[1]) * background
    return np.sum(mu - observed * np.log(mu)) + 0.5 * np.sum(np.square(nuisances))


def second_derivatives(function, x, steps):
    """Central differences of fourth order."""
    n = len(x)
    weights = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}
    hessian = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            for a, wa in weights.items():
                for b, wb in weights.items():
                    moved = x + a * steps[i] * np.eye(n)[i] + b * steps[j] * np.eye(n)[j]
                    hessian[i, j] += wa * wb * function(moved) / (steps[i] * steps[j])
    return hessian


def test_information_is_the_curvature_of_the_asimov_likelihood():
    """At any point, with the auxiliary measurements at their means, from a likelihood written in NumPy."""
    signal, background = np.array([100.0, 40.0, 7.0]), np.array([50.0, 300.0, 2.0])
    like = likelihood(toy(signal=signal, background=background))
    point = {"strength": 1.3, "toy_signal": 0.4, "toy_background": -0.7}
    result = fisher(like, point, free=("strength",))
    assert result.names == ("strength", *NUISANCES)
    x = np.array([point[name] for name in result.names])
    observed = 1.3 * (1 + 0.4 * SIGNAL_ERROR) * signal + (1 - 0.7 * BACKGROUND_ERROR) * background
    numeric = second_derivatives(
        lambda x: numpy_nll(signal, background, x[0], x[1:], observed), x, np.array([0.01, 0.05, 0.05])
    )
    np.testing.assert_allclose(result.matrix, numeric, rtol=1e-6)


@pytest.fixture(scope="module")
def germanium():
    return likelihood(cevjax.load("ess-ge"))


def test_a_real_detector_against_differences_of_its_own_likelihood(germanium):
    point = germanium.nominal(sin2_theta_w=0.23, ess_flux=0.3)
    data = germanium.asimov(point)
    result = fisher(germanium, point, free=("sin2_theta_w",))
    x = np.array([point[name] for name in result.names])

    def curvature(x):
        return float(data.nll({**point, **dict(zip(result.names, map(float, x), strict=True))}))

    numeric = second_derivatives(curvature, x, np.array([0.01, 0.1, 0.1]))
    np.testing.assert_allclose(result.matrix, numeric, rtol=1e-5, atol=1e-6)


def test_expected_error_against_iminuit(germanium):
    iminuit = pytest.importorskip("iminuit")
    point = germanium.nominal()
    data = germanium.asimov(point)
    names = ("sin2_theta_w", *germanium.nuisances)
    chi2 = lambda x: 2 * float(data.nll({**point, **dict(zip(names, map(float, x), strict=True))}))  # noqa: E731
    fitted = iminuit.Minuit(chi2, [point[name] for name in names], name=names)
    fitted.errordef, fitted.errors = 1, [0.02, 1.0, 1.0]  # HESSE is good to a few per cent with steps of its own
    fitted.hesse()
    expected = fisher(germanium, free=("sin2_theta_w",)).errors
    for name in names:
        assert expected[name] == pytest.approx(fitted.errors[name], rel=2e-3)


@pytest.mark.slow
def test_expected_error_of_real_data_against_the_fit_of_the_asimov_data(csi_likelihood):
    like = csi_likelihood()
    fitted = cevjax.fit(like.asimov(like.nominal()), free=("sin2_theta_w",))
    result = fisher(like, free=("sin2_theta_w",))
    for name in result.names:
        assert result.errors[name] == pytest.approx(fitted.errors[name], rel=1e-3)


# ----------------------------------------------------------------------------------------------------------- gradients


def test_gradient_of_the_expected_error_by_the_exposure(germanium):
    names = ("sin2_theta_w", *germanium.nuisances)

    @jax.jit
    def error(factor):
        return expected_errors(with_exposure(germanium, factor), germanium.nominal(), names)[0]

    slope = float(jax.grad(error)(2.0))
    assert slope == pytest.approx(float(error(2.001) - error(1.999)) / 0.002, rel=1e-5)
    assert slope < 0
    factors = np.array([0.5, 1.0, 20.0])
    np.testing.assert_allclose(jax.vmap(error)(factors), [float(error(f)) for f in factors], rtol=1e-9)


def test_gradient_by_the_share_of_the_exposure():
    """Experiment design: of two detectors one sees a + b and the other a; b is wanted. The best share of the time."""
    other = toy(strengths=("a",), name="other", signal=30.0, background=5.0, nominal=0.5)
    like = likelihood(toy(strengths=("a", "b")), other)

    @jax.jit
    def error(share):
        return expected_errors(with_exposure(like, [share, 1 - share]), like.nominal(), ("a", "b"))[1]

    of_sum, of_a = np.sqrt(SIGNAL + BACKGROUND) / SIGNAL, np.sqrt(15.0 + 5.0) / 30.0
    for share in (0.2, 0.6):
        assert float(error(share)) == pytest.approx(np.sqrt(of_sum**2 / share + of_a**2 / (1 - share)))
    best = of_sum / (of_sum + of_a)
    slopes = jax.vmap(jax.grad(error))(np.array([best - 0.1, best, best + 0.1]))
    assert slopes[0] < 0 < slopes[2] and float(slopes[1]) == pytest.approx(0, abs=1e-9)


def test_gradient_by_a_parameter_and_batches_of_points():
    like = likelihood(toy())
    names = ("strength", *NUISANCES)

    def error(strength):
        return expected_errors(like, {**like.nominal(), "strength": strength}, names)[0]

    exact = lambda s: np.sqrt(s * SIGNAL + BACKGROUND + (SIGNAL_ERROR * s * SIGNAL) ** 2 + 15.0**2) / SIGNAL  # noqa: E731
    assert float(error(1.7)) == pytest.approx(exact(1.7))
    assert float(jax.grad(error)(1.7)) == pytest.approx((exact(1.71) - exact(1.69)) / 0.02, rel=1e-4)
    points = {**{n: jnp.zeros(3) for n in like.nominal()}, "strength": jnp.array([0.5, 1.0, 2.0])}
    matrices = jax.jit(jax.vmap(lambda p: information(like, p, names)))(points)
    for strength, matrix in zip((0.5, 1.0, 2.0), matrices, strict=True):
        np.testing.assert_allclose(matrix, fisher(like, {"strength": strength}, free=("strength",)).matrix, rtol=1e-9)


# ------------------------------------------------------------------------------------------------ flat and degenerate


def test_a_coupling_that_enters_squared_is_flat_at_zero():
    like = likelihood(toy(power=2, nominal=0.0))
    result = fisher(like, free=("strength",))
    assert result.flat == ("strength",) and result.errors["strength"] is None
    assert np.all(np.isnan(result.covariance[0]))
    others = fisher(like)
    assert all(result.errors[name] == pytest.approx(others.errors[name]) for name in NUISANCES)
    assert fisher(like, {"strength": 1.0}, free=("strength",)).errors["strength"] == pytest.approx(closed_form() / 2)


def test_degenerate_parameters_have_no_error_but_their_combination_is_known():
    like = likelihood(toy(strengths=("a", "b")))
    result = fisher(like, free=("a", "b"))
    assert result.degenerate == ("a", "b") and result.flat == ()
    assert result.errors["a"] is None and result.errors["b"] is None
    assert result.errors["toy_background"] == pytest.approx(fisher(like, free=("a",)).errors["toy_background"])
    size, direction = np.linalg.eigh(result.profiled(("a", "b")))
    assert size[0] == pytest.approx(0, abs=1e-8)
    assert abs(direction[:, 1]) == pytest.approx(np.sqrt([0.5, 0.5]))
    assert size[1] ** -0.5 == pytest.approx(closed_form() / np.sqrt(2))  # of (a + b) / sqrt(2)


def test_couplings_of_tau_neutrinos_and_those_that_change_flavour_are_flat():
    model = cevjax.StandardModel() + cevjax.NSI()
    like = cevjax.Likelihood([cevjax.load("ess-si")], model)
    result = fisher(like, free=("eps_dV_ee", "eps_uV_tautau", "eps_uV_emu"))
    assert result.flat == ("eps_uV_tautau", "eps_uV_emu")
    assert result.errors["eps_dV_ee"] > 0


# ----------------------------------------------------------------------------------------------------------- forecasts


def test_intervals_of_a_counting_experiment():
    """The profile of one bin without nuisances has a closed form."""
    result = forecast(
        likelihood(toy()), ("strength",), dict.fromkeys(NUISANCES, 0.0), exposure=4.0, asimov={"strength": 1.2}
    )
    signal, background = 4 * SIGNAL, 4 * BACKGROUND
    observed = 1.2 * signal + background
    for cl in (ONE_SIGMA, 0.90):
        ((low, high),) = result.pieces("strength", cl)
        for end in (low, high):
            mu = end * signal + background
            assert 2 * (mu - observed - observed * np.log(mu / observed)) == pytest.approx(
                2 * gammaincinv(0.5, cl), abs=1e-5
            )
        assert low < 1.2 < high
    assert result.errors["strength"] == pytest.approx(np.sqrt(observed) / signal, rel=1e-9)
    assert result.converged and result.message == ""


def test_many_events_make_the_interval_symmetric_around_the_truth():
    truth, factor = 1.1, 1e4
    result = forecast(likelihood(toy()), ("strength",), exposure=factor, asimov={"strength": truth})
    ((low, high),) = result.pieces("strength", ONE_SIGMA)
    assert (low + high) / 2 == pytest.approx(truth, abs=0.05 * (high - low))
    assert (high - low) / 2 == pytest.approx(result.errors["strength"], rel=0.02)


def test_exposure_narrows_what_is_expected():
    like = likelihood(toy())
    one, ten = (forecast(like, "strength", exposure=f) for f in (1.0, 10.0))
    ((low, high),), ((lower, higher),) = one.pieces("strength"), ten.pieces("strength")
    assert low < lower < 1 < higher < high
    direct = cevjax.interval(like.asimov(like.nominal()), "strength", cl=0.90)
    assert one.pieces("strength") == direct.intervals


@pytest.mark.slow
def test_a_detector_of_ten_times_the_exposure(germanium):
    """The other way leads through the masses and days of the description."""
    ten = forecast(germanium, "sin2_theta_w", exposure=10.0)
    described = likelihood(cevjax.load("ess-ge", exposure_factor=10.0))
    ends = cevjax.interval(described, "sin2_theta_w").intervals
    np.testing.assert_allclose(ten.pieces("sin2_theta_w"), ends, atol=1e-6)


def test_real_and_future_measurements_together():
    like = likelihood(cevjax.load("conus-plus-2025"), cevjax.load("ess-si"))
    alone = forecast(likelihood(cevjax.load("conus-plus-2025")), "sin2_theta_w", intervals=False)
    result = forecast(like, "sin2_theta_w", exposure=[1.0, 50.0], intervals=False)
    assert result.exposure == {"conus-plus-2025": 1.0, "ess-si": 50.0}
    assert result.errors["sin2_theta_w"] < 0.5 * alone.errors["sin2_theta_w"]
    assert set(result.expected()) == {"conus-plus-2025", "ess-si"}
    assert float(result.likelihood.nll(result.values)) == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_intervals_of_real_and_future_measurements_together():
    like = likelihood(cevjax.load("conus-plus-2025"), cevjax.load("ess-xe"))
    result = forecast(like, "sin2_theta_w", exposure=[5.0, 3.0])
    ((low, high),) = result.pieces("sin2_theta_w", ONE_SIGMA)
    assert (high - low) / 2 == pytest.approx(result.errors["sin2_theta_w"], rel=0.05)
    assert result.converged and low < 0.23857 < high


def test_the_json_says_all():
    like = likelihood(toy(strengths=("a", "b")))
    result = forecast(like, ("a",), {"b": 0.5}, exposure=2.0, cl=0.95, sideband=("toy_background",))
    told = json.loads(to_json(result.to_dict()))
    assert told["command"] == "forecast" and told["datasets"] == ["toy"]
    assert told["exposure"] == {"toy": 2.0} and told["asimov"]["a"] == 0.5 and told["fixed"]["b"] == 0.5
    entry = told["parameters"]["a"]
    assert entry["value"] == 0.5 and entry["unit"] == ""
    assert entry["error"] == pytest.approx(closed_form(2.0, side_band=True), rel=1e-9)
    assert entry["interval68"] == result.pieces("a", ONE_SIGMA) and entry["interval95"] == result.pieces("a")
    assert set(told["nuisances"]) == set(NUISANCES) and told["correlation"] == [[pytest.approx(1.0)]]
    assert told["expected"]["toy"] == pytest.approx({"signal": 2 * SIGNAL, "background": 2 * BACKGROUND})
    assert told["remarks"]["toy"] == "exposure x 2; Asimov data, the expectation at the nominal point"


def test_without_intervals_there_are_errors_alone():
    result = forecast(likelihood(toy()), "strength", intervals=False)
    assert result.intervals == {} and result.errors["strength"] == pytest.approx(closed_form())
    assert result.converged and "interval90" not in result.to_dict()["parameters"]["strength"]
    with pytest.raises(UnknownNameError, match="strength"):
        result.pieces("strength")


def test_what_has_no_error_is_said_and_may_still_have_a_limit():
    squared = forecast(likelihood(toy(power=2, nominal=0.0)), "strength")
    assert squared.errors["strength"] is None
    assert squared.message == "no effect to first order, so no error: strength"
    ((low, high),) = squared.pieces("strength")
    assert low == pytest.approx(-high) and high > 0
    double = forecast(likelihood(toy(strengths=("a", "b"))), ("a", "b"), intervals=False)
    assert double.message == "only combinations are measured, so no errors: a, b"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"free": ("strenght",)}, UnknownNameError, "Did you mean 'strength'"),
        ({"free": ()}, InvalidValueError, "`free` must name at least one parameter of interest, but is empty"),
        ({"free": "strength", "values": {"strength": 1.0}}, InvalidValueError, "either free or set"),
        ({"free": "strength", "cl": 90}, InvalidValueError, "`cl` must be between 0 and 1"),
        ({"free": "strength", "exposure": 0.0}, InvalidValueError, "must be a finite number above 0, but was 0.0"),
        ({"free": "strength", "exposure": [1.0, 2.0]}, InvalidValueError, "one for each of the 1 measurements"),
        ({"free": "strength", "asimov": {"strengthh": 1.0}}, UnknownNameError, "Did you mean 'strength'"),
        ({"free": "strength", "asimov": {"strength": 99.0}}, InvalidValueError, "between -9 and 9"),
        ({"free": "strength", "sideband": ("toy_backgroun",)}, UnknownNameError, "Did you mean 'toy_background'"),
    ],
)
def test_unusable_forecasts(arguments, error, message):
    with pytest.raises(error, match=message):
        forecast(likelihood(toy()), **arguments)


def test_unusable_questions_to_the_information():
    like = likelihood(toy())
    with pytest.raises(UnknownNameError, match="Did you mean 'strength'"):
        fisher(like, {"strenght": 1.0})
    with pytest.raises(UnknownNameError, match="Did you mean 'toy_signal'"):
        fisher(like, fixed=("toy_signl",))
    with pytest.raises(InvalidValueError, match="must name a parameter"):
        fisher(like, fixed=NUISANCES)
    with pytest.raises(UnknownNameError, match="Did you mean 'strength'"):
        fisher(like, free=("strength",)).profiled(("strenght",))
    with pytest.raises(InvalidValueError, match="`cl` must be 0.6827 or 0.9, but was 0.95"):
        forecast(like, "strength").pieces("strength", 0.95)
