"""Dresden-II: embedded tables against the release, the fitted background, statistics and malformed files."""

import os
import shutil
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import cevjax
from cevjax.datasets import dresden_ii_2022 as dresden
from cevjax.errors import InvalidValueError, ReleaseFileError, UnknownNameError
from cevjax.tables import data_dir, read_toml

NAME = dresden.NAME
PAPER = "2205.09484"
BACKGROUND = ("flat", "epithermal", "decay", "l1_height", "l1_energy", "l1_width", "ml_ratio")


@pytest.fixture(scope="module")
def release():
    """Folder of the ancillary files; the test is skipped without it."""
    releases = Path(os.environ.get("CEVJAX_RELEASES", Path(__file__).parents[3] / "shared" / "releases"))
    folder = releases / NAME
    if not (folder / "data_release.txt").is_file():
        pytest.skip("the release of arXiv:2202.09672 is not at hand: set CEVJAX_RELEASES to the folder that holds it")
    return folder


@cache
def likelihood(statistic=PAPER, quenching="fef"):
    measurement = cevjax.load(NAME, statistic=statistic, quenching=quenching)
    return cevjax.Likelihood(measurement, cevjax.StandardModel())


def test_embedded_tables_are_those_of_the_release(release):
    spectrum, curves = dresden.read_embedded()
    published = np.loadtxt(release / "data_release.txt")
    assert spectrum.shape == (130, 4)
    np.testing.assert_array_equal(spectrum[:, 2:], published[:, 1:3])
    np.testing.assert_allclose(spectrum[:, :2], published[:, :1] + [-0.005, 0.005], atol=1e-9)
    np.testing.assert_array_equal(spectrum[1:, 0], spectrum[:-1, 1])
    whole = np.loadtxt(release / "QF_Fef_YBe.txt")
    for k in (1, 2):
        np.testing.assert_allclose(
            np.interp(whole[:, 0], curves[:, 0], curves[:, k]), whole[:, k], rtol=0, atol=1.001e-5
        )
    assert len(curves) < len(whole)
    for found, table in zip(dresden.read_release(release), (spectrum, whole), strict=True):
        np.testing.assert_array_equal(found, table)


def test_release_and_embedded_tables_give_the_same_likelihood(release):
    released = cevjax.load(NAME, statistic=PAPER, release=release)
    embedded = cevjax.load(NAME, statistic=PAPER)
    np.testing.assert_array_equal(released.observed, embedded.observed)
    np.testing.assert_array_equal(released.sigma, embedded.sigma)
    assert released.axes == embedded.axes and released.parameters == embedded.parameters
    like = cevjax.Likelihood(released, cevjax.StandardModel())
    point = like.nominal()
    assert float(like.chi2(point)) == pytest.approx(float(likelihood().chi2(point)), abs=1e-3)
    ours, theirs = (np.asarray(x.expected(point)[NAME]["cevns"]) for x in (likelihood(), like))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-5 * theirs.max())


def test_shape_and_numbers_of_the_publication():
    measurement = cevjax.load(NAME)
    (axis,) = measurement.axes
    assert axis[0] == "E_keVee" and measurement.shape == (130,)
    np.testing.assert_allclose(axis[1], np.arange(131) * 0.01 + 0.2, atol=1e-9)
    facts = read_toml(data_dir(NAME) / "measurement.toml")
    # 2202.09672: 2.924 kg, 10.39 m from 2.96 GW, 4.8e13 antineutrinos/cm2/s, 68.5 eV
    assert (facts["detector"]["mass_kg"], facts["detector"]["baseline_m"]) == (2.924, 10.39)
    assert (facts["flux"]["power_gw"], facts["flux"]["per_cm2_s"], facts["detector"]["noise_ev"]) == (
        2.96,
        4.8e13,
        68.5,
    )
    assert sum(facts["flux"]["fractions"].values()) == pytest.approx(1)
    assert [c.name for c in measurement.components] == ["cevns", "es", "activation"]
    assert measurement.unit == "counts/(3 kg d)" and "2202.09672" in measurement.citation


def test_electrons_count_where_they_are_asked_for():
    sm, moments = cevjax.StandardModel(), cevjax.StandardModel() + cevjax.MagneticMoment()
    for es, in_sm, in_mm in ((None, False, True), (True, True, True), (False, False, False)):
        measurement = cevjax.load(NAME, es=es)
        for interaction, there in ((sm, in_sm), (moments, in_mm)):
            names = [c.name for c in measurement.components if c.relevant(interaction)]
            assert names == ["cevns", *["es"] * there, "activation"]


# --- the background


def formula(E, p):
    """2202.09672: constant, epithermal neutrons, and three Gaussian peaks."""
    flat, amplitude, decay, height, centre, width, ratio = p

    def peak(mean, sigma):
        return np.exp(-((E - mean) ** 2) / (2 * sigma**2))

    area = height * width * np.sqrt(2 * np.pi)  # of L1
    m_shell = ratio * area / (0.0685 * np.sqrt(2 * np.pi)) * peak(0.158, 0.0685)
    l_shell = height * (peak(centre, width) + 0.008 * peak(1.142, width))
    return flat + amplitude * np.exp(-decay * (E - 0.2)) + l_shell + m_shell


ACTIVATION = cevjax.load(NAME).components[-1]
START = np.array([p.nominal for p in ACTIVATION.parameters])


@jax.jit
def activation(values):
    return ACTIVATION({p.name: v for p, v in zip(ACTIVATION.parameters, values, strict=True)}, None)


POINTS = [START, [20.0, 40.0, 9.0, 120.0, 1.25, 0.1, 0.3], [-5.0, 300.0, 0.3, 10.0, 1.38, 0.04, 0.0]]


@pytest.mark.parametrize("point", POINTS)
def test_background_is_the_average_of_its_formula(point):
    found = np.asarray(activation(jnp.asarray(point)))
    edges = np.linspace(0.2, 1.5, 131)
    truth = [quad(formula, a, b, args=(point,), epsrel=1e-12)[0] / (b - a) for a, b in zip(edges[:-1], edges[1:])]  # noqa: B905
    np.testing.assert_allclose(found, truth, rtol=1e-9)


@pytest.mark.parametrize("point", POINTS)
def test_derivatives_of_the_background(point):
    point = np.array(point)
    found = np.asarray(jax.jacfwd(activation)(point))
    for i, h in enumerate(1e-4 * np.maximum(np.abs(point), 0.1)):
        e = h * np.eye(7)[i]
        numeric = (np.asarray(activation(point + e)) - np.asarray(activation(point - e))) / (2 * h)
        np.testing.assert_allclose(found[:, i], numeric, rtol=1e-5, atol=1e-5 * np.abs(numeric).max())


def test_parameters_of_the_background():
    parameters = {p.name: p for p in ACTIVATION.parameters}
    assert list(parameters) == [f"dresden_{name}" for name in BACKGROUND]
    assert all(p.nuisance for p in parameters.values())
    constrained = {name: p.constraint for name, p in parameters.items() if p.constraint}
    assert constrained == {"dresden_ml_ratio": (0.16, 0.03)}
    for p in parameters.values():
        assert p.bounds[0] < p.nominal < p.bounds[1]


def test_background_at_its_bounds_is_finite():
    low, high = np.array([p.bounds for p in ACTIVATION.parameters]).T
    rng = np.random.default_rng(3)
    points = low + (high - low) * rng.integers(0, 2, (40, 7))
    values, slopes = jax.vmap(activation)(points), jax.vmap(jax.jacfwd(activation))(points)
    assert np.all(np.isfinite(values)) and np.all(np.isfinite(slopes))


# --- the likelihood


def random_point(like, size=0.5):
    rng = np.random.default_rng(1)
    moved = {
        n: like.parameters[n].nominal + size * rng.uniform(-1, 1) * like.parameters[n].scale for n in like.nuisances
    }
    return like.nominal(**moved)


def test_gradient_of_the_likelihood():
    like = likelihood()
    point = random_point(like)
    found = jax.jit(jax.grad(like.nll))(point)
    for name in (*like.nuisances, "sin2_theta_w", "dresden_fission_U235", "dresden_fission_Pu239", "R_n_Ge74"):
        h = 1e-4 * like.parameters[name].scale
        ends = [float(like.nll({**point, name: point[name] + s * h})) for s in (-1, 1)]
        numeric = (ends[1] - ends[0]) / (2 * h)
        size = 1e-6 * abs(float(like.nll(point))) / like.parameters[name].scale
        assert float(found[name]) == pytest.approx(numeric, rel=1e-5, abs=size), name


def test_jit_equals_eager_equals_vmap():
    like = likelihood()
    points = [like.nominal(), random_point(like)]
    columns = {name: jnp.array([p[name] for p in points]) for name in points[0]}
    mapped = jax.vmap(like.nll)(columns)
    measurement = like.measurements[0]
    eager = sum(measurement.expected(points[1], like.interaction).values())
    chi2 = np.sum(np.asarray((measurement.observed - eager) / measurement.sigma) ** 2)
    chi2 += ((points[1]["dresden_ml_ratio"] - 0.16) / 0.03) ** 2
    assert float(like.chi2(points[1])) == pytest.approx(chi2, rel=1e-11)
    np.testing.assert_allclose(mapped, [float(like.nll(p)) for p in points], rtol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("quenching", dresden.QUENCHING)
@pytest.mark.parametrize("statistic", dresden.STATISTICS)
def test_fits_converge_from_nominal(statistic, quenching):
    fitted = cevjax.fit(likelihood(statistic, quenching))
    assert fitted.converged and not fitted.at_bound
    assert all(error is not None and error > 0 for error in fitted.errors.values())
    assert set(fitted.errors) == {f"dresden_{name}" for name in BACKGROUND}
    assert 100 < fitted.chi2_min < 110


def test_asimov_data_are_fitted_exactly():
    like = likelihood()
    truth = random_point(like, 0.3) | {"dresden_ml_ratio": 0.16}
    fitted = cevjax.fit(like.asimov(truth))
    assert fitted.chi2_min == pytest.approx(0, abs=1e-6)
    for name in like.nuisances:
        assert fitted.values[name] == pytest.approx(truth[name], abs=1e-2 * fitted.errors[name]), name


# --- errors


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"statistic": "2205.09483"}, r"Unknown statistic '2205\.09483'\. Did you mean '2205\.09484'"),
        ({"quenching": "fe"}, "Unknown quenching 'fe'. Did you mean 'fef'"),
        ({"quenching": "YBE"}, "Unknown quenching 'YBE'. Did you mean 'ybe'"),
        ({"flux": "hmke"}, "Unknown reactor flux 'hmke'. Did you mean 'hmk'"),
        ({"form_factor": "helmm"}, "Unknown form factor 'helmm'. Did you mean 'helm'"),
        ({"quench": "fef"}, "Unknown choice of data set 'dresden-ii-2022' 'quench'. Did you mean 'quenching'"),
    ],
)
def test_unknown_choices_are_named(choice, message):
    with pytest.raises(UnknownNameError, match=message):
        cevjax.load(NAME, **choice)


def test_choice_of_electrons_must_be_a_flag():
    with pytest.raises(InvalidValueError, match="Argument `es` must be True, False or None, but was 'yes'"):
        cevjax.load(NAME, es="yes")


def test_missing_release(tmp_path):
    with pytest.raises(ReleaseFileError, match="must be the folder of the dresden-ii-2022 release"):
        cevjax.load(NAME, release=tmp_path / "nowhere")
    with pytest.raises(ReleaseFileError, match=r"data_release.txt does not exist; expected a table of energy in keVee"):
        cevjax.load(NAME, release=tmp_path)


@pytest.fixture
def copy(release, tmp_path):
    for path in release.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("data_release.txt", "1.505 20 1 20", r"data_release.txt, line 131: expected 5 finite numbers .*found '1.505"),
        ("data_release.txt", "1.505 20 1 20 x", r"data_release.txt, line 131: expected 5 finite numbers"),
        ("data_release.txt", "1.505 20 nan 20 1", r"data_release.txt, line 131: expected 5 finite numbers"),
        ("data_release.txt", "1.505 20 1 20 1", "data_release.txt: expected 130 bins of 10 eV .* found 131"),
        ("QF_Fef_YBe.txt", "9 0.1", r"QF_Fef_YBe.txt, line \d+: expected 3 finite numbers .*fef, ybe.*found '9 0.1'"),
        ("QF_Fef_YBe.txt", "9 0.1 inf", r"QF_Fef_YBe.txt, line \d+: expected 3 finite numbers"),
    ],
)
def test_malformed_release_files(copy, file, line, message):
    text = (copy / file).read_text().rstrip("\n")
    (copy / file).write_text(f"{text}\n{line}\n")
    with pytest.raises(ReleaseFileError, match=message):
        cevjax.load(NAME, release=copy)


@pytest.mark.parametrize("line", ["0.20500 92.851 0 47.287 18.332", "0.19500 92.851 15.057 47.287 18.332"])
def test_a_release_with_an_unusable_bin(copy, line):
    lines = (copy / "data_release.txt").read_text().splitlines()
    (copy / "data_release.txt").write_text("\n".join([line, *lines[1:]]))
    with pytest.raises(ReleaseFileError, match="data_release.txt: expected 130 bins .* with positive errors"):
        cevjax.load(NAME, release=copy)


def test_a_release_file_that_was_cut_short(copy):
    lines = (copy / "data_release.txt").read_text().splitlines()
    (copy / "data_release.txt").write_text("\n".join(lines[:100]))
    with pytest.raises(ReleaseFileError, match="data_release.txt: expected 130 bins of 10 eV .* found 100"):
        cevjax.load(NAME, release=copy)
    (copy / "data_release.txt").write_text("\n".join(lines))
    (copy / "QF_Fef_YBe.txt").write_text("# nothing\n")
    with pytest.raises(ReleaseFileError, match="QF_Fef_YBe.txt holds no data"):
        cevjax.load(NAME, release=copy)
    (copy / "QF_Fef_YBe.txt").unlink()
    with pytest.raises(ReleaseFileError, match="QF_Fef_YBe.txt does not exist"):
        cevjax.load(NAME, release=copy)


@pytest.mark.parametrize("spoil", ["reversed", "cut", "negative", "shifted"])
def test_quenching_curves_that_cannot_be(copy, spoil):
    lines = (copy / "QF_Fef_YBe.txt").read_text().splitlines()
    numbers = [line.split() for line in lines if line.strip()]
    spoilt = {
        "reversed": numbers[::-1],
        "cut": [row for row in numbers if float(row[0]) < 1.0],
        "negative": [[row[0], f"-{row[1]}", row[2]] for row in numbers],
        "shifted": [[str(float(row[0]) + 1), *row[1:]] for row in numbers],
    }[spoil]
    (copy / "QF_Fef_YBe.txt").write_text("\n".join(" ".join(row) for row in spoilt))
    with pytest.raises(ReleaseFileError, match=r"QF_Fef_YBe.txt: expected factors between 0 and 1"):
        cevjax.load(NAME, release=copy)
