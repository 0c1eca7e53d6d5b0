import re
import shutil
from importlib.resources import files
from pathlib import Path
from urllib.parse import urljoin

import pytest

from relay.pages.files import Page, Pages
from relay.vocabulary.errors import BadRequestError

FOLDER = Path(str(files("relay"))) / "pages"


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages()


def found(pages: Pages, path: str) -> Page:
    page = pages.find(path)
    assert page is not None, path
    return page


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("/", "index.html"),
        ("/listen/town-hall", "listen.html"),
        ("/listen/town-hall/english", "listen.html"),
        ("/broadcast/town-hall", "broadcast.html"),
        ("/broadcast/town-hall/english", "broadcast.html"),
    ],
)
def test_pages_for_a_person(pages: Pages, path: str, file: str) -> None:
    page = found(pages, path)
    ours = re.compile(rb' *<(?:link rel="modulepreload"|base) href="[^"]+">\n')
    body = page.body.replace(pages.assets[1:].encode(), b"assets")
    assert ours.sub(b"", body) == ours.sub(b"", (FOLDER / file).read_bytes())
    assert page.content_type == "text/html; charset=utf-8"


@pytest.mark.parametrize("prefix", ["", "/relay", "/listen/ev1"])
@pytest.mark.parametrize("path", ["/", "/listen/ev1", "/listen/ev1/de", "/broadcast/ev1", "/broadcast/ev1/de"])
def test_all_that_a_page_names_is_the_relay_s_under_any_path(pages: Pages, prefix: str, path: str) -> None:
    before, base, rest = re.split(r'<base href="([^"]*)">', found(pages, path).body.decode())
    relay = urljoin(f"https://example.org{prefix}{path}", base)
    assert relay == f"https://example.org{prefix}/"
    names = re.findall(r'(?:href|src)="([^"]*)"', before + rest)
    assert len(names) > 5
    for name in names:
        address = urljoin(relay, name)
        assert address.startswith(relay), name
        found(pages, address.removeprefix(relay[:-1]))


def test_a_page_names_all_modules_that_its_script_imports(pages: Pages) -> None:
    text = found(pages, "/listen/ev1").body.decode()
    named = {f"/{path}" for path in re.findall(r'<link rel="modulepreload" href="([^"]+)">', text)}
    assert {f"{pages.assets}/{name}" for name in ("i18n.js", "player/index.js", "player/wire.js")} <= named
    assert f"{pages.assets}/broadcast-page.js" not in named
    for path in named:
        imports = re.findall(r'(?:from|^import) "(\.[^"]+)"', found(pages, path).body.decode(), re.MULTILINE)
        for name in imports:
            assert str((Path(path).parent / name).as_posix()).replace("/./", "/") in named or ".." in name


def test_a_file_that_did_not_change_keeps_its_tag(pages: Pages) -> None:
    tags = [found(pages, path).headers["ETag"] for path in ("/", "/listen/a", "/listen/b", "/assets/style.css")]
    assert tags[1] == tags[2] == found(Pages(), "/listen/c").headers["ETag"]
    assert len(set(tags)) == 3
    assert all(re.fullmatch('"[0-9a-f]{32}"', tag) for tag in tags)


def test_what_a_page_names_is_kept_for_ever_and_the_page_is_not(pages: Pages) -> None:
    page = found(pages, "/listen/ev1")
    named = re.findall(r'(?:href|src)="(assets/[^"]+)"', page.body.decode())
    kept = {found(pages, f"/{path}").headers["Cache-Control"] for path in named}
    assert kept == {"public, max-age=31536000, immutable"}
    assert page.headers["Cache-Control"] == "no-cache"


def test_a_page_of_before_an_update_finds_its_assets_and_keeps_none(pages: Pages) -> None:
    found_now = found(pages, "/assets/0123456789abcdef/player/processor.js")
    assert found_now.body == (FOLDER / "player" / "processor.js").read_bytes()
    assert found_now.headers["Cache-Control"] == "no-cache"


def test_every_script_style_text_and_sound_of_the_folder_is_served_and_nothing_else(pages: Pages) -> None:
    served = {".js", ".css", ".json", ".svg", ".flac", ".wasm"}
    for file in FOLDER.rglob("*"):
        path = f"/assets/{file.relative_to(FOLDER).as_posix()}"
        if file.name in ("asyncapi.json", "openapi.json"):
            assert found(pages, f"/{file.name}").body == file.read_bytes()
            assert pages.find(path) is None
        elif file.suffix in served:
            assert found(pages, path).body == file.read_bytes()
        else:
            assert pages.find(path) is None


def test_what_npm_makes_in_the_folder_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(FOLDER, tmp_path / "pages")
    for name in ("dist", "node_modules"):
        (copy / "player" / name).mkdir()
        (copy / "player" / name / "index.js").touch()
    monkeypatch.setattr("relay.pages.files.files", lambda _: tmp_path)
    pages = Pages()
    assert pages.find("/assets/player/index.js") is not None
    assert pages.find("/assets/player/dist/index.js") is None
    assert pages.find("/assets/player/node_modules/index.js") is None


def test_every_reference_to_an_asset_is_served(pages: Pages) -> None:
    for file in FOLDER.rglob("*.*"):
        if file.suffix in {".flac", ".wasm", ".LICENSE", ".ts", ".py", ".pyc"}:
            continue
        text = file.read_text(encoding="utf-8")
        for name in re.findall(r'"(assets/[\w./-]+)"', text):
            found(pages, f"/{name}")
        for name in re.findall(r'(?:from|import|new URL\() ?"(\.{1,2}/[\w./-]+)"', text):
            assert (file.parent / name).resolve().is_relative_to(FOLDER), (file, name)
            found(pages, "/assets/" + (file.parent / name).resolve().relative_to(FOLDER).as_posix())


INTERFACES = {
    "button": "HTMLButtonElement",
    "details": "HTMLDetailsElement",
    "dialog": "HTMLDialogElement",
    "fieldset": "HTMLFieldSetElement",
    "form": "HTMLFormElement",
    "img": "HTMLImageElement",
    "input": "HTMLInputElement",
    "path": "SVGPathElement",
    "select": "HTMLSelectElement",
    "svg": "SVGSVGElement",
}


def test_elements_have_the_types_that_the_scripts_give_them() -> None:
    text = (FOLDER / "elements.js").read_text(encoding="utf-8")
    typed = re.findall(r"^ \*   (\w+): (\w+),$", text, re.MULTILINE)
    for ids, interface in re.findall(r"Record<([^>]*?),[ *\n]*(\w+)[ *\n]*>", text):
        typed += [(name, interface) for name in re.findall(r'"([^"]+)"', ids)]
    html = "".join((FOLDER / f"{name}.html").read_text(encoding="utf-8") for name in ("listen", "broadcast"))
    tags = {name: tag for tag, name in re.findall(r'<(\w+)\s[^>]*?\bid="([^"]+)"', html)}
    assert sorted(typed) == sorted((name, INTERFACES[tag]) for name, tag in tags.items() if tag in INTERFACES)
    named = set(re.findall(r'\belement\("([^"]+)"\)', "".join(file.read_text() for file in FOLDER.glob("*.js"))))
    assert named <= tags.keys()


def test_no_page_has_a_script_or_style_that_its_policy_forbids() -> None:
    for name in ("index.html", "listen.html", "broadcast.html"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text), name


@pytest.mark.parametrize(
    "path",
    [
        "",
        "*",
        "listen/town-hall",
        "/listen",
        "/index.html",
        "/assets/",
        "/assets/listen.html",
        "/assets/nothing.js",
        "/assets/../pages/wire.js",
        "/assets/../../vocabulary/errors.py",
        "/assets/%2e%2e/__init__.py",
        "/assets/0123456789abcdef",
        "/assets/0123456789abcdef/",
        "/assets/0123456789abcdef/listen.html",
        "/assets/0123456789abcdef/0123456789abcdef/style.css",
        "/assets/0123456789ABCDEF/style.css",
        "//etc/passwd",
        "/v1/listen/town-hall",
        "/favicon.ico",
    ],
)
def test_other_paths_are_none(pages: Pages, path: str) -> None:
    assert pages.find(path) is None


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("/listen/", "session id ''"),
        ("/listen/town%20hall", "session id 'town%20hall'"),
        ("/listen/..", "session id '..'"),
        ("/listen/town-hall/", "channel id ''"),
        ("/broadcast/town-hall/a+b", "channel id 'a+b'"),
        ("/listen/a/b/c", "/listen/SESSION/CHANNEL"),
    ],
)
def test_ids_that_are_no_names_get_a_sentence(pages: Pages, path: str, wrong: str) -> None:
    with pytest.raises(BadRequestError, match=re.escape(wrong)):
        pages.find(path)


@pytest.mark.parametrize("path", ["/", "/listen/a", "/assets/i18n.js", "/assets/icon.svg"])
def test_every_page_comes_with_security_headers(pages: Pages, path: str) -> None:
    headers = found(pages, path).headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy.replace("script-src 'self' 'wasm-unsafe-eval';", "")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-cache"
    assert not {"content-type", "content-length"} & {name.lower() for name in headers}


def test_what_a_pointer_hovers_over_changes_only_where_there_is_a_pointer() -> None:
    for file in FOLDER.rglob("*.css"):
        text = file.read_text(encoding="utf-8")
        everywhere = re.sub(r"@media \(hover: hover\) \{.*?\n\}", "", text, flags=re.DOTALL)
        assert ":hover" not in everywhere, file.name
