import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import pytest
from manifests import manifest_of

from mrisps.errors import FileError
from mrisps.io.files import sha256_of
from mrisps.io.manifest import Manifest, ManifestFile, builtin_manifests

CONTENT = {"val/a b.bin": b"first", "val/b.bin": b"second", "test/c.bin": b"held out", "readme": b"no data"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The published dataset, as a folder."""
    folder = tmp_path / "source"
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def manifest(source: Path) -> Manifest:
    listed = manifest_of(
        source,
        lambda path: path.parts[0] if len(path.parts) > 1 else "",
        "http://127.0.0.1:9/data/",  # nobody listens there
    )
    return replace(listed, files=(*listed.files[:2], replace(listed.files[2], contrast="pd", acceleration=8)))


@pytest.fixture
def server(source: Path) -> Iterator[str]:
    """The published dataset, over HTTP on this machine."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=source)) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}/"
        http_server.shutdown()
        thread.join()


def test_splits_and_contrasts(manifest: Manifest) -> None:
    assert [file.path for file in manifest.files] == ["test/c.bin", "val/a b.bin", "val/b.bin"]
    assert (manifest.splits, manifest.contrasts) == (("test", "val"), ("pd",))


def test_round_trip(tmp_path: Path, manifest: Manifest) -> None:
    manifest = replace(manifest, files=(replace(manifest.files[0], n_slices=12), *manifest.files[1:]))
    manifest.write(tmp_path / "m.toml")
    assert Manifest.read(tmp_path / "m.toml") == manifest


def test_select_leaves_out_what_is_held_out(manifest: Manifest) -> None:
    assert [file.path for file in manifest.select().files] == ["val/a b.bin", "val/b.bin"]
    assert [file.path for file in manifest.select(contrast="pd").files] == ["val/b.bin"]
    assert [file.path for file in manifest.select(split="val", acceleration=8).files] == ["val/b.bin"]
    with pytest.raises(ValueError, match="split: 'test' is held out"):
        manifest.select(split="test")
    assert [file.path for file in manifest.select(split="test", include_test=True).files] == ["test/c.bin"]
    with pytest.raises(ValueError, match=r"no file has .* splits: test, val; contrasts: pd"):
        manifest.select(contrast="t1")


def test_verify(source: Path, manifest: Manifest) -> None:
    assert [status.state for status in manifest.verify(source)] == ["ok", "ok"]
    (source / "val/a b.bin").write_bytes(b"wrong")
    (source / "val/b.bin").write_bytes(b"longer than it was")
    (source / "test/c.bin").unlink()
    states = {status.file.path: status.state for status in manifest.verify(source, include_test=True)}
    assert states == {"test/c.bin": "missing", "val/a b.bin": "wrong checksum", "val/b.bin": "wrong size"}


def test_fetch_from_a_folder(tmp_path: Path, source: Path, manifest: Manifest) -> None:
    seen: list[tuple[int, int, str]] = []
    paths = manifest.fetch(
        tmp_path / "data", mirrors=[source], progress=lambda n, n_all, path: seen.append((n, n_all, path.name))
    )
    assert [path.read_bytes() for path in paths] == [b"first", b"second"]
    assert seen == [(1, 2, "a b.bin"), (2, 2, "b.bin")]
    assert not (tmp_path / "data" / "test").exists()
    assert len(manifest.fetch(tmp_path / "data", mirrors=[source], include_test=True)) == 3


def test_fetch_over_http(tmp_path: Path, manifest: Manifest, server: str, caplog: pytest.LogCaptureFixture) -> None:
    paths = replace(manifest, url=server).fetch(tmp_path / "data", mirrors=[tmp_path / "absent"])
    assert [path.read_bytes() for path in paths] == [b"first", b"second"]
    assert sorted(p.name for p in (tmp_path / "data/val").iterdir()) == ["a b.bin", "b.bin"]
    assert not caplog.records


def test_a_mirror_over_http_before_the_url(tmp_path: Path, manifest: Manifest, server: str) -> None:
    assert len(manifest.fetch(tmp_path / "data", mirrors=[server])) == 2


def test_fetch_keeps_what_is_right(tmp_path: Path, source: Path, manifest: Manifest) -> None:
    manifest.fetch(tmp_path / "data", mirrors=[source])
    times = [path.stat().st_mtime_ns for path in (tmp_path / "data/val").iterdir()]
    manifest.fetch(tmp_path / "data")  # nothing to ask for
    assert [path.stat().st_mtime_ns for path in (tmp_path / "data/val").iterdir()] == times
    (tmp_path / "data/val/b.bin").write_bytes(b"broken")
    manifest.fetch(tmp_path / "data", mirrors=[source])
    assert (tmp_path / "data/val/b.bin").read_bytes() == b"second"


def test_wrong_content_is_never_taken(tmp_path: Path, source: Path, manifest: Manifest, server: str) -> None:
    (source / "val/b.bin").write_bytes(b"secret")  # of the right size
    with pytest.raises(FileError) as caught:
        replace(manifest, url=server).fetch(tmp_path / "data", mirrors=[tmp_path / "absent", source])
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'data/val/b.bin'}: cannot be had. {tmp_path / 'absent'}: missing; ")
    assert f"{source}: wrong checksum; {server}: SHA256 hash of downloaded file" in message
    assert [p.name for p in (tmp_path / "data/val").iterdir()] == ["a b.bin"]


def test_nobody_answers(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(FileError, match=r"cannot be had\. http://127\.0\.0\.1:9/data/: "):
        manifest.fetch(tmp_path / "data")
    assert not any((tmp_path / "data/val").iterdir())


def test_root_is_a_file(tmp_path: Path, source: Path, manifest: Manifest) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(FileError, match="cannot be made"):
        manifest.fetch(tmp_path / "data", mirrors=[source])


HEAD = 'name = "a"\ndescription = ""\nurl = "https://a/b/"\nlicence = ""\n'
SUM = "0" * 64
BAD = {
    "is no valid TOML: ": HEAD + "files = [",
    "url: is missing": HEAD.replace('url = "https://a/b/"', "") + "files = []",
    "url: expected http(s)://.../ with a slash at the end, got 'ftp://a/'": HEAD.replace("https://a/b/", "ftp://a/")
    + "files = []",
    "name: expected a string, got 1": HEAD.replace('"a"', "1") + "files = []",
    "files: expected a list, got NoneType": HEAD,
    "files: expected a list, got int": HEAD + "files = 1",
    "colour: unknown key; known here: name, description, url, licence, files": HEAD + "files = []\ncolour = 1",
    "files[0]: expected a table, got int": HEAD + "files = [1]",
    "files[0].sha265: unknown key; known here: path, sha256": HEAD
    + f'files = [{{path = "a", sha265 = "{SUM}", split = "val"}}]',
    "files[0].sha256: is missing": HEAD + 'files = [{path = "a", split = "val"}]',
    "files[0].sha256: expected a text to match pattern '^[0-9a-f]": HEAD
    + 'files = [{path = "a", sha256 = "abc", split = "val"}]',
    r"files[0].split: expected a text to match pattern '\S', got ''": HEAD
    + f'files = [{{path = "a", sha256 = "{SUM}", split = ""}}]',
    "files[0].size: expected an integer, got True": HEAD
    + f'files = [{{path = "a", sha256 = "{SUM}", split = "val", size = true}}]',
    "files[0].size: expected an integer >= 0, got -1": HEAD
    + f'files = [{{path = "a", sha256 = "{SUM}", split = "val", size = -1}}]',
    "files[1].path: a is there twice": HEAD
    + f'files = [{", ".join(2 * [f"""{{path="a",sha256="{SUM}",split="v"}}"""])}]',
}


@pytest.mark.parametrize("message", BAD)
def test_bad_manifest(tmp_path: Path, message: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(BAD[message])
    with pytest.raises(FileError) as caught:
        Manifest.read(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_unreadable_manifest(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read: No such file"):
        Manifest.read(tmp_path / "m.toml")
    (tmp_path / "m.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="is no valid TOML"):
        Manifest.read(tmp_path / "m.toml")
    (tmp_path / "m.toml").write_text("a = " + 100_000 * "[")
    with pytest.raises(FileError, match="is no valid TOML"):
        Manifest.read(tmp_path / "m.toml")


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../a", "a/../../b", "a//b", "./a", "a/", "~/a", "C:/a", "a\\b"])
def test_paths_stay_below_the_root(path: str) -> None:
    with pytest.raises(ValueError, match="path: expected a plain relative path"):
        ManifestFile(path, SUM, "val")


def test_sha256_of(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(FileError, match="cannot be read"):
        sha256_of(tmp_path / "b")


def test_builtin_manifests() -> None:
    manifests = {name: Manifest.read(path) for name, path in builtin_manifests().items()}
    assert {"paper_mri", "paper_superres"} <= manifests.keys()
    for name, manifest in manifests.items():
        assert manifest.name == name
        assert "held out" in manifest.description


def test_the_papers_manifests() -> None:
    mri = Manifest.read(builtin_manifests()["paper_mri"])
    for acceleration in (8, 16):
        for contrast in ("pd", "pdfs"):
            for split, n_slices in (("val", 10), ("test", 50)):
                selected = mri.select(split=split, contrast=contrast, acceleration=acceleration, include_test=True)
                paths = [PurePosixPath(file.path) for file in selected.files]
                assert len({path.parent for path in paths}) == n_slices
                assert {path.name for path in paths} == {"mask.pt", "x_crop.pt", "y.pt"}
                assert len(paths) == 3 * n_slices
    superres = Manifest.read(builtin_manifests()["paper_superres"])
    assert len(superres.select().files) == 1
    assert len(superres.select(split="test", include_test=True).files) == 100


def test_the_validation_image(shared_data: Path) -> None:
    (file,) = Manifest.read(builtin_manifests()["paper_superres"]).select(split="val").files
    assert sha256_of(shared_data / "paper_superres_val" / PurePosixPath(file.path).name) == file.sha256
