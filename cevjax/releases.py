"""The official releases behind the data sets: what a manifest says of them, downloading them, checking them.

``data/<name>/manifest.toml`` is the one place of facts: where a data set comes from, what is embedded, where the rest
can be had, and the hash of every file. A file appears in the folder of a release only when it is complete and right.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

from .errors import InvalidValueError, ReleaseFileError, check_name
from .results import UNFINISHED
from .tables import data_dir, read_toml

TIMEOUT = 30.0  # seconds without a byte after which a connection counts as lost
CHUNK = 1 << 16  # bytes

Progress = Callable[[str, int, int | None], object]
"""Told (file, bytes that are here, bytes in all or None if the server does not say) while a file is downloaded."""


class FetchError(OSError):
    """A file that could not be downloaded."""


# ------------------------------------------------------------------------------------------------------------ manifests


@dataclass(frozen=True)
class Manifest:
    """What is known of a data set.

    Attributes:
        name: of the data set and of its folder.
        title: what was measured, and by whom.
        citation: what to cite who uses it.
        source: publication or release that the embedded tables derive from.
        doi: of the publication.
        licence: of the release.
        derived_with: script that derived the embedded tables.
        units: of the embedded tables.
        adds: what the release offers beyond the embedded tables.
        release: base URLs of the release, in the order in which they are tried; none if it cannot be fetched.
        release_sha256: {file of the release: hash}.
        derived_sha256: {embedded file: hash}.
    """

    name: str
    title: str
    citation: str
    source: str
    doi: str
    licence: str
    derived_with: str
    units: str
    adds: str
    release: tuple[str, ...]
    release_sha256: Mapping[str, str]
    derived_sha256: Mapping[str, str]


TEXTS = ("name", "title", "citation", "source", "doi", "licence", "derived_with", "units", "adds")


def manifest_names() -> tuple[str, ...]:
    """Names of all data sets that have a manifest."""
    return tuple(sorted(path.parent.name for path in data_dir("").glob("*/manifest.toml")))


def read_manifest(name: str) -> Manifest:
    """The manifest of a data set.

    Raises:
        UnknownNameError: no such data set; the message offers the nearest name.
        ReleaseFileError: the manifest is malformed; the message says file, key and what was expected.

    Example:
        >>> read_manifest("coherent-csi-2021").doi
        '10.1103/PhysRevLett.129.081801'
    """
    check_name("data set", name, manifest_names())
    path = data_dir(name) / "manifest.toml"
    try:
        facts = read_toml(path)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ReleaseFileError(f"File {path} cannot be read as TOML: {error}.") from None

    def take(key: str, good: Callable[[Any], bool], expected: str) -> Any:
        value: Any = facts
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not good(value):
            raise ReleaseFileError(f"File {path}: key `{key}` must be {expected}, but is {value!r}.")
        return value

    texts = {key: take(key, lambda value: isinstance(value, str), "a text") for key in TEXTS}
    take("name", lambda value: value == name, f"{name!r}, as the folder")
    bases = take("release", _are_urls, "a list of http or https URLs, empty if there is nothing to fetch")
    hashes = "a table of relative paths, each with its sha256 as 64 lower-case hexadecimal digits"
    return Manifest(
        **texts,
        release=tuple(bases),
        release_sha256=take("sha256.release", _are_hashes, hashes) if bases else {},
        derived_sha256=take("sha256.derived", _are_hashes, hashes),
    )


def _are_urls(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(url, str) and _is_url(url) for url in value)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _are_hashes(value: object) -> bool:
    return isinstance(value, dict) and all(
        _stays_inside(file) and isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
        for file, sha256 in value.items()
    )


def _stays_inside(file: str) -> bool:
    """Whether a path cannot lead out of the folder that it is taken relative to."""
    path = PurePosixPath(file)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not re.search(r"[\\:]", file)


# ------------------------------------------------------------------------------------------------------- what is where


def release_folder(name: str, root: str | Path | None = None) -> Path:
    """Where the files of a release lie once they are fetched, whether they are there or not.

    Args:
        name: of the data set.
        root: folder of all releases; by default ``CEVJAX_RELEASES``, or else ``cevjax/releases`` in the user's cache.

    Raises:
        InvalidValueError: none of these is given, and the user has no home.
    """
    root = root or os.environ.get("CEVJAX_RELEASES")
    if not root:
        try:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        except RuntimeError:
            raise InvalidValueError("There is no home to keep releases in: CEVJAX_RELEASES must name one.") from None
        root = base / "cevjax" / "releases"
    return Path(root) / name


class FileState(NamedTuple):
    """How a file compares with its manifest."""

    file: str
    kind: Literal["embedded", "release"]
    state: Literal["ok", "missing", "wrong hash"]


def verify(name: str, root: str | Path | None = None) -> list[FileState]:
    """Compare the embedded files and those of the fetched release, if there is one to fetch, with the manifest.

    Raises:
        UnknownNameError, ReleaseFileError: as :func:`read_manifest`.

    Example:
        >>> {file.state for file in verify("coherent-csi-2021") if file.kind == "embedded"}
        {'ok'}
    """
    manifest = read_manifest(name)
    embedded, release = data_dir(name), release_folder(name, root)
    return [
        *(FileState(f, "embedded", _state(embedded / f, sha256)) for f, sha256 in manifest.derived_sha256.items()),
        *(FileState(f, "release", _state(release / f, sha256)) for f, sha256 in manifest.release_sha256.items()),
    ]


def _state(path: Path, sha256: str) -> Literal["ok", "missing", "wrong hash"]:
    if not path.is_file():
        return "missing"
    return "ok" if _sha256(path) == sha256 else "wrong hash"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetched(name: str, root: str | Path | None = None) -> Path:
    """Folder of a release that has been fetched.

    Raises:
        UnknownNameError: no such data set.
        ReleaseFileError: there is nothing to fetch, or a file is missing or wrong; the message says what to do.
    """
    if not read_manifest(name).release:
        raise ReleaseFileError(f"Data set {name!r} has no release that could be fetched.")
    folder = release_folder(name, root)
    for file, kind, state in verify(name, root):
        if kind == "release" and state != "ok":
            problem = "is missing" if state == "missing" else "has the wrong hash"
            raise ReleaseFileError(
                f"The release of {name!r} is not complete: {folder / file} {problem}. Run `cevjax data fetch {name}`."
            )
    return folder


def release_path(name: str, release: str | Path) -> Path:
    """The folder that the choice ``release`` of a data set means: itself, or for ``fetched`` where the release lies.

    Raises:
        ReleaseFileError: it is no folder, or what was fetched is not complete.
    """
    if release == "fetched":
        return fetched(name)
    folder = Path(release).expanduser() if isinstance(release, str | os.PathLike) and release else None
    if folder is None or not folder.is_dir():
        raise ReleaseFileError(f"Argument `release` must be the folder of the {name} release, but {release!r} is none.")
    return folder


# ------------------------------------------------------------------------------------------------------------- download


def file_url(base: str, file: str) -> str:
    """The address of a file: in place of ``{file}`` in ``base``, or below it.

    Example:
        >>> file_url("https://arxiv.org/src/2110.07730v2/anc", "brnPE.txt")
        'https://arxiv.org/src/2110.07730v2/anc/brnPE.txt'
        >>> file_url("https://zenodo.org/records/3903810/files/{file}?download=1", "brnpdf+1sigEnergy.txt")
        'https://zenodo.org/records/3903810/files/brnpdf%2B1sigEnergy.txt?download=1'
    """
    pattern = base if "{file}" in base else f"{base.rstrip('/')}/{{file}}"
    return pattern.replace("{file}", quote(file))


def fetch(
    name: str,
    mirrors: Sequence[str] = (),
    root: str | Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download the files of a release that are not there yet, and continue those that were begun.

    Args:
        name: of the data set.
        mirrors: base URLs to try instead of those of the manifest, see :func:`file_url`.
        root: folder of all releases, see :func:`release_folder`.
        progress: told about every chunk that arrives.

    Returns:
        The folder with all files, each complete and with the right hash.

    Raises:
        UnknownNameError: no such data set.
        InvalidValueError: a mirror is no URL, or there is nothing to fetch.
        FetchError: no URL led to a file; the message says file, URLs and what went wrong with each.
        OSError: the folder cannot be written to.
    """
    manifest = read_manifest(name)
    if not manifest.release:
        raise InvalidValueError(f"Data set {name!r} has no release that could be fetched: {manifest.adds}.")
    for mirror in mirrors:
        if not _is_url(mirror):
            raise InvalidValueError(f"A mirror must be an http or https URL, but was {mirror!r}.")
    folder = release_folder(name, root)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        for file, sha256 in manifest.release_sha256.items():
            urls = [file_url(base, file) for base in mirrors or manifest.release]
            _fetch_file(name, folder, file, sha256, urls, progress or (lambda *_: None))
    return folder


def _fetch_file(name: str, folder: Path, file: str, sha256: str, urls: list[str], progress: Progress) -> None:
    """Let pooch bring a file from the first URL that works: it knows what is there and moves only what is right."""
    import pooch  # a tenth of a second that only those who download pay for

    pooch.get_logger().setLevel("WARNING")  # its notes would mix with the progress
    downloader = _Resuming(file, folder / f"{file}.part", sha256, progress)
    failures = []
    for url in urls:
        try:
            pooch.retrieve(url, f"sha256:{sha256}", file, folder, downloader=downloader)  # pyright: ignore[reportArgumentType]
            return
        except FetchError as error:
            failures.append(f"{url}: {error}")
    again = f" Run `cevjax data fetch {name}` again to continue." if downloader.part.exists() else ""
    raise FetchError(f"File {file} of {name!r} could not be downloaded: {'; '.join(failures)}.{again}")


@dataclass
class _Resuming:
    """A downloader for pooch that collects a file in ``part``, which outlives failures, and goes on from there."""

    file: str
    part: Path
    sha256: str
    progress: Progress

    def __call__(self, url: str, output_file: str, _: object) -> None:
        UNFINISHED.add(Path(output_file))
        try:
            continued = self._receive(url)
            if continued and _sha256(self.part) != self.sha256:
                self.part.unlink()  # what was there before is perhaps to blame
                self._receive(url)
            if (found := _sha256(self.part)) != self.sha256:
                size = self.part.stat().st_size
                self.part.unlink()
                raise FetchError(f"wrong hash: expected sha256 {self.sha256}, but {size} bytes with {found} came")
            # a copy and no move: where folders cannot be locked another process may still be writing to the original
            shutil.copy(self.part, output_file)
            self.part.unlink(missing_ok=True)
        finally:
            UNFINISHED.discard(Path(output_file))

    def _receive(self, url: str) -> bool:
        """Complete ``part`` from ``url``; True if that continued what was there, where the server can."""
        import requests

        here = self.part.stat().st_size if self.part.exists() else 0
        # plain bytes, so that the size and the place to continue from mean what they say
        headers = {"User-Agent": f"cevjax/{version('cevjax')}", "Accept-Encoding": "identity"}
        if here:
            headers["Range"] = f"bytes={here}-"
        answered, total = False, None
        try:
            with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
                encoded = "Content-Encoding" in response.headers  # some servers compress all the same
                too_far = response.status_code == requests.codes.requested_range_not_satisfiable
                if here and (encoded or too_far):
                    self.part.unlink()
                    return self._receive(url)
                if not response.ok:
                    raise FetchError(f"{response.status_code} {response.reason}")
                answered = True
                if response.status_code != requests.codes.partial_content:
                    here = 0
                if "Content-Length" in response.headers and not encoded:
                    total = here + int(response.headers["Content-Length"])
                # unbuffered: what has arrived is kept when the process is killed
                with self.part.open("ab" if here else "wb", buffering=0) as file:
                    for chunk in response.iter_content(CHUNK):
                        file.write(chunk)
                        self.progress(self.file, file.tell(), total)
        except requests.RequestException as error:
            if not answered:
                raise FetchError(f"no answer ({_reason(error)})") from None
            size = self.part.stat().st_size
            raise FetchError(f"connection lost after {size}{f' of {total}' if total else ''} bytes") from None
        return here > 0


def _reason(error: BaseException) -> str:
    """The innermost cause of an error of requests, which wraps it several times."""
    inner = error.args[0] if error.args else None
    error = inner if isinstance(inner, BaseException) else error
    while error.__cause__:
        error = error.__cause__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time fill a folder, where the system has locks: two would append to the same file."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system has them
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
