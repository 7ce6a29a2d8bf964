"""The persistent compilation cache, each case in a fresh process: JAX is configured once."""

import json
import os
import subprocess
import sys

import pytest

PROBE = """
import json
import os
import cevjax
import jax
import jax.numpy as jnp

before = jax.config.jax_compilation_cache_dir
folder = cevjax.enable_compilation_cache()
again = cevjax.enable_compilation_cache()

@jax.jit
def work(x):
    for k in range(60 if "LONG" in os.environ else 1):  # 60: the compilation is long enough to be worth keeping
        x = jnp.sin(x @ x.T + k) + jnp.cumsum(x, axis=0)
    return x

work(jnp.eye(8)).block_until_ready()
print(json.dumps({
    "before": before, "folder": folder and str(folder), "again": again and str(again),
    "configured": jax.config.jax_compilation_cache_dir,
}))
"""


def probe(tmp_path, script=PROBE, **environment):
    """What a process with these environment variables, and none of the caller's about caches, reports."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CEVJAX_", "JAX_", "XDG_"))}
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    variables = {**kept, "HOME": str(home), "JAX_PLATFORMS": "cpu", **environment}
    variables = {name: str(value) for name, value in variables.items() if value is not None}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=variables, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files(folder):
    return {path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-atime")}


def test_compiled_functions_are_kept_and_used_again(tmp_path):
    folder = tmp_path / "cache"
    said = probe(tmp_path, CEVJAX_CACHE=folder, LONG=1)
    assert said["before"] is None
    assert said["folder"] == said["configured"] == str(folder / "jax")
    kept = files(folder)
    assert any("work" in name for name in kept)
    probe(tmp_path, CEVJAX_CACHE=folder, LONG=1)
    assert files(folder) == kept  # nothing was compiled anew
    assert not files(tmp_path / "home")


def test_off_means_off(tmp_path):
    said = probe(tmp_path, CEVJAX_CACHE="off", LONG=1)
    assert said == {"before": None, "folder": None, "again": None, "configured": None}
    assert not files(tmp_path)


def test_the_user_s_cache_folder_is_the_default(tmp_path):
    said = probe(tmp_path, LONG=1)
    assert said["folder"] == str(tmp_path / "home" / ".cache" / "cevjax" / "jax")
    assert files(tmp_path / "home" / ".cache" / "cevjax")


def test_xdg_cache_home_comes_first(tmp_path):
    said = probe(tmp_path, XDG_CACHE_HOME=tmp_path / "xdg")
    assert said["folder"] == str(tmp_path / "xdg" / "cevjax" / "jax")
    assert not files(tmp_path / "home")


def test_a_cache_that_the_user_configured_is_left_alone(tmp_path):
    own = tmp_path / "own"
    said = probe(tmp_path, JAX_COMPILATION_CACHE_DIR=own, CEVJAX_CACHE=tmp_path / "cache")
    assert said == {"before": str(own), "folder": None, "again": None, "configured": str(own)}
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["CEVJAX_CACHE", "HOME"])
def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path, name):
    (tmp_path / "file").write_text("")
    said = probe(tmp_path, **{name: tmp_path / "file" / "below"})
    assert said["folder"] is None and said["configured"] is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_stops_nothing(tmp_path):
    folder = tmp_path / "cache"
    (folder / "jax").mkdir(parents=True)
    (folder / "jax").chmod(0o555)
    try:
        assert probe(tmp_path, CEVJAX_CACHE=folder)["configured"] == str(folder / "jax")
    finally:
        (folder / "jax").chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no user ids here")
def test_a_user_without_a_home_is_no_error(tmp_path):
    """As in a container that runs under an arbitrary user id."""
    script = "import os; os.getuid = lambda: 987654321\n" + PROBE
    assert probe(tmp_path, script, HOME=None)["folder"] is None


def test_the_command_line_fills_the_cache(tmp_path):
    command = "from cevjax.cli import app; app(['predict', 'coherent-csi-2021', '--json', '-'])"
    data = probe(tmp_path, command, CEVJAX_CACHE=tmp_path / "cache")
    assert data["command"] == "predict"
    assert files(tmp_path / "cache")


def test_importing_the_package_touches_nothing(tmp_path):
    script = "import json, cevjax, jax; print(json.dumps(jax.config.jax_compilation_cache_dir))"
    assert probe(tmp_path, script) is None
    assert not files(tmp_path)
