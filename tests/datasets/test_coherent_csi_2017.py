"""COHERENT CsI[Na] 2017: embedded tables against the release, statistics, electrons, nuisances and malformed files."""

import os
import shutil
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from reference_csi17 import selected_neutrons

import cevjax
from cevjax.datasets import coherent_csi_2017 as csi
from cevjax.errors import InvalidValueError, ReleaseFileError, UnknownNameError
from cevjax.likelihood import expected_flat

NAME = "coherent-csi-2017"
SHAPES = {"default": (12, 12), "2005.01645": (12,), "1711.09773": (1,)}
NUISANCES = {
    "default": {"sns_flux", *(f"csi2017_{n}" for n in ("signal", "quenching", "radius", "brn", "ssb"))},
    "2005.01645": {"csi2017_signal", "csi2017_qf", "csi2017_brn"},
    "1711.09773": {"csi2017_signal", "csi2017_brn"},
}
COUNTS = ("data_coincidence_beamOn.txt", "data_anticoincidence_beamOn.txt")
ARRIVALS = tuple(f"arrivalTimePDF_{name}.txt" for name in ("promptNeutrinos", "delayedNeutrinos", "promptNeutrons"))
DENSITY = np.exp(-np.arange(50) / 9.0) + 0.02  # of neutrons, not the real one, which may be missing


@pytest.fixture(scope="module")
def release():
    """Folder of the official release, but perhaps for promptPDF.txt; the test is skipped without it."""
    shared = Path(__file__).parents[3] / "shared" / "releases"
    folder = Path(os.environ.get("CEVJAX_RELEASES", shared)) / NAME
    if not all((folder / file).is_file() for file in (*COUNTS, *ARRIVALS)):
        pytest.skip("the release of arXiv:1804.09459 is not at hand: set CEVJAX_RELEASES to the folder that holds it")
    return folder


def write_neutrons(path, density=DENSITY):
    path.write_text("".join(f"{n + 0.5}, {value!r}\n" for n, value in enumerate(map(float, density))))


@pytest.fixture
def copy(release, tmp_path):
    """A copy of the release that a test may spoil, with other neutrons."""
    for file in (*COUNTS, *ARRIVALS):
        shutil.copy(release / file, tmp_path)
    write_neutrons(tmp_path / "promptPDF.txt")
    return tmp_path


@pytest.fixture
def made_up(tmp_path):
    """A release of our own, which needs no other: counts that tell every bin from the others."""
    grid = [(2 * i + 1, 0.5 * j + 0.25, 24 * i + j) for i in range(25) for j in range(24)]
    for file, scale in zip(COUNTS, (1, 2), strict=True):
        (tmp_path / file).write_text("".join(f"{pe}, {t}, {scale * n}\n" for pe, t, n in grid))
    for k, file in enumerate(ARRIVALS):
        (tmp_path / file).write_text("".join(f"{0.5 * j + 0.25}, {(j + k) / 1000}\n" for j in range(24)))
    write_neutrons(tmp_path / "promptPDF.txt")
    return tmp_path


@cache
def likelihood(statistic="default", **choices):
    return cevjax.Likelihood(cevjax.load(NAME, statistic=statistic, **choices), cevjax.StandardModel())


@cache
def with_moments(es=None):
    interaction = cevjax.StandardModel() + cevjax.MagneticMoment()
    return cevjax.Likelihood(cevjax.load(NAME, es=es), interaction)


def expected(like, **values):
    return {k: np.asarray(v) for k, v in like.expected(like.nominal(**values))[NAME].items()}


def random_point(like, seed, size=1.0):
    """Nominal, but for the nuisances."""
    rng, point = np.random.default_rng(seed), like.nominal()
    for name in like.nuisances:
        low, high = like.parameters[name].bounds
        point[name] = float(np.clip(size * rng.uniform(-1, 1), max(low, -4.9), high))
    return point


# --- embedded tables and release


def test_published_numbers_of_events():
    tables = csi.read_embedded()
    assert tables.coincident.sum() == 547 and tables.anticoincident.sum() == 405
    assert float(cevjax.load(NAME).observed.sum()) == 547
    for statistic in ("2005.01645", "1711.09773"):
        assert float(cevjax.load(NAME, statistic=statistic).observed.sum()) == 142
    for statistic, shape in SHAPES.items():
        measurement = cevjax.load(NAME, statistic=statistic)
        assert measurement.shape == measurement.observed.shape == shape


def test_errors_of_the_counts():
    tables = csi.read_embedded()
    both = (tables.coincident + tables.anticoincident).sum(axis=1)
    np.testing.assert_allclose(cevjax.load(NAME, statistic="2005.01645").sigma ** 2, both, rtol=1e-14)
    assert float(cevjax.load(NAME, statistic="1711.09773").sigma[0] ** 2) == pytest.approx(142 + 2 * 405 + 6)
    assert cevjax.load(NAME).sigma is None


def test_tables_are_consistent():
    tables = csi.read_embedded()
    assert tables.neutrons.sum() == pytest.approx(1, abs=5e-6) and np.all(tables.neutrons > 0)
    assert np.all(tables.times >= 0)
    prompt, delayed, neutrons = tables.times.sum(axis=0)
    assert prompt == pytest.approx(1, abs=1e-3) and neutrons == pytest.approx(1, abs=1e-3)
    assert delayed == pytest.approx(0.92, abs=0.01)  # of muons that live 2.2 us, before 6 us


def test_embedded_tables_are_those_of_the_release(copy):
    ours, theirs = csi.read_embedded(), csi.read_release(copy)
    for field in ("coincident", "anticoincident", "times"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))
    np.testing.assert_allclose(theirs.neutrons, selected_neutrons(DENSITY), rtol=1e-12)


def test_embedded_neutrons_are_those_of_the_release(release):
    if not (release / "promptPDF.txt").is_file():
        pytest.skip("promptPDF.txt of the release of arXiv:1804.09459 is not at hand")
    density = np.loadtxt(release / "promptPDF.txt", delimiter=",")[:, 1]
    np.testing.assert_allclose(csi.read_embedded().neutrons, selected_neutrons(density), atol=1e-6)
    np.testing.assert_allclose(csi.read_release(release).neutrons, selected_neutrons(density), rtol=1e-12)


def test_release_and_embedded_data_give_the_same_likelihood(copy, monkeypatch):
    """With the neutrons of the copy for both."""
    like = cevjax.Likelihood(cevjax.load(NAME, release=copy), cevjax.StandardModel())
    tables = csi.read_embedded()
    embedded = csi.Tables(tables.coincident, tables.anticoincident, tables.times, selected_neutrons(DENSITY))
    monkeypatch.setattr(csi, "read_embedded", lambda: embedded)
    other = cevjax.Likelihood(cevjax.load(NAME), cevjax.StandardModel())
    for seed in (0, 1):
        params = random_point(like, seed)
        assert float(like.nll(params)) == pytest.approx(float(other.nll(params)), abs=1e-9)


def test_bins_that_a_release_is_read_into(made_up):
    """6 to 30 photo-electrons, 0 to 6 us: rows and columns told apart by their counts."""
    tables = csi.read_release(made_up)
    wanted = 24.0 * np.arange(3, 15)[:, None] + np.arange(12)
    np.testing.assert_array_equal(tables.coincident, wanted)
    np.testing.assert_array_equal(tables.anticoincident, 2 * wanted)
    np.testing.assert_allclose(tables.times, (np.arange(12)[:, None] + np.arange(3)) / 1000, rtol=1e-14)
    np.testing.assert_allclose(tables.neutrons, selected_neutrons(DENSITY), rtol=1e-12)
    measurement = cevjax.load(NAME, statistic="2005.01645", release=str(made_up))
    np.testing.assert_allclose(measurement.observed, -wanted.sum(axis=1))


# --- statistics and nuisances


@pytest.mark.parametrize("statistic", csi.STATISTICS)
def test_nuisances(statistic):
    nuisances = {p.name: p for p in cevjax.load(NAME, statistic=statistic).nuisances}
    assert set(nuisances) == NUISANCES[statistic]
    assert all(p.nominal == 0 and p.nuisance and p.constraint is not None for p in nuisances.values())


NORMS = {  # component, relative change by one standard deviation
    "default": {
        "sns_flux": ("cevns", 0.10), "csi2017_signal": ("cevns", (0.112**2 - 0.10**2) ** 0.5),
        "csi2017_brn": ("brn", 0.25), "csi2017_ssb": ("ssb", 0.0497),
    },
    "2005.01645": {
        "csi2017_signal": ("cevns", 0.112), "csi2017_qf": ("cevns", 0.051), "csi2017_brn": ("brn", 0.25),
    },
    "1711.09773": {"csi2017_signal": ("cevns", 0.28), "csi2017_brn": ("brn", 0.25)},
}  # fmt: skip


@pytest.mark.parametrize("statistic", csi.STATISTICS)
def test_relative_errors_of_the_normalisations(statistic):
    """Each moves one component, in all bins alike."""
    like = likelihood(statistic)
    nominal = expected(like)
    for name, (component, sigma) in NORMS[statistic].items():
        for pull in (1.0, -0.5):
            moved = expected(like, **{name: pull})
            for other, counts in nominal.items():
                factor = 1 + sigma * pull if other == component else 1.0
                np.testing.assert_allclose(moved[other], factor * counts, rtol=1e-12, err_msg=f"{name}, {other}")


def test_backgrounds_have_the_published_totals():
    for statistic in csi.STATISTICS:
        counts = expected(likelihood(statistic))
        assert counts["brn"].sum() == pytest.approx(6.0, abs=1e-3)
        if statistic == "default":
            assert counts["ssb"].sum() == pytest.approx(405, rel=1e-12)
    tables, ssb = csi.read_embedded(), expected(likelihood())["ssb"]
    np.testing.assert_allclose(ssb.sum(axis=1), tables.anticoincident.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(ssb.sum(axis=0)[1:] / ssb.sum(axis=0)[:-1], np.exp(-0.5 * 0.127), rtol=1e-12)


def test_signal_arrives_as_the_release_says():
    """In every PE bin: a mixture of the prompt and the delayed fractions, with more prompt at small recoils."""
    counts, (prompt, delayed, _) = expected(likelihood())["cevns"], csi.read_embedded().times.T
    shares = np.linalg.lstsq(np.stack([prompt, delayed], axis=1), counts.T, rcond=None)[0]
    np.testing.assert_allclose(shares.T @ np.stack([prompt, delayed]), counts, rtol=1e-9)
    share = shares[0] / shares.sum(axis=0)
    assert np.all((share > 0) & (share < 0.4)) and share[0] > share[5] > share[11]


def test_more_light_and_larger_nuclei():
    """More quenching factor brings recoils above the threshold, a larger radius takes coherence away."""
    nominal = expected(likelihood())["cevns"].sum()
    assert expected(likelihood(), csi2017_quenching=1.0)["cevns"].sum() > 1.05 * nominal
    assert expected(likelihood(), csi2017_radius=1.0)["cevns"].sum() < 0.99 * nominal
    assert expected(likelihood(), R_n_CsI=5.5)["cevns"].sum() < 0.99 * nominal
    assert likelihood().parameters["R_n_CsI"].supersedes == ("csi2017_radius",)


def test_choices_of_quenching_and_form_factor():
    """The paper's own form factor is the one of 1711.09773 alone; Birks quenching leaves fewer events above 6 PE."""
    total = {}
    for choices in (
        {}, {"quenching": "birks"}, {"form_factor": "klein-nystrand"}, {"form_factor": "helm-1711.09773"}
    ):  # fmt: skip
        like = cevjax.Likelihood(cevjax.load(NAME, statistic="1711.09773", **choices), cevjax.StandardModel())
        total[tuple(choices.values())] = float(expected(like)["cevns"].sum())
    assert total[()] == total["helm-1711.09773",]
    assert total["birks",] < 0.85 * total[()]
    assert 0.9 < total["klein-nystrand",] / total[()] < 0.999


def test_flux_is_common_with_argon():
    both = cevjax.Likelihood([cevjax.load(NAME), cevjax.load("coherent-lar-2020")], cevjax.StandardModel())
    assert both.nuisances.count("sns_flux") == 1


def test_expectation_is_positive_at_extreme_nuisances():
    like = likelihood()
    points = [random_point(like, seed, 5.0) for seed in range(200)]
    columns = {name: np.array([p[name] for p in points]) for name in points[0]}
    columns["sns_flux"] = np.clip(columns["sns_flux"], -4, 5)
    columns["csi2017_brn"] = np.clip(columns["csi2017_brn"], -4, 5)
    counts = np.asarray(jax.jit(jax.vmap(lambda p: expected_flat(like, p)))(columns))
    assert np.all(np.isfinite(counts)) and np.all(counts > 0)


# --- electrons


def components(like):
    return {component.name for component in like.measurements[0].components}


def test_electrons_count_where_they_matter_or_as_asked():
    """By default where an interaction beyond the standard model acts on electrons."""
    assert components(likelihood()) == {"cevns", "brn", "ssb"}
    assert "es" in components(with_moments())
    assert "es" not in components(with_moments(es=False))
    assert "es" in components(likelihood(es=True))
    standard, moments = cevjax.StandardModel(), cevjax.MagneticMoment()
    assert "es" not in components(cevjax.Likelihood(cevjax.load(NAME), standard + cevjax.NSI()))
    for statistic in ("2005.01645", "1711.09773"):
        for es in (None, True):
            like = cevjax.Likelihood(cevjax.load(NAME, statistic=statistic, es=es), standard + moments)
            assert components(like) == {"cevns", "brn"} | ({"es"} if es else set())


def test_electrons_leave_everything_else_alone():
    """Totals of the electrons against quadrature are in test_reference_csi17."""
    at = {"mu_nu_e": 3e-9, "mu_nu_mu": 2e-9, "csi2017_quenching": 0.7}
    without, with_es = expected(with_moments(es=False), **at), expected(with_moments(), **at)
    assert set(with_es) == set(without) | {"es"}
    for name, counts in without.items():
        np.testing.assert_allclose(with_es[name], counts, rtol=1e-12)
    np.testing.assert_allclose(expected(with_moments(es=True), **at)["es"], with_es["es"], rtol=1e-12)


def test_electrons_of_the_standard_model_are_few():
    assert 0 < expected(likelihood(es=True))["es"].sum() < 1e-3


def test_electron_counts_move_with_the_flux_and_the_moments_alone():
    """Neither quenching nor the radius reaches them; the standard model's share is negligible beside the moment's."""
    like = with_moments()
    one, two = (expected(like, mu_nu_mu=x)["es"] for x in (1e-9, 2e-9))
    np.testing.assert_allclose(two, 4 * one, rtol=1e-3)
    for name in like.nuisances:
        moved = expected(like, mu_nu_mu=2e-9, **{name: 1.0})["es"]
        factor = {"sns_flux": 1.10, "csi2017_signal": 1 + (0.112**2 - 0.10**2) ** 0.5}.get(name, 1.0)
        np.testing.assert_allclose(moved, factor * two, rtol=1e-12, err_msg=name)


# --- the likelihood as a function


@pytest.mark.parametrize("statistic", csi.STATISTICS)
def test_chi2_vanishes_on_its_own_expectation(statistic):
    like = likelihood(statistic)
    assert float(like.asimov(like.nominal()).nll(like.nominal())) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "make", [likelihood, pytest.param(with_moments, marks=pytest.mark.slow)], ids=["standard model", "moments"]
)
def test_gradient(make):
    """By central differences, in double precision."""
    like = make()
    assert like.nll(like.nominal()).dtype == np.float64
    gradient = jax.jit(jax.grad(like.nll))
    moments = {"mu_nu_e": 3e-9, "mu_nu_mu": 2e-9} if make is with_moments else {}
    for seed, size in ((3, 0.8), (4, 2.0)):
        point = random_point(like, seed, size) | moments
        slopes = gradient(point)
        for name in ("sin2_theta_w", "R_n_Cs133", "R_n_I127", *moments, *like.nuisances):
            step = 1e-4 * like.parameters[name].scale if name in moments else 1e-5
            up, down = (float(like.nll({**point, name: point[name] + sign * step})) for sign in (1, -1))
            numeric, unit = (up - down) / (2 * step), step / 1e-5
            assert unit * float(slopes[name]) == pytest.approx(unit * numeric, rel=1e-5, abs=1e-6), name


def test_compiled_and_vectorised_evaluations_agree():
    like = likelihood()
    points = [random_point(like, seed) for seed in range(3)]
    columns = {name: np.array([p[name] for p in points]) for name in points[0]}
    one = [float(like.nll(p)) for p in points]
    np.testing.assert_allclose(jax.vmap(like.nll)(columns), one, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(like.nll)(points[0]), one[0], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", csi.STATISTICS)
def test_plain_evaluation_agrees_with_the_compiled_one(statistic):
    like = likelihood(statistic)
    params = random_point(like, 0)
    compiled = float(like.nll(params))
    with jax.disable_jit():
        assert float(like.nll(params)) == pytest.approx(compiled, rel=1e-11)


# --- errors


def test_unknown_choices_are_named():
    with pytest.raises(UnknownNameError, match="Did you mean 'coherent-csi-2017'"):
        cevjax.load("coherent-csi2017")
    with pytest.raises(UnknownNameError, match=r"Unknown statistic '1711\.09774'\. Did you mean '1711\.09773'"):
        cevjax.load(NAME, statistic="1711.09774")
    with pytest.raises(UnknownNameError, match=r"Unknown quenching 'birk'\. Did you mean 'birks'"):
        cevjax.load(NAME, quenching="birk")
    with pytest.raises(UnknownNameError, match=r"Unknown form factor 'helmm'\. Did you mean 'helm'"):
        cevjax.load(NAME, form_factor="helmm")
    with pytest.raises(UnknownNameError, match="Did you mean 'quenching'"):
        cevjax.load(NAME, quench="birks")


@pytest.mark.parametrize("es", ["true", 1, 0.0])
def test_electrons_are_a_flag(es):
    with pytest.raises(InvalidValueError, match="`es` must be True, False or None"):
        cevjax.load(NAME, es=es)


def test_unusable_counts():
    counts = np.array(cevjax.load(NAME).observed)
    counts[2, 3] = -1.0
    with pytest.raises(InvalidValueError, match=rf"{NAME} must be at least 0, but bin \(2, 3\)"):
        cevjax.load(NAME).with_observed(counts)


def test_missing_release(tmp_path, monkeypatch):
    with pytest.raises(ReleaseFileError, match=f"must be the folder of the {NAME} release"):
        cevjax.load(NAME, release=tmp_path / "nowhere")
    with pytest.raises(ReleaseFileError, match=r"\.txt does not exist"):
        cevjax.load(NAME, release=tmp_path)
    monkeypatch.setenv("CEVJAX_RELEASES", str(tmp_path))
    with pytest.raises(ReleaseFileError, match=f"is missing. Run `cevjax data fetch {NAME}`"):
        cevjax.load(NAME, release="fetched")


@pytest.mark.parametrize("file", [*COUNTS, *ARRIVALS])
def test_a_file_that_is_missing(made_up, file):
    (made_up / file).unlink()
    with pytest.raises(ReleaseFileError, match=f"{file} does not exist"):
        cevjax.load(NAME, release=made_up)


def test_neutrons_are_those_embedded_where_a_copy_of_the_release_lacks_them(made_up):
    (made_up / "promptPDF.txt").unlink()
    np.testing.assert_array_equal(csi.read_release(made_up).neutrons, csi.read_embedded().neutrons)


SPOILED = {
    "cut": lambda lines: lines[:10],
    "reversed": lambda lines: lines[::-1],
    "first line lost": lambda lines: lines[1:],
    "empty": lambda lines: ["# nothing"],
    "words": lambda lines: [*lines[:2], "much", *lines[2:]],
    "not finite": lambda lines: [lines[0], ", ".join([*lines[1].split(", ")[:-1], "nan"]), *lines[2:]],
    "no commas": lambda lines: [line.replace(",", " ") for line in lines],
}


@pytest.mark.parametrize("spoil", SPOILED)
@pytest.mark.parametrize("file", [*COUNTS, *ARRIVALS, "promptPDF.txt"])
def test_malformed_files(made_up, file, spoil):
    lines = (made_up / file).read_text().splitlines()
    (made_up / file).write_text("\n".join(SPOILED[spoil](lines)) + "\n")
    with pytest.raises(ReleaseFileError, match=file):
        cevjax.load(NAME, release=made_up)


def negative(path, row):
    lines = path.read_text().splitlines()
    lines[row] = ", ".join([*lines[row].split(", ")[:-1], "-0.5"])
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("file", COUNTS)
@pytest.mark.parametrize("row", [0, 80, 599])
def test_negative_counts(made_up, file, row):
    negative(made_up / file, row)
    with pytest.raises(ReleaseFileError, match=f"{file}: expected 25 x 24 bins .* and no negative counts"):
        cevjax.load(NAME, release=made_up)


@pytest.mark.parametrize("file", [*ARRIVALS, "promptPDF.txt"])
def test_negative_fractions(made_up, file):
    negative(made_up / file, 8)
    with pytest.raises(ReleaseFileError, match=file):
        cevjax.load(NAME, release=made_up)


def test_neutrons_that_are_none(made_up):
    write_neutrons(made_up / "promptPDF.txt", 0 * DENSITY)
    with pytest.raises(ReleaseFileError, match=r"promptPDF\.txt"):
        cevjax.load(NAME, release=made_up)


def test_transposed_counts(made_up):
    """Times in the outer loop, photo-electrons in the inner one."""
    lines = np.array((made_up / COUNTS[0]).read_text().splitlines()).reshape(25, 24)
    (made_up / COUNTS[0]).write_text("\n".join(lines.T.ravel()))
    with pytest.raises(ReleaseFileError, match="in order"):
        cevjax.load(NAME, release=made_up)
