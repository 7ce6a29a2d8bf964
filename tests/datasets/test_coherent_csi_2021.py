"""COHERENT CsI 2021: embedded tables against the release, bins, statistics and malformed files."""

import shutil
import tomllib

import jax
import numpy as np
import pytest

import cevjax
from cevjax.datasets import coherent_csi_2021 as csi
from cevjax.errors import InvalidValueError, ReleaseFileError, UnknownNameError
from cevjax.likelihood import expected_flat
from cevjax.tables import data_dir


def test_published_numbers_of_events():
    assert float(cevjax.load("coherent-csi-2021").observed.sum()) == 1578
    tables = csi.read_embedded()
    assert tables.anticoincident.sum() == 1295
    sizes = tomllib.loads((data_dir(csi.NAME) / "measurement.toml").read_text())["backgrounds"]
    for name, published in (("brn", 18.4), ("nin", 5.6)):
        assert sizes[name]["total"] == published
        assert sizes[name]["of_templates"] == pytest.approx(published, abs=0.06)


def test_templates_sum_to_the_published_totals_over_all_times(csi_likelihood):
    """Energy fractions sum to one; the time efficiency takes 0.8 % of the prompt BRN and 8 % of the NIN."""
    tables = csi.read_embedded()
    assert tables.brn_energy.sum() == pytest.approx(1.0, abs=1e-12)
    assert tables.nin_energy.sum() == pytest.approx(1.0, abs=1e-12)
    like = csi_likelihood("2303.09360")
    parts = like.expected(like.nominal())["coherent-csi-2021"]
    assert float(parts["ssb"].sum()) == pytest.approx(1286, rel=1e-12)
    assert 0.985 < float(parts["brn"].sum()) / 18.4 < 0.999
    assert 0.90 < float(parts["nin"].sum()) / 5.6 < 0.94
    assert all(np.all(np.asarray(counts) >= -1e-5) for counts in parts.values())


@pytest.mark.parametrize("statistic", csi.STATISTICS)
def test_release_and_embedded_tables_give_the_same_likelihood(csi_release, csi_likelihood, statistic):
    released = cevjax.Likelihood(
        [cevjax.load("coherent-csi-2021", statistic=statistic, release=csi_release)], cevjax.StandardModel()
    )
    embedded = csi_likelihood(statistic)
    rng = np.random.default_rng(7)
    for size in (0.0, 0.5):
        params = {
            name: value + size * rng.uniform(-1, 1) * embedded.parameters[name].scale
            for name, value in embedded.nominal().items()
        }
        assert float(released.nll(params)) == pytest.approx(float(embedded.nll(params)), abs=1e-9)


def test_release_on_other_bins(csi_release):
    fine = cevjax.load("coherent-csi-2021", release=csi_release, pe_edges=range(0, 61, 2), time_edges=csi.TIME_EDGES)
    coarse = cevjax.load("coherent-csi-2021", release=csi_release, pe_edges=[0, 8, 20, 60], time_edges=[0, 0.5, 1, 6])
    standard = cevjax.load("coherent-csi-2021")
    assert fine.shape == (30, 11) and coarse.shape == (3, 3)
    totals = []
    for measurement in (fine, coarse, standard):
        assert float(measurement.observed.sum()) == 1578
        like = cevjax.Likelihood([measurement], cevjax.StandardModel())
        totals.append({k: float(v.sum()) for k, v in like.expected(like.nominal())["coherent-csi-2021"].items()})
    for other in totals[:2]:
        assert other == pytest.approx(totals[2], rel=1e-7)


@pytest.mark.slow
def test_bins_beyond_the_region_of_interest(csi_release):
    wide = cevjax.load("coherent-csi-2021", release=csi_release, pe_edges=[0, 60, 100, 250], time_edges=[0, 1, 6])
    events = np.loadtxt(csi_release / "dataBeamOnC.txt")
    assert float(wide.observed.sum()) == np.sum((events[:, 0] < 250) & (events[:, 1] < 6))
    like = cevjax.Likelihood([wide], cevjax.StandardModel())
    assert np.all(np.isfinite(expected_flat(like, like.nominal())))


def test_statistics_have_their_nuisances():
    names = {s: {p.name for p in cevjax.load("coherent-csi-2021", statistic=s).nuisances} for s in csi.STATISTICS}
    paper = {f"csi2021_{n}" for n in ("signal", "radius", "brn", "nin", "ssb")}
    assert names["2211.11905"] == paper
    assert names["2211.11905-shape"] == paper | {"csi2021_timing", "csi2021_efficiency"}
    assert names["2303.09360"] == paper - {"csi2021_radius"}
    assert names["default"] == (paper - {"csi2021_signal"}) | {
        "sns_flux", "csi2021_qf0", "csi2021_qf1", "csi2021_timing", "csi2021_efficiency"
    }  # fmt: skip
    shape = {p.name: p for p in cevjax.load("coherent-csi-2021", statistic="2211.11905-shape").nuisances}
    assert shape["csi2021_timing"].constraint is None and shape["csi2021_timing"].bounds == (-1, 1)


def test_relative_errors_of_the_normalisations_are_the_published_ones(csi_likelihood):
    like = csi_likelihood("2211.11905")
    nominal = like.expected(like.nominal())["coherent-csi-2021"]
    for component, sigma in {"cevns": 0.11, "brn": 0.25, "nin": 0.35, "ssb": 0.021}.items():
        name = "csi2021_signal" if component == "cevns" else f"csi2021_{component}"
        shifted = like.expected(like.nominal(**{name: 1.0}))["coherent-csi-2021"]
        assert float(shifted[component].sum() / nominal[component].sum()) == pytest.approx(1 + sigma, rel=1e-12)


def test_radius_nuisance_scales_the_box_radius_of_the_paper(csi_likelihood):
    """2211.11905 scales R_A = 1.23 A^(1/3) (1 + a4) of protons and neutrons: checked on its form factor."""
    measurement = csi_likelihood("2211.11905").measurements[0]
    nuclear = measurement.components[0].scatterers.nuclear
    params = {**csi_likelihood("2211.11905").nominal(), "csi2021_radius": 1.0}
    for nucleus in nuclear.bind(params):
        q, hbarc, a = 60.0, 197.3269804, 0.7
        x = q * 1.23 * (nucleus.Z + nucleus.N) ** (1 / 3) * 1.05 / hbarc
        expected = 3 * (np.sin(x) - x * np.cos(x)) / x**3 / (1 + (q * a / hbarc) ** 2)
        assert float(nucleus.protons(q)) == pytest.approx(nucleus.Z * expected, rel=1e-6)
        assert float(nucleus.neutrons(q)) == pytest.approx(nucleus.N * expected, rel=1e-6)


def test_bins_need_the_release():
    with pytest.raises(InvalidValueError, match="`pe_edges` and `time_edges` need `release`"):
        cevjax.load("coherent-csi-2021", pe_edges=[0, 60])


def test_unknown_choices_are_named():
    with pytest.raises(UnknownNameError, match="Did you mean 'coherent-csi-2021'"):
        cevjax.load("coherent-csi-2012")
    with pytest.raises(UnknownNameError, match=r"Unknown statistic '2211\.11906'\. Did you mean '2211\.11905'"):
        cevjax.load("coherent-csi-2021", statistic="2211.11906")
    with pytest.raises(UnknownNameError, match=r"Unknown form factor 'helmm'\. Did you mean 'helm'"):
        cevjax.load("coherent-csi-2021", form_factor="helmm")
    with pytest.raises(UnknownNameError, match="Did you mean 'statistic'"):
        cevjax.load("coherent-csi-2021", statistics="default")


@pytest.mark.parametrize("edges", [[0, 10, 10, 20], [0], [10, 5], [0, np.nan], [-1, 5], [0, 300]])
def test_unusable_bins(csi_release, edges):
    with pytest.raises(InvalidValueError, match="pe_edges"):
        cevjax.load("coherent-csi-2021", release=csi_release, pe_edges=edges)


def test_missing_release(tmp_path):
    with pytest.raises(ReleaseFileError, match="must be the folder"):
        cevjax.load("coherent-csi-2021", release=tmp_path / "nowhere")
    with pytest.raises(ReleaseFileError, match=r"dataBeamOnC.txt does not exist"):
        cevjax.load("coherent-csi-2021", release=tmp_path)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("dataBeamOnC.txt", "12.5", r"dataBeamOnC.txt, line \d+: expected 2 finite numbers .*recoil.* found '12.5'"),
        ("dataBeamOnC.txt", "12.5 abc", r"line \d+: expected 2 finite numbers"),
        ("dataBeamOnC.txt", "12.5 nan", r"line \d+: expected 2 finite numbers"),
        ("dataBeamOnC.txt", "12.5 1.5", "dataBeamOnC.txt: expected 1578 events .* found 1579 in that region"),
        ("dataBeamOnC.txt", "70.0 -1.5", "dataBeamOnC.txt: expected 1578 events .* and 1 below zero"),
        ("brnPE.txt", "250.5 -0.1", "brnPE.txt: expected evenly spaced.* not negative"),
        ("ninTrec.txt", "9 0.1", "ninTrec.txt: expected evenly spaced"),
        ("effCoefficients.txt", "1 2 3 4", "effCoefficients.txt: expected 3 curves, found 4"),
        ("scintRespCoefficients.txt", "1 2 3 4", "scintRespCoefficients.txt: expected 5 curves, found 6"),
    ],
)
def test_malformed_release_files(csi_release, tmp_path, file, line, message):
    for path in csi_release.iterdir():
        shutil.copy(path, tmp_path)
    with (tmp_path / file).open("a") as handle:
        handle.write(f"\n{line}\n")
    with pytest.raises(ReleaseFileError, match=message):
        cevjax.load("coherent-csi-2021", release=tmp_path)


def test_a_release_file_that_was_cut_short_or_turned_round(csi_release, tmp_path):
    for path in csi_release.iterdir():
        shutil.copy(path, tmp_path)
    events = (csi_release / "dataBeamOnC.txt").read_text().splitlines(keepends=True)
    (tmp_path / "dataBeamOnC.txt").write_text("".join(events[:500]))
    with pytest.raises(ReleaseFileError, match="dataBeamOnC.txt: expected 1578 events"):
        cevjax.load("coherent-csi-2021", release=tmp_path)
    (tmp_path / "dataBeamOnC.txt").write_text("".join(events))
    lines = (csi_release / "brnPE.txt").read_text().splitlines(keepends=True)
    zeros = [f"{line.split()[0]} 0\n" for line in lines]
    for broken in (lines[::-1], lines[:2], lines[:1], zeros):
        (tmp_path / "brnPE.txt").write_text("".join(broken))
        with pytest.raises(ReleaseFileError, match="brnPE.txt: expected evenly spaced, increasing bin centres"):
            cevjax.load("coherent-csi-2021", release=tmp_path)


def test_an_empty_release_file(csi_release, tmp_path):
    for path in csi_release.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "dataBeamOnC.txt").write_text("# nothing\n")
    with pytest.raises(ReleaseFileError, match="holds no data"):
        cevjax.load("coherent-csi-2021", release=tmp_path)


@pytest.mark.parametrize(("value", "message"), [(-1.0, "at least 0"), (np.nan, "finite"), (np.inf, "finite")])
def test_unusable_counts(value, message):
    measurement = cevjax.load("coherent-csi-2021")
    counts = np.array(measurement.observed)
    counts[2, 3] = value
    with pytest.raises(InvalidValueError, match=rf"coherent-csi-2021 must be {message}, but bin \(2, 3\)"):
        measurement.with_observed(counts)
    with pytest.raises(InvalidValueError, match=r"must have shape \(9, 11\)"):
        measurement.with_observed(counts[:3])


def test_everything_is_positive_at_extreme_nuisances(csi_likelihood):
    like = csi_likelihood()
    rng = np.random.default_rng(11)
    names = like.nuisances
    low = np.array([max(like.parameters[n].bounds[0], -5) for n in names])
    high = np.array([min(like.parameters[n].bounds[1], 5) for n in names])
    points = rng.uniform(low, high, (200, len(names)))
    fixed = {n: v for n, v in like.nominal().items() if n not in names}
    many = jax.jit(jax.vmap(lambda v: expected_flat(like, {**fixed, **dict(zip(names, v, strict=True))})))
    counts = np.asarray(many(points))
    assert np.all(np.isfinite(counts)) and np.all(counts > -1e-5)


def test_normalised_within_the_window():
    """Of the prompt neutrinos all arrive within 6 us; of the others those whose muon decays by then."""
    counts = {}
    for statistic in ("2211.11905-shape", "2211.11905-window"):
        like = cevjax.Likelihood([cevjax.load("coherent-csi-2021", statistic=statistic)], cevjax.StandardModel())
        counts[statistic] = np.asarray(like.expected(like.nominal())["coherent-csi-2021"]["cevns"]).sum(axis=0)
    ratio = counts["2211.11905-window"] / counts["2211.11905-shape"]
    # nothing but muons decays in the last bins; 2197 ns, after a pulse at 0.4715 us and a pion of 26 ns
    late = 1 / (1 - np.exp(-(6 - 0.4715 - 0.026) / 2.197))
    np.testing.assert_allclose(ratio[-2:], late, rtol=1e-3)
    # at first hardly any muon has decayed
    assert 1 < ratio[0] < 1.015 and np.all(np.diff(ratio) > -1e-9)
