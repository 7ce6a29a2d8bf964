"""The commands scan, forecast and run: their JSON, agreement with Python, and what they say to unusable input."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import cevjax
from cevjax.cli import app

DATA = "conus-plus-2025"
GRID = "sin2_theta_w=0.15:0.35:9"


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def succeed(*words):
    result = invoke(*words)
    assert (result.exit_code, result.stderr) == (0, ""), (result.stderr, result.exception)
    return result


def output(*words):
    return json.loads(succeed(*words, "--json", "-").stdout)


def refused(*words):
    result = invoke(*words)
    assert result.exit_code == 2, result.output
    return result.stderr


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A scan from the command line: its file and its JSON."""
    path = tmp_path_factory.mktemp("scan") / "scan.nc"
    return path, output("scan", DATA, "--grid", GRID, "--out", path, "--plot", path.with_suffix(".png"))


def test_scan_gives_what_python_gives(scanned):
    path, data = scanned
    like = cevjax.Likelihood([cevjax.load(DATA)], cevjax.StandardModel())
    expected = cevjax.scan(like, {"sin2_theta_w": np.linspace(0.15, 0.35, 9)})
    result = cevjax.ScanResult.load(path)
    np.testing.assert_array_equal(result.chi2, expected.chi2)
    assert data["chi2_min"] == pytest.approx(expected.chi2_min) and data["n_points"] == 9
    assert data["best_fit"]["sin2_theta_w"] == pytest.approx(cevjax.fit(like, "sin2_theta_w").values["sin2_theta_w"])
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in path.parent.iterdir()} == {"scan.nc", "scan.png"}


def test_intervals_of_a_scan_are_those_of_interval(scanned):
    like = cevjax.Likelihood([cevjax.load(DATA)], cevjax.StandardModel())
    exact = cevjax.interval(like, "sin2_theta_w", cl=0.6827).intervals
    entry = next(r for r in scanned[1]["regions"] if r["cl"] == 0.6827)
    np.testing.assert_allclose(entry["intervals"], exact, atol=0.001)


def test_the_file_tells_where_it_comes_from(scanned):
    facts = cevjax.ScanResult.load(scanned[0]).facts
    assert facts["datasets"] == [DATA] and len(facts["hashes"][DATA]) == 16
    assert {"cevjax", "commit", "created", "statistic", "interaction", "jax", "accuracy"} <= set(facts)
    assert facts["options"]["command"] == "scan" and facts["options"]["grid"] == [GRID]
    assert facts["options"]["workers"] == 0  # defaults too


def test_a_plane_names_its_regions(tmp_path):
    words = ("--interaction", "nsi", "--grid", "eps_uV_ee=-0.3:0.3:12", "--grid", "eps_dV_ee=-0.3:0.3:12")
    data = output("scan", DATA, *words, "--out", tmp_path / "plane.nc", "--cl", "0.9", "--plot", tmp_path / "plane.pdf")
    plane = data["regions"][0]
    assert plane["dof"] == 2 and 0 < plane["area"] < 0.36 and not plane["closed"]
    assert (tmp_path / "plane.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_logarithmic_grids(tmp_path):
    words = ("--interaction", "magnetic-moment", "--grid", "mu_nu_e=1e-12:1e-9:7:log")
    succeed("scan", DATA, *words, "--out", tmp_path / "scan.nc")
    axis = cevjax.ScanResult.load(tmp_path / "scan.nc").axes["mu_nu_e"]
    np.testing.assert_allclose(axis, np.geomspace(1e-12, 1e-9, 7))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--grid", "sin2_theta=0.1:0.3:5", "--out", "s.nc"], "Did you mean 'sin2_theta_w'"),
        (["--grid", "sin2_theta_w=0.3:0.1:5", "--out", "s.nc"], "a < b"),
        (["--grid", "sin2_theta_w=0.1:0.3", "--out", "s.nc"], "NAME=a:b:n"),
        (["--grid", "sin2_theta_w=0:0.3:5:log", "--out", "s.nc"], "0 < a with log"),
        (["--grid", "sin2_theta_w=0.1:1.3:5", "--out", "s.nc"], "between 0 and 1"),
        (["--grid", GRID, "--out", "s.csv"], ".nc or .zarr"),
        (["--grid", GRID, "--out", "missing/s.nc"], "existing folder"),
        (["--grid", GRID, "--out", "s.nc", "--cl", "68"], "between 0 and 1"),
        (["--grid", GRID, "--out", "s.nc", "--workers", "-1"], "workers"),
        (["--grid", GRID, "--grid", GRID, "--out", "s.nc"], "came twice"),
        (["--grid", GRID, "--out", "s.nc", "--free", "sin2_theta_w", "--set", "sin2_theta_w=0.2"], "sin2_theta_w"),
    ],
)
def test_unusable_scans(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refused("scan", DATA, *words)
    assert not list(tmp_path.iterdir())


def test_forecast(tmp_path):
    data = output("forecast", "ess-ge", "--free", "sin2_theta_w", "--exposure-factor", "3")
    like = cevjax.Likelihood([cevjax.load("ess-ge")], cevjax.StandardModel())
    expected = cevjax.forecast(like, ("sin2_theta_w",), exposure=3.0)
    entry = data["parameters"]["sin2_theta_w"]
    assert entry["error"] == pytest.approx(expected.errors["sin2_theta_w"]) and data["exposure"] == {"ess-ge": 3.0}
    np.testing.assert_allclose(entry["interval90"], expected.pieces("sin2_theta_w"))
    text = succeed("forecast", "ess-ge", "--free", "sin2_theta_w").stdout
    assert "expected error" in text and "exposure x 1" in text
    assert "at least one parameter" in refused("forecast", "ess-ge")
    assert "above 0" in refused("forecast", "ess-ge", "--free", "sin2_theta_w", "--exposure-factor", "0")


ANALYSIS = """
datasets = ["conus-plus-2025"]
interaction = ["nsi"]

[[run]]
command = "scan"
grid = { eps_uV_ee = "-0.3:0.3:5" }
out = "scan.nc"

[[run]]
command = "interval"
poi = "sin2_theta_w"
cl = 0.68
set = { eps_uV_ee = 0.01 }
es = false
json = "interval.json"
"""


def test_analysis_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "analysis.toml").write_text(ANALYSIS)
    dry = succeed("run", "analysis.toml", "--dry-run").stdout
    assert "cevjax scan conus-plus-2025 --interaction nsi --grid eps_uV_ee=-0.3:0.3:5 --out scan.nc" in dry
    assert not (tmp_path / "scan.nc").exists()
    succeed("run", "analysis.toml")
    assert cevjax.ScanResult.load("scan.nc").chi2.shape == (5,)
    direct = ("--interaction", "nsi", "--poi", "sin2_theta_w", "--cl", "0.68", "--set", "eps_uV_ee=0.01", "--no-es")
    data = json.loads((tmp_path / "interval.json").read_text())
    assert data["intervals"] == output("interval", DATA, *direct)["intervals"]
    assert data["options"]["cl"] == [0.68] and data["options"]["set"] == ["eps_uV_ee=0.01"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("command = 'scann'\ndatasets = ['conus-plus-2025']", "Did you mean 'scan'"),
        ("command = 'fit'\ndataset = ['conus-plus-2025']", "Did you mean 'datasets'"),
        ("command = 'fit'\ndatasets = 'conus-plus-2025'\nes = 'yes'", "must be true or false"),
        ("command = 'interval'\ndatasets = ['conus-plus-2025']\npoi = ['a', 'b']", "must be one value"),
        ("command = 'fit'\ndatasets = [true]", "text or numbers"),
        ("datasets = ['conus-plus-2025']", "must have a `command`"),
        ("colour = 3\n[[run]]\ncommand = 'fit'\ndatasets = ['conus-plus-2025']", "`colour`"),
        ("run = 3", "[[run]]"),
        ("command = ", "cannot be read as TOML"),
        (None, "does not exist"),
    ],
)
def test_unusable_analysis_files(text, said, tmp_path):
    path = tmp_path / "analysis.toml"
    if text is not None:
        path.write_text(text)
    message = refused("run", path)
    assert said in message and "Traceback" not in message


WORDS = ["--interaction", "nsi", "--exact", "--grid", "eps_uV_ee=-0.5:0.5:256", "--grid", "eps_dV_ee=-0.5:0.5:64"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL])
def test_an_interrupted_scan_continues(tmp_path, number):
    command = [sys.executable, "-m", "cevjax", "scan", DATA, *WORDS, "--out", "scan.nc"]
    environment = {**os.environ, "MPLBACKEND": "agg"}
    started = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment)
    part, deadline = tmp_path / "scan.nc.part", time.time() + 240
    while len(list(part.glob("chunk-*.npz"))) < 2 and time.time() < deadline and started.poll() is None:
        time.sleep(0.02)
    started.send_signal(number)
    message = started.communicate()[1]
    kept = {p.name: p.stat().st_mtime_ns for p in part.glob("chunk-*.npz")}
    assert 2 <= len(kept) < 16 and not (tmp_path / "scan.nc").exists()
    if number == signal.SIGINT:
        assert started.returncode == 130 and f"{len(kept)} of 16 chunks are kept" in message and "--resume" in message
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert again.returncode == 2 and "resume" in again.stderr  # nothing is thrown away unasked
    done = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    whole = subprocess.run([*command[:-1], "whole.nc"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert whole.returncode == 0 and not part.exists()
    resumed, straight = (cevjax.ScanResult.load(tmp_path / name) for name in ("scan.nc", "whole.nc"))
    np.testing.assert_array_equal(resumed.chi2, straight.chi2)
    for name, values in straight.values.items():
        np.testing.assert_array_equal(resumed.values[name], values)


# -------------------------------------------------------------------------------------------------------------- sample


SAMPLE = ["sample", "coherent-csi-2021", "--statistic", "2303.09360", "--free", "sin2_theta_w", "--chains", "2"]


def test_sample_command(tmp_path):
    out, figure = tmp_path / "posterior.nc", tmp_path / "corner.png"
    options = ["--draws", "400", "--out", str(out), "--plot", str(figure), "--prior", "sin2_theta_w=flat:0.1:0.4"]
    result = invoke(*SAMPLE, *options, "--json", "-")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    row = data["parameters"]["sin2_theta_w"]
    assert set(row) >= {"mean", "sd", "hdi90", "ess_bulk", "r_hat"}
    assert 0.15 < row["hdi90"][0] < row["mean"] < row["hdi90"][1] < 0.32
    assert data["divergences"] == 0 and data["out"] == str(out) and data["seconds"] > 0
    assert data["priors"]["sin2_theta_w"] == "flat:0.1:0.4"
    assert data["options"]["draws"] == 400 and data["complaints"] == []
    assert figure.stat().st_size > 5000
    assert not (tmp_path / "posterior.nc.part").exists()
    found = cevjax.posteriors.load(out)
    assert float(found.posterior["sin2_theta_w"].mean()) == pytest.approx(row["mean"], abs=1e-12)


def test_sample_prints_and_judges(tmp_path):
    """Too few draws: said, and with --strict an exit status."""
    options = ["--draws", "30", "--out", str(tmp_path / "posterior.nc")]
    result = invoke(*SAMPLE, *options)
    assert result.exit_code == 0
    assert "NOT GOOD: " in result.output and "too few independent draws" in result.output
    assert "prior of sin2_theta_w: flat:0:1" in result.output and "ln Z" in result.output
    result = invoke(*SAMPLE, *options, "--strict")
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "posterior.txt"], "must end in .nc"),
        (["--out", "p.nc", "--prior", "sin2_theta_w"], "NAME=PRIOR"),
        (["--out", "p.nc", "--prior", "sin2_theta_w=flat:0:x"], "must read flat:a:b"),
        (["--out", "p.nc", "--prior", "sin2_thet_w=flat:0:1"], "Did you mean 'sin2_theta_w'"),
        (["--out", "p.nc", "--draws", "0"], "`draws`"),
    ],
)
def test_sample_bad_input(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(*SAMPLE, *options)
    assert result.exit_code == 2 and message in result.output
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------- compare


@pytest.fixture(scope="module")
def intervals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intervals")
    for flux in ("hmk", "efk"):
        options = ("--poi", "sin2_theta_w", "--cl", 0.68, "--cl", 0.9)
        succeed("interval", f"{DATA}:flux={flux}", *options, "--json", folder / f"{flux}.json")
        os.utime(folder / f"{flux}.json", ns=(10**18 + (flux == "efk"),) * 2)
    options = ("--interaction", "light-vector:model=b-l", "--set", "m_zprime=10", "--poi", "g_zprime")
    succeed("interval", DATA, *options, "--json", folder / "force.json")
    (folder / "other.json").write_text(json.dumps({"command": "fit"}))
    return folder


def test_compare(intervals, tmp_path):
    data = output("compare", intervals, "--table", tmp_path / "t.md", "--plot", tmp_path / "f.png,pdf")["parameters"]
    assert list(data) == ["sin2_theta_w", "g_zprime, b-l, m_zprime=10"]
    one = json.loads((intervals / "efk.json").read_text())
    assert data["sin2_theta_w"][f"{DATA}:flux=efk"] == one
    cells = " ".join(f"[{low:.3g}, {high:.3g}]" for low, high in one["levels"][1]["intervals"])
    table = (tmp_path / "t.md").read_text().splitlines()
    assert table[0] == f"| parameter | {DATA}:flux=hmk | {DATA}:flux=efk | {DATA} |"
    assert table[2].startswith("| sin2_theta_w | [") and table[2].endswith(f" | {cells} |  |")
    assert table[3].startswith("| g_zprime, b-l, m_zprime=10 |  |  | [open, ") and len(table) == 4
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF") and (tmp_path / "f.png").exists()
    pattern = output("compare", intervals / "force*.json", intervals / "?*mk.json")["parameters"]
    assert list(pattern) == ["g_zprime, b-l, m_zprime=10", "sin2_theta_w"]
    shown = succeed("compare", intervals / "hmk.json", "--label", f"{DATA}:flux=hmk=CONUS", "--cl", "0.68").stdout
    low, high = json.loads((intervals / "hmk.json").read_text())["levels"][0]["intervals"][0]
    assert "CONUS" in shown and f"[{low:.3g}, {high:.3g}]" in shown
    succeed("compare", intervals / "hmk.json", "--cl", "0.68", "--cl", "0.9", "--table", tmp_path / "two.md")
    rows = (tmp_path / "two.md").read_text().splitlines()[2:]
    assert rows[0].startswith("| sin2_theta_w, 0.68 | ") and rows[1].startswith("| sin2_theta_w, 0.9 | ")
    assert f"[{low:.3g}, {high:.3g}]" in rows[0] and rows[0].split("|")[2] != rows[1].split("|")[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("other.json",), "other.json"),
        (("none.json",), "none.json"),
        (("hmk.json", "--label", "CONUS"), "`--label`"),
        (("hmk.json", "--table", "no/where.md"), "no/where.md"),
    ],
)
def test_compare_refuses(intervals, words, said):
    assert said in refused("compare", intervals / words[0], *words[1:])


def test_compare_needs_results(tmp_path):
    assert str(tmp_path) in refused("compare", tmp_path).replace("\n", "")
