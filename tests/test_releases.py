"""Fetching and checking releases: the code that users run, against a server on this machine that can misbehave."""

import dataclasses
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from typer.testing import CliRunner

import cevjax
from cevjax import releases
from cevjax.cli import app
from cevjax.errors import InvalidValueError, ReleaseFileError, UnknownNameError
from cevjax.releases import FetchError

NAME = "toy-2020"
EVENTS = bytes(range(256)) * 1200  # 300 kB, so that it arrives in several chunks
FILES = {"events.txt": EVENTS, "README": b"a release\n", "one d/pdf+1sig.txt": b"1 2 3\n" * 400}
TABLE = b"1,2\n3,4\n"


def digest(content):
    return hashlib.sha256(content).hexdigest()


# ------------------------------------------------------------------------------------------------- a server and a cache


class Server(ThreadingHTTPServer):
    """Serves ``files`` below /data/, and misbehaves as it is told."""

    daemon_threads = True

    def __init__(self, files):
        self.files = dict(files)
        self.requests = []  # (file, Range header)
        self.status = {}  # file: error status
        self.dies_after = {}  # file: bytes that one answer sends before the connection breaks; then it is forgotten
        self.stalls_after = {}  # file: bytes after which an answer never ends
        self.sends_size = self.knows_ranges = True
        self.compresses = False
        self.pause = 0.0  # seconds before each chunk
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/data"

    def asked(self, file):
        return [where for name, where in self.requests if name == file]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format, *args):  # noqa: A002
        pass

    def do_GET(self):
        server, file = self.server, unquote(urlsplit(self.path).path).removeprefix("/data/")
        where = self.headers.get("Range")
        server.requests.append((file, where))
        if file not in server.files or file in server.status:
            self.send_error(server.status.get(file, 404))
            return
        content = gzip.compress(server.files[file], 0) if server.compresses else server.files[file]
        start = int(where.removeprefix("bytes=").rstrip("-")) if where and server.knows_ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.compresses:
            self.send_header("Content-Encoding", "gzip")
        if server.sends_size:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stall = server.stalls_after.get(file)
        end = server.dies_after.pop(file, stall if stall is not None else len(content))
        for first in range(start, end, 20_000):
            time.sleep(server.pause)
            self.wfile.write(content[first : min(first + 20_000, end)])
        self.wfile.flush()
        if stall is not None:
            time.sleep(60)


@pytest.fixture
def serve():
    """Start servers: ``serve(files)``."""
    running = []

    def start(files=FILES):
        server = Server(files)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(serve):
    return serve()


def manifest_text(bases, files=FILES, **changes):
    facts = {
        "name": NAME,
        "title": "A toy",
        "citation": "A. Toymaker",
        "source": "nowhere",
        "doi": "10.1234/toy",
        "licence": "CC0",
        "derived_with": "experiments/toy/convert.py",
        "units": "events",
        "adds": "single events",
        "release": list(bases),
        **changes,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in facts.items() if value is not None]
    hashes = {file: digest(content) for file, content in files.items()}
    lines += ["[sha256.release]", *(f'"{file}" = "{sha256}"' for file, sha256 in hashes.items())]
    lines += ["[sha256.derived]", f'"table.csv" = "{digest(TABLE)}"']
    return "\n".join(lines) + "\n"


@pytest.fixture
def toy(tmp_path, monkeypatch, server):
    """The manifest of a toy data set, whose release the server has; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CEVJAX_RELEASES", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "data" / NAME
    folder.mkdir(parents=True)
    (folder / "table.csv").write_bytes(TABLE)
    path = folder / "manifest.toml"
    path.write_text(manifest_text([server.url]))
    monkeypatch.setattr(releases, "data_dir", lambda name: tmp_path / "data" / name)
    return path


@pytest.fixture
def folder(toy, tmp_path):
    """Where the toy's release belongs."""
    return tmp_path / "cache" / "cevjax" / "releases" / NAME


def present(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def states(name=NAME, kind="release", **options):
    return {f.file: f.state for f in releases.verify(name, **options) if f.kind == kind}


# ------------------------------------------------------------------------------------------------------------ manifests


@pytest.mark.parametrize("name", releases.manifest_names())
def test_every_manifest_is_well_formed_and_its_tables_are_there(name):
    manifest = releases.read_manifest(name)
    assert manifest.title and manifest.source and manifest.licence and manifest.adds
    assert set(states(name, "embedded").values()) == {"ok"}
    urls = [releases.file_url(base, file) for base in manifest.release for file in manifest.release_sha256]
    assert all(url.startswith("https://") for url in urls) and len(set(urls)) == len(urls)


def test_the_csi_release_comes_from_arxiv():
    manifest = releases.read_manifest("coherent-csi-2021")
    (base,) = manifest.release
    assert releases.file_url(base, "brnPE.txt") == "https://arxiv.org/src/2110.07730v2/anc/brnPE.txt"
    assert len(manifest.release_sha256) == 8


def test_a_manifest_is_read(toy, server):
    manifest = releases.read_manifest(NAME)
    assert (manifest.name, manifest.doi, manifest.adds) == (NAME, "10.1234/toy", "single events")
    assert manifest.release == (server.url,)
    assert manifest.release_sha256 == {file: digest(content) for file, content in FILES.items()}
    assert manifest.derived_sha256 == {"table.csv": digest(TABLE)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.name = "other"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"title": None}, "title"),
        ({"doi": 7}, "doi"),
        ({"name": "other"}, "name"),
        ({"adds": None}, "adds"),
        ({"release": None}, "release"),
        ({"release": "http://a.b"}, "release"),
        ({"release": ["ftp://a.b"]}, "release"),
        ({"release": ["http://"]}, "release"),
        ({"release": ["http://[::1"]}, "release"),
        ({"release": [3]}, "release"),
    ],
)
def test_a_malformed_manifest_is_refused(toy, server, change, key):
    toy.write_text(manifest_text([server.url], **change))
    with pytest.raises(ReleaseFileError, match=f"manifest.toml: key `{key}` must be"):
        releases.read_manifest(NAME)


@pytest.mark.parametrize("file", ["../x", "/x", "a/../../x", "", ".", "c:x", "a\\\\b"])
def test_no_file_of_a_manifest_leaves_its_folder(toy, server, file):
    toy.write_text(manifest_text([server.url], {file: b""}))
    with pytest.raises(ReleaseFileError, match=r"key `sha256.release` must be a table of relative paths"):
        releases.read_manifest(NAME)


@pytest.mark.parametrize(
    "old_new", [(digest(EVENTS), "abc"), (f'"{digest(EVENTS)}"', "7"), ("[sha256.release]", "[x]")]
)
def test_hashes_must_be_hashes(toy, old_new):
    toy.write_text(toy.read_text().replace(*old_new))
    with pytest.raises(ReleaseFileError, match=r"key `sha256.release`"):
        releases.read_manifest(NAME)


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe"])
def test_what_is_no_toml_is_refused(toy, content):
    toy.write_bytes(content)
    with pytest.raises(ReleaseFileError, match=r"manifest.toml cannot be read as TOML"):
        releases.read_manifest(NAME)


def test_an_unknown_name_is_met_with_the_nearest(toy):
    for function in (releases.read_manifest, releases.verify, releases.fetched, releases.fetch):
        with pytest.raises(UnknownNameError, match="Did you mean 'toy-2020'"):
            function("toy-2002")


# -------------------------------------------------------------------------------------------------------- where it lies


def test_the_folder_of_a_release(tmp_path, monkeypatch):
    monkeypatch.delenv("CEVJAX_RELEASES", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert releases.release_folder("x") == tmp_path / ".cache" / "cevjax" / "releases" / "x"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert releases.release_folder("x") == tmp_path / "cache" / "cevjax" / "releases" / "x"
    monkeypatch.setenv("CEVJAX_RELEASES", str(tmp_path / "here"))
    assert releases.release_folder("x") == tmp_path / "here" / "x"
    assert releases.release_folder("x", tmp_path / "there") == tmp_path / "there" / "x"


def test_without_a_home_the_user_is_asked_for_a_folder(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for variable in ("CEVJAX_RELEASES", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(releases.Path, "home", homeless)
    with pytest.raises(InvalidValueError, match="CEVJAX_RELEASES"):
        releases.release_folder("x")


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://a.b/anc", "http://a.b/anc/one%20d/f%2B1.txt"),
        ("http://a.b/anc/", "http://a.b/anc/one%20d/f%2B1.txt"),
        ("http://a.b/{file}?download=1", "http://a.b/one%20d/f%2B1.txt?download=1"),
    ],
)
def test_the_url_of_a_file(base, url):
    assert releases.file_url(base, "one d/f+1.txt") == url


def test_verify_and_fetched_say_what_is_wrong(toy, folder):
    assert states() == dict.fromkeys(FILES, "missing")
    with pytest.raises(ReleaseFileError, match=r"events.txt is missing. Run `cevjax data fetch toy-2020`"):
        releases.fetched(NAME)
    releases.fetch(NAME)
    assert states() == dict.fromkeys(FILES, "ok") and releases.fetched(NAME) == folder
    (folder / "README").write_text("changed")
    assert states() == {**dict.fromkeys(FILES, "ok"), "README": "wrong hash"}
    with pytest.raises(ReleaseFileError, match=r"README has the wrong hash. Run `cevjax data fetch toy-2020`"):
        releases.fetched(NAME)
    (toy.parent / "table.csv").write_text("changed")
    assert states(kind="embedded") == {"table.csv": "wrong hash"}
    (toy.parent / "table.csv").unlink()
    assert states(kind="embedded") == {"table.csv": "missing"}


def test_a_data_set_without_a_release(toy, folder):
    toy.write_text(manifest_text([]))
    assert states() == {} and states(kind="embedded") == {"table.csv": "ok"}
    with pytest.raises(ReleaseFileError, match="no release that could be fetched"):
        releases.fetched(NAME)
    with pytest.raises(InvalidValueError, match="no release that could be fetched"):
        releases.fetch(NAME)
    assert not folder.exists()


# ------------------------------------------------------------------------------------------------------------- fetching


def test_fetch_brings_every_file(toy, folder, server):
    assert releases.fetch(NAME) == folder
    assert present(folder) == FILES
    assert sorted(server.requests) == sorted((file, None) for file in FILES)
    umask = os.umask(0)
    os.umask(umask)
    assert all((folder / file).stat().st_mode & 0o777 == 0o666 & ~umask for file in FILES)


def test_what_is_there_and_right_is_not_downloaded_again(toy, folder, server):
    releases.fetch(NAME)
    (folder / "README").write_text("changed")
    (folder / "events.txt").unlink()
    server.requests.clear()
    releases.fetch(NAME)
    assert present(folder) == FILES
    assert sorted(file for file, _ in server.requests) == ["README", "events.txt"]
    server.requests.clear()
    releases.fetch(NAME)
    assert server.requests == []


def test_fetch_to_another_folder(toy, tmp_path, folder):
    assert releases.fetch(NAME, root=tmp_path / "there") == tmp_path / "there" / NAME
    assert present(tmp_path / "there" / NAME) == FILES and not folder.exists()
    assert releases.fetched(NAME, tmp_path / "there") == tmp_path / "there" / NAME
    assert states(root=tmp_path / "there") == dict.fromkeys(FILES, "ok")


def test_fetch_tells_its_progress(toy, server):
    told = []
    releases.fetch(NAME, progress=lambda *what: told.append(what))
    events = [(here, total) for file, here, total in told if file == "events.txt"]
    assert len(events) > 1 and events == sorted(events) and events[-1] == (len(EVENTS), len(EVENTS))
    assert {file for file, *_ in told} == set(FILES)


def test_a_server_that_does_not_tell_sizes(toy, folder, server):
    server.sends_size = False
    told = []
    releases.fetch(NAME, progress=lambda *what: told.append(what))
    assert present(folder) == FILES and {total for *_, total in told} == {None}


def test_a_server_that_compresses_what_should_be_plain(toy, folder, server):
    """How far the plain bytes go says nothing of where to continue the compressed ones."""
    server.compresses = True
    server.dies_after["events.txt"] = 200_000
    with pytest.raises(FetchError, match=r"connection lost after \d+ bytes"):
        releases.fetch(NAME)
    assert (folder / "events.txt.part").stat().st_size > 0
    releases.fetch(NAME)
    assert present(folder) == FILES


def test_a_pattern_with_a_query(toy, folder, server):
    toy.write_text(manifest_text([server.url + "/{file}?download=1"]))
    releases.fetch(NAME)
    assert present(folder) == FILES


def test_a_connection_that_dies_half_way_is_continued_by_the_next_run(toy, folder, server):
    server.dies_after["events.txt"] = 100_000
    with pytest.raises(FetchError) as caught:
        releases.fetch(NAME)
    message = str(caught.value)
    assert "File events.txt" in message and f"{server.url}/events.txt: connection lost after " in message
    assert f" of {len(EVENTS)} bytes. Run `cevjax data fetch toy-2020` again to continue." in message
    here = len((folder / "events.txt.part").read_bytes())
    assert 0 < here <= 100_000 and not (folder / "events.txt").exists()
    told = []
    releases.fetch(NAME, progress=lambda *what: told.append(what))
    assert server.asked("events.txt") == [None, f"bytes={here}-"]
    assert present(folder) == FILES
    assert told[0][1] > here and told[0][2] == len(EVENTS)


def test_another_mirror_continues(toy, folder, serve, server):
    other = serve()
    server.dies_after["events.txt"] = 100_000
    toy.write_text(manifest_text([server.url, other.url]))
    releases.fetch(NAME)
    assert present(folder) == FILES
    assert server.asked("events.txt") == [None] and other.asked("events.txt")[0].startswith("bytes=")
    assert {file for file, _ in other.requests} == {"events.txt"}


def test_a_server_without_ranges_starts_from_zero(toy, folder, server):
    server.knows_ranges = False
    server.dies_after["events.txt"] = 100_000
    with pytest.raises(FetchError, match="again to continue"):
        releases.fetch(NAME)
    releases.fetch(NAME)
    assert present(folder) == FILES and server.asked("events.txt")[1].startswith("bytes=")


@pytest.mark.parametrize(
    "part", [b"something else", EVENTS[:1000] + b"x", EVENTS, EVENTS + b"too much", b"x" * len(EVENTS), b""]
)
def test_a_partial_file_that_does_not_fit_is_dropped(toy, folder, server, part):
    folder.mkdir(parents=True)
    (folder / "events.txt.part").write_bytes(part)
    releases.fetch(NAME)
    assert present(folder) == FILES


def test_a_truncated_file_is_refused(toy, folder, server):
    """The server is content with less than all of it."""
    server.files["events.txt"] = EVENTS[:-1]
    with pytest.raises(FetchError) as caught:
        releases.fetch(NAME)
    wrong, right = digest(EVENTS[:-1]), digest(EVENTS)
    assert f"wrong hash: expected sha256 {right}, but {len(EVENTS) - 1} bytes with {wrong} came" in str(caught.value)
    assert present(folder) == {}
    server.files["events.txt"] = EVENTS
    releases.fetch(NAME)
    assert present(folder) == FILES


def test_a_wrong_hash_leads_to_the_next_mirror(toy, folder, serve, server):
    server.files["README"] = b"another release\n"
    other = serve()
    toy.write_text(manifest_text([server.url, other.url]))
    releases.fetch(NAME)
    assert present(folder) == FILES and [file for file, _ in other.requests] == ["README"]


@pytest.mark.parametrize("wrong", [b"another release\n", b""])
def test_a_wrong_file_never_replaces_another(toy, folder, server, wrong):
    releases.fetch(NAME)
    (folder / "README").write_text("my own")
    server.files["README"] = wrong
    with pytest.raises(FetchError):
        releases.fetch(NAME)
    assert present(folder) == {**FILES, "README": b"my own"}


def test_what_is_not_found_is_named_with_every_url(toy, folder, serve, server):
    other = serve({})
    server.status["README"] = 503
    with pytest.raises(FetchError) as caught:
        releases.fetch(NAME, mirrors=[server.url, other.url])
    message = str(caught.value)
    assert message.startswith("File README of 'toy-2020' could not be downloaded: ")
    assert f"{server.url}/README: 503 " in message and f"{other.url}/README: 404 Not Found" in message
    assert "again to continue" not in message
    assert "README" not in present(folder)


def test_no_network(toy, folder, server):
    toy.write_text(manifest_text(["http://127.0.0.1:9/data"]))
    with pytest.raises(FetchError, match=r"127.0.0.1:9/data/events.txt: no answer \(.*refused\)"):
        releases.fetch(NAME)
    assert present(folder) == {}


def test_a_server_that_falls_silent(toy, folder, server, monkeypatch):
    monkeypatch.setattr(releases, "TIMEOUT", 0.3)
    server.stalls_after["events.txt"] = 100_000
    with pytest.raises(FetchError, match=r"connection lost after \d+ of 307200 bytes"):
        releases.fetch(NAME)
    server.stalls_after.clear()
    releases.fetch(NAME)
    assert present(folder) == FILES


def test_mirrors_replace_the_urls_of_the_manifest(toy, folder, serve, server):
    mirror = serve()
    releases.fetch(NAME, mirrors=[mirror.url])
    assert present(folder) == FILES and server.requests == []


@pytest.mark.parametrize("mirror", ["", "folder", "ftp://a.b", "file:///etc", "http://"])
def test_a_mirror_must_be_a_url(toy, folder, mirror):
    with pytest.raises(InvalidValueError, match="http or https URL"):
        releases.fetch(NAME, mirrors=[mirror])
    assert not folder.exists()


def test_two_at_once_share_the_work(toy, folder, server):
    server.pause = 0.01
    errors = []

    def work():
        try:
            releases.fetch(NAME)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == [] and present(folder) == FILES
    assert sorted(file for file, _ in server.requests) == sorted(FILES)


def test_without_locks_no_wrong_file_is_left(toy, folder, server, monkeypatch):
    """As on a system that has none: runs may disturb each other, but whatever ends up there is right."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    server.pause = 0.002

    def work():
        for _ in range(3):
            try:
                releases.fetch(NAME)
            except OSError:
                time.sleep(0.01)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(content == FILES[file] for file, content in present(folder).items() if file in FILES)
    releases.fetch(NAME)
    assert FILES.items() <= present(folder).items()


PROCESS = """
import sys
from pathlib import Path
from cevjax import cli, releases

data = Path(sys.argv.pop(1))
releases.data_dir = lambda name: data / name
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_fetch_is_continued(toy, folder, server, number):
    server.stalls_after["events.txt"] = 200_000
    command = [sys.executable, "-c", PROCESS, toy.parents[1], "data", "fetch", NAME]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    part = folder / "events.txt.part"
    try:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    here = part.stat().st_size
    assert 0 < here <= 200_000 and EVENTS.startswith(part.read_bytes())
    if number == signal.SIGKILL:  # cannot tidy up: an empty temporary file may be left
        assert process.returncode == -number and not (folder / "events.txt").exists()
    else:
        assert process.returncode == 128 + number and "Interrupted" in said
        assert list(present(folder)) == ["events.txt.part"]
    server.stalls_after.clear()
    releases.fetch(NAME)
    assert server.asked("events.txt")[-1] == f"bytes={here}-"
    assert FILES.items() <= present(folder).items() and not part.exists()


def test_the_official_release_can_be_fetched_and_used(csi_release, serve, tmp_path, monkeypatch):
    """The very files of the publisher, by the manifest that users have."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    name = "coherent-csi-2021"
    server = serve({path.name: path.read_bytes() for path in csi_release.iterdir()})
    folder = releases.fetch(name, [server.url], tmp_path)
    assert releases.fetched(name, tmp_path) == folder
    loaded = cevjax.load(name, release=folder)
    assert float(loaded.observed.sum()) == float(cevjax.load(name).observed.sum()) == 1578


# ---------------------------------------------------------------------------------------------------------- the command


def invoke(*words):
    return CliRunner().invoke(app, ["data", *map(str, words)])


def succeed(*words):
    result = invoke(*words)
    assert (result.exit_code, result.stderr) == (0, ""), (result.stderr, result.exception)
    return result.stdout


def refuse(status, *words):
    result = invoke(*words)
    assert result.exit_code == status, (result.output, result.exception)
    assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1
    return result.stderr


def release_state():
    return json.loads(succeed("list", "--json", "-"))["datasets"][0]["release"]


def test_list_says_what_is_there(toy, folder, server):
    row = {"name": NAME, "title": "A toy", "embedded": "ok", "release": "not fetched"}
    assert json.loads(succeed("list", "--json", "-")) == {"datasets": [row]}
    for word in row.values():
        assert word in succeed("list")
    releases.fetch(NAME)
    assert release_state() == "fetched"
    (folder / "README").unlink()
    assert release_state() == "incomplete"
    (folder / "README").write_text("changed")
    assert release_state() == "damaged"
    toy.write_text(manifest_text([]))
    assert release_state() == "nothing to fetch"
    (toy.parent / "table.csv").write_text("changed")
    assert json.loads(succeed("list", "--json", "-"))["datasets"][0]["embedded"] == "damaged"


def test_list_of_the_data_sets_of_the_package():
    names = [row["name"] for row in json.loads(succeed("list", "--json", "-"))["datasets"]]
    assert names == list(releases.manifest_names()) and "coherent-csi-2021" in names


def test_info_tells_everything(toy, folder, server, tmp_path):
    succeed("info", NAME, "--json", tmp_path / "info.json")
    data = json.loads((tmp_path / "info.json").read_text())
    assert data["source"] == "nowhere" and data["doi"] == "10.1234/toy" and data["licence"] == "CC0"
    assert data["embedded"] == ["table.csv"] and data["release"] == list(FILES) and data["urls"] == [server.url]
    assert data["adds"] == "single events" and data["folder"] == str(folder)
    assert {"file": "table.csv", "kind": "embedded", "state": "ok"} in data["files"]
    assert {"file": "README", "kind": "release", "state": "missing"} in data["files"]
    text = succeed("info", NAME)
    for word in ("A toy", "nowhere", "10.1234/toy", "CC0", "embedded (ok): table.csv", "adds: single events"):
        assert word in text
    assert "release (not fetched): events.txt, README" in text and str(folder) in text


def test_fetch_says_where_the_files_are(toy, folder, tmp_path):
    assert succeed("fetch", NAME) == f"{NAME}: 3 files in {folder}\n"
    assert succeed("fetch", NAME, "--to", tmp_path / "there") == f"{NAME}: 3 files in {tmp_path / 'there' / NAME}\n"
    assert present(folder) == present(tmp_path / "there" / NAME) == FILES


def test_fetch_from_mirrors(toy, folder, serve):
    mirrors = [serve({}), serve()]
    succeed("fetch", NAME, "--mirror", mirrors[0].url, "--mirror", mirrors[1].url + "/{file}?download=1")
    assert present(folder) == FILES


def test_a_failed_fetch_is_one_message(toy, folder, server):
    server.dies_after["events.txt"] = 100_000
    assert "connection lost after" in refuse(1, "fetch", NAME)
    succeed("fetch", NAME)
    assert "no answer" in refuse(1, "fetch", NAME, "--mirror", "http://127.0.0.1:9", "--to", folder / "new")
    server.files["README"] = b"wrong"
    assert digest(b"wrong") in refuse(1, "fetch", NAME, "--to", folder / "newer")


@pytest.mark.parametrize("command", ["info", "fetch", "verify"])
def test_a_typo_is_refused(toy, folder, server, command):
    assert "Did you mean 'toy-2020'" in refuse(2, command, "toy-2200")
    assert server.requests == [] and not folder.exists()


def test_a_typo_is_refused_before_anything_is_downloaded(toy, server):
    assert "toy-2200" in refuse(2, "fetch", NAME, "toy-2200")
    assert server.requests == []


def test_what_cannot_be_fetched_is_refused(toy, tmp_path):
    assert "mirror" in refuse(2, "fetch", NAME, "--mirror", "nowhere")
    (tmp_path / "file").write_text("")
    assert "file" in refuse(1, "fetch", NAME, "--to", tmp_path / "file")
    toy.write_text(manifest_text([]))
    assert "no release that could be fetched" in refuse(2, "fetch", NAME)


def test_verify(toy, folder, server):
    text = succeed("verify")
    assert "table.csv" in text and "Not fetched: 3 files" in text and "cevjax data fetch toy-2020" in text
    succeed("fetch", NAME)
    assert "Not fetched" not in succeed("verify", NAME)
    (folder / "README").write_text("changed")
    result = invoke("verify", NAME)
    assert result.exit_code == 1 and NAME in result.stderr
    assert ["README", "release", "wrong", "hash"] in [line.split() for line in result.stdout.splitlines()]
    succeed("fetch", NAME)
    succeed("verify", NAME)
    (toy.parent / "table.csv").unlink()
    result = invoke("verify")
    assert result.exit_code == 1 and "reinstall" in result.stderr
    assert ["table.csv", "embedded", "missing"] in [line.split() for line in result.stdout.splitlines()]


def test_without_a_command_there_is_help():
    result = CliRunner().invoke(app, ["data"])
    assert all(word in result.output for word in ("list", "info", "fetch", "verify"))
    assert "data" in CliRunner().invoke(app, ["--help"]).output


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_a_terminal_sees_a_bar(toy, folder, server):
    server.pause = 0.02
    outer, inner = os.openpty()
    command = [sys.executable, "-c", PROCESS, toy.parents[1], "data", "fetch", NAME]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TERM": "xterm"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=inner, env=environment, timeout=60)
    os.set_blocking(outer, False)
    said = b"".join(iter(lambda: _read(outer), b"")).decode()
    os.close(inner)
    os.close(outer)
    assert done.returncode == 0 and done.stdout.decode() == f"{NAME}: 3 files in {folder}\n"
    assert "events.txt" in said
    assert said.index("\x1b[?25h") < said.index("events.txt")  # the cursor is back before anything can interrupt


def _read(handle):
    try:
        return os.read(handle, 4096)
    except BlockingIOError:
        return b""
