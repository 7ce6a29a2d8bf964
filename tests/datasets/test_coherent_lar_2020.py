"""COHERENT liquid argon: embedded tables against the release, statistics, nuisances and malformed files."""

import os
import shutil
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_lar

import cevjax
from cevjax.datasets import coherent_lar_2020 as lar
from cevjax.errors import InvalidValueError, ReleaseFileError, UnknownNameError
from cevjax.likelihood import expected_flat

NAME = "coherent-lar-2020"
SHAPES = {"default": (12, 8, 10), "2211.11905": (12, 10), "2005.01645": (12,), "2003.10630": (12, 8, 10)}
BACKGROUNDS = {"lar2020_brn", "lar2020_brn_delayed", "lar2020_ssb"}
BRN_SHAPES = {"lar2020_brn_energy", "lar2020_brn_time", "lar2020_brn_width"}
NUISANCES = {
    "default": {
        "sns_flux", "lar2020_signal", "lar2020_radius", "lar2020_timing", "lar2020_f90", *BACKGROUNDS, *BRN_SHAPES,
    },
    "2211.11905": {"lar2020_signal", "lar2020_f90", "lar2020_timing", *BACKGROUNDS, *BRN_SHAPES},
    "2005.01645": {"lar2020_signal", "lar2020_brn", "lar2020_brn_delayed"},
    "2003.10630": {"lar2020_cevns", *BACKGROUNDS},
}  # fmt: skip


@pytest.fixture(scope="module")
def release():
    """Folder of the official release; the test is skipped without it."""
    shared = Path(__file__).parents[3] / "shared" / "releases"
    folder = Path(os.environ.get("CEVJAX_RELEASES", shared)) / NAME
    if not (folder / "cevnspdf.txt").is_file():
        pytest.skip("the release of arXiv:2006.12659 is not at hand: set CEVJAX_RELEASES to the folder that holds it")
    return folder


@pytest.fixture
def copy(release, tmp_path):
    """A copy of the release that a test may spoil."""
    for path in release.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path


@cache
def likelihood(statistic="default"):
    return cevjax.Likelihood(cevjax.load(NAME, statistic=statistic), cevjax.StandardModel())


def expected(statistic="default", **values):
    like = likelihood(statistic)
    return {k: np.asarray(v) for k, v in like.expected(like.nominal(**values))[NAME].items()}


def random_point(like, seed, size=1.0):
    """Nominal, but for the nuisances."""
    rng, point = np.random.default_rng(seed), like.nominal()
    for name in like.nuisances:
        low, high = like.parameters[name].bounds
        point[name] = float(np.clip(size * rng.uniform(-1, 1), low + 0.1, high))
    return point


# --- embedded tables and release


def test_published_numbers_of_events():
    tables = lar.read_embedded()
    assert tables.counts.sum() == 3752
    totals = {name: tables.template(name).sum() for name in ("cevns", "brn", "brn_delayed", "ssb")}
    assert totals == pytest.approx({"cevns": 128, "brn": 497, "brn_delayed": 33, "ssb": 3152}, abs=1e-3)
    for statistic, shape in SHAPES.items():
        measurement = cevjax.load(NAME, statistic=statistic)
        assert measurement.shape == measurement.observed.shape == shape
        if statistic != "2005.01645":
            assert float(measurement.observed.sum()) == 3752


def test_tables_are_consistent():
    tables = lar.read_embedded()
    for name in lar.TEMPLATES:
        assert tables.time[name].sum() == pytest.approx(1, abs=1e-7)
        assert np.all(tables.time[name] >= 0) and np.all(tables.energy_f90[name] >= 0)
        nominal = name if name in ("brn_delayed", "ssb") else name.split("_")[0]
        assert tables.energy_f90[name].sum() == pytest.approx(tables.energy_f90[nominal].sum(), abs=1e-3)
    # counts less the steady-state background are the released energies, but for its own sample
    over_energy = tables.counts.sum(axis=(1, 2)) - tables.energy_f90["ssb"].sum(axis=1)
    pull = (over_energy - tables.subtracted[:, 0]) / tables.subtracted[:, 1]
    assert np.all(np.abs(pull) < 0.5)


def test_embedded_tables_are_those_of_the_release(release):
    ours, theirs = lar.read_embedded(), lar.read_release(release)
    for field in ("counts", "efficiency", "subtracted"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))
    for name in lar.TEMPLATES:
        np.testing.assert_allclose(ours.energy_f90[name], theirs.energy_f90[name], atol=6e-7)
        np.testing.assert_allclose(ours.time[name], theirs.time[name], atol=6e-10)


def test_the_release_read_by_other_code(release):
    tables, other = lar.read_release(release), reference_lar.load(release)
    np.testing.assert_array_equal(tables.counts, other["data"])
    for field in ("efficiency", "subtracted"):
        np.testing.assert_array_equal(getattr(tables, field), other[field])
    for name in lar.TEMPLATES:
        # the files have six digits, which is also how exactly they are products
        np.testing.assert_allclose(tables.template(name), other[name], atol=3e-6 * other[name].max())


@pytest.mark.parametrize("statistic", lar.STATISTICS)
def test_release_and_embedded_tables_give_the_same_likelihood(release, statistic):
    released = cevjax.Likelihood(cevjax.load(NAME, statistic=statistic, release=release), cevjax.StandardModel())
    embedded = likelihood(statistic)
    assert list(released.parameters) == list(embedded.parameters)
    for seed, size in ((0, 0.0), (1, 0.5)):
        params = random_point(embedded, seed, size)
        assert float(released.nll(params)) == pytest.approx(float(embedded.nll(params)), abs=1e-4)


def test_folders_of_the_release(copy):
    """The release has the systematic templates and the projections in folders of their own."""
    for folder, names in (("SystErrors", ["*Syst.txt", "*sig*.txt"]), ("OneDProjections", ["*1d*.txt"])):
        (copy / folder).mkdir()
        for pattern in names:
            for path in list(copy.glob(pattern)):
                path.rename(copy / folder / path.name)
    assert not (copy / "brnpdfBRNTimingWidthSyst.txt").exists() and not (copy / "energydata1d.txt").exists()
    assert lar.read_release(copy).energy_f90["brn_width"].sum() == pytest.approx(497, abs=0.01)


def test_relative_path_and_text(release):
    for folder in (str(release), os.path.relpath(release)):
        assert float(cevjax.load(NAME, statistic="2005.01645", release=folder).observed.shape[0]) == 12


# --- statistics and nuisances


@pytest.mark.parametrize("statistic", lar.STATISTICS)
def test_nuisances(statistic):
    nuisances = {p.name: p for p in cevjax.load(NAME, statistic=statistic).nuisances}
    assert set(nuisances) == NUISANCES[statistic]
    for name, parameter in nuisances.items():
        assert parameter.nominal == 0 and parameter.nuisance
        assert (parameter.constraint is None) == (name == "lar2020_cevns")


NORMS = {  # component, relative change by one standard deviation
    "default": {
        "sns_flux": ("cevns", 0.10), "lar2020_signal": ("cevns", (0.134**2 - 0.02**2 - 0.10**2) ** 0.5),
        "lar2020_brn": ("brn", 0.32), "lar2020_brn_delayed": ("brn_delayed", 1.0), "lar2020_ssb": ("ssb", 0.0079),
    },
    "2211.11905": {
        "lar2020_signal": ("cevns", 0.13), "lar2020_brn": ("brn", 0.32), "lar2020_brn_delayed": ("brn_delayed", 1.0),
        "lar2020_ssb": ("ssb", 0.0079),
    },
    "2005.01645": {
        "lar2020_signal": ("cevns", 0.134), "lar2020_brn": ("brn", 0.32), "lar2020_brn_delayed": ("brn_delayed", 1.0),
    },
    "2003.10630": {
        "lar2020_cevns": ("cevns", 1.0), "lar2020_brn": ("brn", 0.32), "lar2020_brn_delayed": ("brn_delayed", 1.0),
        "lar2020_ssb": ("ssb", 0.0079),
    },
}  # fmt: skip


@pytest.mark.parametrize("statistic", lar.STATISTICS)
def test_relative_errors_of_the_normalisations(statistic):
    """Each moves one component, in all bins alike."""
    nominal = expected(statistic)
    for name, (component, sigma) in NORMS[statistic].items():
        for pull in (1.0, -0.5):
            moved = expected(statistic, **{name: pull})
            for other, counts in nominal.items():
                factor = 1 + sigma * pull if other == component else 1.0
                np.testing.assert_allclose(moved[other], factor * counts, rtol=1e-12, err_msg=f"{name}, {other}")


@pytest.mark.parametrize("side", ["plus", "minus"])
def test_shapes_reach_the_templates_of_the_release_at_one_standard_deviation(side):
    tables, pull = lar.read_embedded(), 1.0 if side == "plus" else -1.0
    cells, times = tables.energy_f90, tables.time
    brn = expected(lar2020_brn_energy=pull)["brn"]
    filled = cells["brn"] > 0  # nothing is added to cells that the nominal template leaves empty: 3e-5 of all events
    wanted = cells[f"brn_energy_{side}"][:, :, None] * times["brn"]
    np.testing.assert_allclose(brn[filled], wanted[filled], rtol=5e-5, atol=1e-4)
    brn = expected(lar2020_brn_time=pull)["brn"]
    np.testing.assert_allclose(brn, cells["brn"][:, :, None] * times[f"brn_time_{side}"], rtol=1e-7, atol=1e-9)
    known = times["brn"] > 0
    width = times["brn"].copy()
    width[known] *= (times["brn_width"][known] / times["brn"][known]) ** pull
    width /= width.sum()
    brn = expected(lar2020_brn_width=pull)["brn"]
    np.testing.assert_allclose(brn, cells["brn"][:, :, None] * width, rtol=1e-7, atol=1e-9)

    moved, nominal = (expected(**p)["cevns"].sum(axis=2) for p in ({"lar2020_f90": pull}, {}))
    np.testing.assert_allclose(moved.sum(axis=1), nominal.sum(axis=1), rtol=1e-12)
    varied = cells[f"cevns_f90_{side}"][:5]
    fractions = varied / varied.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(moved[:5] / moved[:5].sum(axis=1, keepdims=True), fractions, atol=1e-6)
    np.testing.assert_allclose(moved[5:] / moved[5:].sum(axis=1, keepdims=True), fractions[[4] * 7], atol=1e-6)


@pytest.mark.parametrize("pull", [-2.5, -0.4, 0.7, 1.8])
def test_f90_moves_no_event_to_another_energy_or_time(pull):
    moved, nominal = expected(lar2020_f90=pull), expected()
    np.testing.assert_allclose(moved["cevns"].sum(axis=1), nominal["cevns"].sum(axis=1), rtol=1e-12)
    assert np.abs(moved["cevns"] - nominal["cevns"]).sum() > 1.0


def test_spread_follows_the_released_template_in_f90():
    counts, tables = expected()["cevns"], lar.read_embedded()
    cells = tables.energy_f90["cevns"]
    fractions = counts.sum(axis=2) / counts.sum(axis=(1, 2))[:, None]
    np.testing.assert_allclose(fractions[:5], cells[:5] / cells[:5].sum(axis=1, keepdims=True), atol=1e-9)
    np.testing.assert_allclose(fractions[5:], fractions[[4] * 7], atol=1e-9)
    # energy and time go together, F90 with energy alone
    by_time = counts.sum(axis=1)
    np.testing.assert_allclose(counts, fractions[:, :, None] * by_time[:, None, :], rtol=1e-12)


def test_signal_arrives_within_the_window_or_later():
    """87 % of the delayed neutrinos arrive in time; in the statistics of energies all count."""
    within, energies = expected()["cevns"].sum(), expected("2005.01645")["cevns"].sum()
    assert 0.85 < within / (energies * 24.4 * 13.8 / 24.0 / 13.7) < 0.93


def test_a_later_pulse_moves_the_signal_later():
    early, late = (expected(lar2020_timing=pull)["cevns"].sum(axis=(0, 1)) for pull in (-1.0, 1.0))
    centres = np.arange(10) * 0.5 + 0.15
    assert (late @ centres) / late.sum() - (early @ centres) / early.sum() > 0.25
    assert late[0] < early[0]


def smallest_cell(size):
    """Of the expectation at 300 random points with pulls of up to ``size``, and the points."""
    like = likelihood()
    points = [random_point(like, seed, size) for seed in range(300)]
    columns = {name: np.array([p[name] for p in points]) for name in points[0]}
    return np.asarray(smallest(columns)), points


@jax.jit
@jax.vmap
def smallest(params):
    return jnp.min(expected_flat(likelihood(), params))


def test_expectation_is_positive_wherever_the_nuisances_are():
    least, points = smallest_cell(3.0)
    assert least.min() > 0.5
    worst = points[np.argmin(least)]
    slopes = jax.jit(jax.grad(likelihood().nll))(worst)
    assert np.isfinite(likelihood().nll(worst)) and all(np.isfinite(slope) for slope in slopes.values())


def test_flux_is_common_with_the_other_detector():
    both = cevjax.Likelihood([cevjax.load(NAME), cevjax.load("coherent-csi-2021", es=False)], cevjax.StandardModel())
    assert both.nuisances.count("sns_flux") == 1
    assert set(likelihood().nuisances) < set(both.nuisances)


def test_neutron_radius_supersedes_its_nuisance():
    assert likelihood().parameters["R_n_Ar40"].supersedes == ("lar2020_radius",)
    assert likelihood("2211.11905").parameters["R_n_Ar40"].supersedes == ()


def test_form_factor_can_be_chosen():
    totals = {}
    for name in ("helm", "klein-nystrand", "fermi"):
        measurement = cevjax.load(NAME, statistic="2005.01645", form_factor=name)
        like = cevjax.Likelihood(measurement, cevjax.StandardModel())
        totals[name] = float(like.expected(like.nominal())[NAME]["cevns"].sum())
    assert totals["helm"] == pytest.approx(expected("2005.01645")["cevns"].sum(), rel=1e-12)
    assert len({round(total, 3) for total in totals.values()}) == 3
    assert np.ptp(list(totals.values())) < 0.06 * totals["helm"]


# --- the likelihood as a function


def test_chi2_vanishes_on_its_own_expectation():
    like = likelihood()
    asimov = like.asimov(like.nominal())
    assert float(asimov.nll(like.nominal())) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("statistic", ["default", "2211.11905"])
def test_gradient(statistic):
    """By central differences, in double precision, inside and outside of the bent part of the morphs."""
    like = likelihood(statistic)
    assert like.nll(like.nominal()).dtype == np.float64
    gradient = jax.jit(jax.grad(like.nll))
    for seed, size in ((3, 0.8), (4, 2.0)):
        point = random_point(like, seed, size)
        slopes = gradient(point)
        for name in ("sin2_theta_w", "R_n_Ar40", *like.nuisances):
            step = 1e-5
            up, down = (float(like.nll({**point, name: point[name] + sign * step})) for sign in (1, -1))
            numeric = (up - down) / (2 * step)
            assert float(slopes[name]) == pytest.approx(numeric, rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("statistic", ["default", "2003.10630"])
def test_compiled_and_vectorised_evaluations_agree(statistic):
    like = likelihood(statistic)
    points = [random_point(like, seed) for seed in range(3)]
    columns = {name: np.array([p[name] for p in points]) for name in points[0]}
    one = [float(like.nll(p)) for p in points]
    np.testing.assert_allclose(jax.vmap(like.nll)(columns), one, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(like.nll)(points[0]), one[0], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", lar.STATISTICS)
def test_plain_evaluation_agrees_with_the_compiled_one(statistic):
    like = likelihood(statistic)
    params = random_point(like, 0)
    compiled = float(like.nll(params))
    with jax.disable_jit():
        assert float(like.nll(params)) == pytest.approx(compiled, rel=1e-11)


def test_measurement_is_unchanged_by_being_prepared():
    measurement, like = cevjax.load(NAME, statistic="2211.11905"), likelihood("2211.11905")
    plain = jax.jit(lambda p: measurement.expected(p, like.interaction))(like.nominal())
    for name, counts in expected("2211.11905").items():
        np.testing.assert_allclose(plain[name], counts, rtol=1e-12)


# --- errors


def test_unknown_choices_are_named():
    with pytest.raises(UnknownNameError, match="Did you mean 'coherent-lar-2020'"):
        cevjax.load("coherent-lar-2021")
    with pytest.raises(UnknownNameError, match=r"Unknown statistic '2211\.11906'\. Did you mean '2211\.11905'"):
        cevjax.load(NAME, statistic="2211.11906")
    with pytest.raises(UnknownNameError, match=r"Unknown form factor 'klein-nystran'\. Did you mean 'klein-nystrand'"):
        cevjax.load(NAME, form_factor="klein-nystran")
    with pytest.raises(UnknownNameError, match="Did you mean 'release'"):
        cevjax.load(NAME, releases="fetched")
    with pytest.raises(UnknownNameError, match="Unknown choice of data set 'coherent-lar-2020' 'es'"):
        cevjax.load(NAME, es=True)


@pytest.mark.parametrize(("value", "message"), [(-1.0, "at least 0"), (np.nan, "finite")])
def test_unusable_counts(value, message):
    counts = np.array(cevjax.load(NAME).observed)
    counts[2, 3, 4] = value
    with pytest.raises(InvalidValueError, match=rf"{NAME} must be {message}, but bin \(2, 3, 4\)"):
        cevjax.load(NAME).with_observed(counts)


def test_missing_release(tmp_path, monkeypatch):
    with pytest.raises(ReleaseFileError, match=f"must be the folder of the {NAME} release"):
        cevjax.load(NAME, release=tmp_path / "nowhere")
    with pytest.raises(ReleaseFileError, match=r"cevnspdf\.txt does not exist"):
        cevjax.load(NAME, release=tmp_path)
    monkeypatch.setenv("CEVJAX_RELEASES", str(tmp_path))
    with pytest.raises(ReleaseFileError, match=f"is missing. Run `cevjax data fetch {NAME}`"):
        cevjax.load(NAME, release="fetched")


FILES = [*(f"{name}.txt" for name in lar.TEMPLATES.values()), "datanobkgsub.txt", "CENNS10AnlAEfficiency.txt"]


@pytest.mark.parametrize("file", [*FILES, "energydata1d.txt"])
def test_a_file_that_is_missing(copy, file):
    (copy / file).unlink()
    with pytest.raises(ReleaseFileError, match=rf"{file.replace('+', '[+]')} does not exist"):
        cevjax.load(NAME, release=copy)


@pytest.mark.parametrize("file", ["cevnspdf.txt", "brnpdf-1sigEnergy.txt", "datanobkgsub.txt"])
def test_cells_that_are_cut_short_turned_round_negative_or_no_numbers(copy, file):
    lines = (copy / file).read_text().splitlines()
    energy, f90, time, _ = lines[3].split()
    broken = {
        "expected the 960 cells of energy x F90 x time in order": [lines[:500], lines[::-1], [*lines, lines[0]]],
        "expected no negative content, found -0.25": [[*lines[:3], f"{energy} {f90} {time} -0.25", *lines[4:]]],
        "line 4: expected 4 finite numbers .keVee, F90, us, events., but found": [
            [*lines[:3], "5 0.525 1.65", *lines[4:]],
            [*lines[:3], "5 0.525 1.65 nan", *lines[4:]],
            [*lines[:3], "5 0.525 1.65 many", *lines[4:]],
        ],
        "holds no data": [[], ["# nothing"]],
    }
    for message, variants in broken.items():
        for variant in variants:
            (copy / file).write_text("\n".join(variant) + "\n")
            with pytest.raises(ReleaseFileError, match=f"{file}.* ?{message}"):
                cevjax.load(NAME, release=copy)


def test_a_template_that_is_no_product(copy):
    lines = (copy / "brnpdf.txt").read_text().splitlines()
    energy, f90, time, events = lines[1].split()
    lines[1] = f"{energy} {f90} {time} {1.2 * float(events)}"
    (copy / "brnpdf.txt").write_text("\n".join(lines))
    with pytest.raises(ReleaseFileError, match=r"brnpdf\.txt: expected a product of energy x F90 and time"):
        cevjax.load(NAME, release=copy)


def test_a_template_without_events(copy):
    lines = [" ".join([*line.split()[:3], "0"]) for line in (copy / "brnpdf.txt").read_text().splitlines()]
    (copy / "brnpdf.txt").write_text("\n".join(lines))
    with pytest.raises(ReleaseFileError, match=r"brnpdf\.txt"):
        cevjax.load(NAME, release=copy)


@pytest.mark.parametrize(("file", "columns", "skip"), [("CENNS10AnlAEfficiency.txt", 3, 0), ("energydata1d.txt", 8, 1)])
def test_tables_of_the_wrong_layout(copy, file, columns, skip):
    lines = (copy / file).read_text().splitlines()
    (copy / file).write_text("\n".join([*lines[:skip], "1 2", *lines[skip:]]))
    with pytest.raises(ReleaseFileError, match=f"{file}, line {skip + 1}: expected {columns} finite numbers"):
        cevjax.load(NAME, release=copy)


@pytest.mark.parametrize("file", ["CENNS10AnlAEfficiency.txt", "energydata1d.txt"])
@pytest.mark.parametrize("spoil", ["cut", "reversed"])
def test_tables_that_are_cut_short_or_turned_round(copy, file, spoil):
    lines = (copy / file).read_text().splitlines()
    head, body = (lines[:1], lines[1:]) if file == "energydata1d.txt" else ([], lines)
    (copy / file).write_text("\n".join([*head, *(body[:5] if spoil == "cut" else body[::-1])]))
    with pytest.raises(ReleaseFileError, match=file):
        cevjax.load(NAME, release=copy)
