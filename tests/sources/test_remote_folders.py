import hashlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from stages.sources.remote_folders import expanded, fetch_folder, title
from tests.conftest import Serve


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        ("a", ["a"]),
        ("a-{8..10}.tar", ["a-8.tar", "a-9.tar", "a-10.tar"]),
        ("{one,other}/{00..01}", ["one/00", "one/01", "other/00", "other/01"]),
    ],
)
def test_braces_stand_for_ranges_and_choices(url: str, urls: list[str]) -> None:
    assert expanded(url) == urls


@pytest.mark.parametrize("url", ["{2..1}", "{0..999999999}", "{0..999}/{0..9999}"])
def test_a_range_that_is_empty_or_too_long_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"found \{.*\}; expected \{first..last\} or \{one,other"):
        expanded(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket/some/animals/", "animals"),
        ("s3://bucket/animals.tar.gz", "animals"),
        ("https://example.org/animals.zip?download=1", "animals"),
        ("https://example.org/animals/{train,test}/{000..009}.tar", "animals"),
        ("https://example.org/animals-{000..009}.tar", "animals"),
    ],
)
def test_a_url_has_the_name_of_its_last_folder_or_archive(url: str, expected: str) -> None:
    assert title(url) == expected


def test_each_url_is_fetched_to_the_path_that_braces_make(tmp_path: Path, serve: Serve) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(request.path.encode())

    server = serve(answer)
    digests = fetch_folder(f"{server.url}/x/{{train,test}}/{{0..1}}.tar", tmp_path)
    assert list(digests) == ["train/0.tar", "train/1.tar", "test/0.tar", "test/1.tar"]
    for path, digest in digests.items():
        content = (tmp_path / path).read_bytes()
        assert content == f"/x/{path}".encode()
        assert digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("end", ["", "{a,a}", "{..,x}", "{../y,x}"])
def test_a_url_that_names_no_files_is_refused(tmp_path: Path, end: str) -> None:
    with pytest.raises(ValueError, match=r"^http://example.org/"):
        fetch_folder(f"http://example.org/{end}", tmp_path)
    assert not list(tmp_path.iterdir())
