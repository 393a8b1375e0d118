import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from backend.photos import PhotoFetcher
from carcond.errors import PhotoFetchError
from tests.backend.conftest import API_KEY, MakeSettings
from tests.backend.http_server import HttpServer, Reply, free_port

MakeFetcher = Callable[..., PhotoFetcher]

PHOTO = b"a photo's bytes"


@pytest.fixture
def make_fetcher(make_settings: MakeSettings, server: HttpServer) -> Iterator[MakeFetcher]:
    """Call with further environment variables; Label Studio is `server`."""
    made: list[PhotoFetcher] = []

    def make(**variables: str) -> PhotoFetcher:
        made.append(PhotoFetcher(make_settings(**({"LABEL_STUDIO_URL": server.url} | variables))))
        return made[-1]

    yield make
    for fetcher in made:
        fetcher.close()


def redirect(location: str, status: int = 302) -> Reply:
    return Reply(status=status, headers={"Location": location})


def test_a_path_is_fetched_from_label_studio_with_its_token(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/data/upload/1/car.jpg"] = Reply(PHOTO)
    assert make_fetcher().fetch("/data/upload/1/car.jpg") == PHOTO
    assert server.tokens == [f"Token {API_KEY}"]


def test_a_query_is_kept_as_it_is(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/data/local-files/"] = Reply(PHOTO)
    make_fetcher().fetch("/data/local-files/?d=cars/local%200.jpg")
    assert server.requests[0].path == "/data/local-files/?d=cars/local%200.jpg"


def test_the_name_that_browsers_know_is_rewritten_to_the_address_we_reach(
    make_fetcher: MakeFetcher, server: HttpServer
) -> None:
    server.answers["/data/local-files/"] = Reply(PHOTO)
    fetcher = make_fetcher(LABEL_STUDIO_HOST="https://labels.example.com")
    assert fetcher.fetch("https://labels.example.com/data/local-files/?d=cars/1.jpg") == PHOTO
    assert server.requests[0].path == "/data/local-files/?d=cars/1.jpg"
    assert server.tokens == [f"Token {API_KEY}"]


@pytest.mark.parametrize(
    "url",
    ["/labels/data/upload/1/a.jpg", "https://cars.example.com/labels/data/upload/1/a.jpg", "/data/upload/1/a.jpg"],
)
def test_a_label_studio_below_a_path_is_not_asked_for_that_path_twice(make_fetcher: MakeFetcher, url: str) -> None:
    fetcher = make_fetcher(LABEL_STUDIO_URL="http://ls:8080", LABEL_STUDIO_HOST="https://cars.example.com/labels")
    assert fetcher.address(url) == "http://ls:8080/data/upload/1/a.jpg"


def test_a_named_host_is_asked_without_the_token(
    make_fetcher: MakeFetcher, server: HttpServer, other_server: HttpServer
) -> None:
    other_server.answers["/car.jpg"] = Reply(PHOTO)
    assert make_fetcher(CARCOND_PHOTO_HOSTS="127.0.0.1").fetch(f"{other_server.url}/car.jpg") == PHOTO
    assert other_server.tokens == [None]
    assert server.requests == []


def test_another_port_of_label_studios_host_is_another_place(
    make_fetcher: MakeFetcher, other_server: HttpServer
) -> None:
    with pytest.raises(PhotoFetchError, match="LABEL_STUDIO_HOST"):
        make_fetcher().fetch(f"{other_server.url}/car.jpg")
    assert other_server.requests == []


def test_a_redirect_to_another_allowed_host_leaves_the_token_behind(
    make_fetcher: MakeFetcher, server: HttpServer, other_server: HttpServer
) -> None:
    server.answers["/data/upload/1/a.jpg"] = redirect(f"{other_server.url}/bucket/a.jpg")
    other_server.answers["/bucket/a.jpg"] = Reply(PHOTO)
    assert make_fetcher(CARCOND_PHOTO_HOSTS="127.0.0.1").fetch("/data/upload/1/a.jpg") == PHOTO
    assert server.tokens == [f"Token {API_KEY}"]
    assert other_server.tokens == [None]


def test_a_redirect_to_a_host_that_is_not_allowed_is_refused(
    make_fetcher: MakeFetcher, server: HttpServer, other_server: HttpServer
) -> None:
    server.answers["/data/upload/1/a.jpg"] = redirect(f"{other_server.url}/a.jpg")
    with pytest.raises(PhotoFetchError) as caught:
        make_fetcher().fetch("/data/upload/1/a.jpg")
    assert not caught.value.transient
    assert other_server.requests == []


def test_a_redirect_to_the_name_in_browsers_comes_back_to_label_studio(
    make_fetcher: MakeFetcher, server: HttpServer
) -> None:
    server.answers["/old.jpg"] = redirect("https://labels.example.com/new.jpg", 301)
    server.answers["/new.jpg"] = Reply(PHOTO)
    assert make_fetcher(LABEL_STUDIO_HOST="https://labels.example.com").fetch("/old.jpg") == PHOTO


def test_a_relative_redirect_is_followed(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/a/old.jpg"] = redirect("new.jpg", 307)
    server.answers["/a/new.jpg"] = Reply(PHOTO)
    assert make_fetcher().fetch("/a/old.jpg") == PHOTO


@pytest.mark.parametrize("location", ["/loop.jpg", "file:///etc/passwd", "http://[", "http://127.0.0.1:port/", "//x"])
def test_endless_and_odd_redirects_are_refused(make_fetcher: MakeFetcher, server: HttpServer, location: str) -> None:
    server.answers["/loop.jpg"] = redirect(location)
    with pytest.raises(PhotoFetchError):
        make_fetcher().fetch("/loop.jpg")
    assert len(server.requests) <= 4


@pytest.mark.parametrize(
    ("status", "transient"),
    [(401, True), (403, True), (404, False), (410, False), (429, True), (500, True), (304, False)],
)
def test_a_refusal_tells_whether_asking_again_may_help(
    make_fetcher: MakeFetcher, server: HttpServer, status: int, transient: bool
) -> None:
    server.answers["/car.jpg"] = Reply(status=status)
    with pytest.raises(PhotoFetchError, match=str(status)) as caught:
        make_fetcher().fetch("/car.jpg")
    assert caught.value.transient == transient
    assert caught.value.status == (None if status == 304 else status)


def test_nobody_there_is_transient(make_fetcher: MakeFetcher) -> None:
    with pytest.raises(PhotoFetchError, match="ConnectError") as caught:
        make_fetcher(LABEL_STUDIO_URL=f"http://127.0.0.1:{free_port()}").fetch("/car.jpg")
    assert caught.value.transient


@pytest.mark.parametrize("with_length", [True, False])
def test_too_large_a_photo_is_refused_and_not_read_to_its_end(
    make_fetcher: MakeFetcher, server: HttpServer, with_length: bool
) -> None:
    sent: list[int] = []

    def stream(write: Callable[[bytes], Any]) -> None:
        for _ in range(1000):
            write(b"x" * 100_000)
            sent.append(100_000)

    headers = {"Content-Length": "100000000"} if with_length else {}
    server.answers["/car.jpg"] = Reply(stream=stream, headers=headers)
    with pytest.raises(PhotoFetchError, match="larger than the allowed 200000 bytes") as caught:
        make_fetcher(CARCOND_MAX_PHOTO_BYTES="200000").fetch("/car.jpg")
    assert not caught.value.transient
    assert sum(sent) < 50_000_000


def test_a_photo_of_just_the_allowed_size_is_fine(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/car.jpg"] = Reply(b"x" * 200_000)
    assert len(make_fetcher(CARCOND_MAX_PHOTO_BYTES="200000").fetch("/car.jpg")) == 200_000


def test_a_server_that_drips_is_given_up(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    def drip(write: Callable[[bytes], Any]) -> None:
        for _ in range(600):
            write(b"x")
            time.sleep(0.05)

    server.answers["/car.jpg"] = Reply(stream=drip)
    with pytest.raises(PhotoFetchError, match=r"longer than 0\.3 s") as caught:
        make_fetcher(CARCOND_PHOTO_TIMEOUT_S="0.3").fetch("/car.jpg")
    assert caught.value.transient


def test_a_server_that_says_nothing_is_given_up(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    def wait(_: Callable[[bytes], Any]) -> None:
        time.sleep(1)

    server.answers["/car.jpg"] = Reply(stream=wait, headers={"Content-Length": "10"})
    with pytest.raises(PhotoFetchError, match="ReadTimeout") as caught:
        make_fetcher(CARCOND_PHOTO_TIMEOUT_S="0.2").fetch("/car.jpg")
    assert caught.value.transient


def test_a_body_that_breaks_off_is_no_photo(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/car.jpg"] = Reply(b"short", headers={"Content-Length": "1000"}, with_length=False)
    with pytest.raises(PhotoFetchError) as caught:
        make_fetcher().fetch("/car.jpg")
    assert caught.value.transient


def test_a_broken_compression_is_no_photo(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/car.jpg"] = Reply(b"this is not gzip", headers={"Content-Encoding": "gzip"})
    with pytest.raises(PhotoFetchError, match="DecodingError"):
        make_fetcher().fetch("/car.jpg")


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "car.jpg",
        "../../etc/passwd",
        "file:///etc/passwd",
        "ftp://127.0.0.1/car.jpg",
        "s3://bucket/car.jpg",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "//evil.example.com/car.jpg",
        "http://",
        "http:///car.jpg",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/car.jpg",
        "http://localhost/car.jpg",
        "http://allowed.example.com.evil.example.com/car.jpg",
        "http://allowed.example.com@evil.example.com/car.jpg",
        "http://evil.example.com#@allowed.example.com/car.jpg",
        "http://evil.example.com\\@allowed.example.com@evil.example.com/",
        "http://[::1",
        "http://allowed.example.com:port/",
        "http://allowed.example.com:99999/",
        "http://\u2100.com/",
        "//[",
    ],
)
def test_odd_addresses_are_refused_for_good(make_fetcher: MakeFetcher, url: str) -> None:
    with pytest.raises(PhotoFetchError) as caught:
        make_fetcher(CARCOND_PHOTO_HOSTS="allowed.example.com").fetch(url)
    assert not caught.value.transient


@pytest.mark.parametrize("url", ["/car\x00.jpg", "/car\n.jpg", "http://xn--a/car.jpg", "http://a b/car.jpg", "/\udcff"])
def test_an_address_that_no_client_can_send_is_a_fetch_error(
    make_fetcher: MakeFetcher, server: HttpServer, url: str
) -> None:
    with pytest.raises(PhotoFetchError):
        make_fetcher(CARCOND_PHOTO_HOSTS="xn--a,a b").fetch(url)


def test_a_path_cannot_leave_label_studio(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    fetcher = make_fetcher()
    for path in ("/\\evil.example.com/a.jpg", "/@evil.example.com/a.jpg", "/:80/a.jpg", "/../../a.jpg", "/./a"):
        with pytest.raises(PhotoFetchError, match="404"):
            fetcher.fetch(path)
    assert len(server.requests) == 5


def test_any_mix_of_pieces_is_refused_or_leads_to_an_allowed_host(make_fetcher: MakeFetcher) -> None:
    """The address is read by another parser than ours, that of the client which makes the request."""
    fetcher = make_fetcher(CARCOND_PHOTO_HOSTS="a")
    pieces = ["http://", "https://", "//", "/", "a", "b", "@", ":", "[", "]", "%", "%00", "?", "#", "\\", "é", ".."]
    pieces += ["127.0.0.1", "80", "\t", "\ud800", "xn--", " "]
    generator = random.Random(0)  # noqa: S311 - nothing secret
    for _ in range(5000):
        url = "".join(generator.choices(pieces, k=generator.randint(1, 7)))
        try:
            address = httpx.URL(fetcher.address(url))
        except (PhotoFetchError, httpx.InvalidURL, UnicodeError):
            continue
        assert address.host in ("a", "127.0.0.1"), url


def test_a_personal_access_token_that_is_refused_is_a_fetch_error(
    make_fetcher: MakeFetcher, server: HttpServer
) -> None:
    server.answers["/api/token/refresh/"] = Reply(status=401)
    with pytest.raises(PhotoFetchError, match="personal access token") as caught:
        make_fetcher(LABEL_STUDIO_API_KEY="aaa.bbb.ccc").fetch("/car.jpg")
    assert caught.value.transient
    assert "bbb" not in str(caught.value)


def test_without_a_key_nothing_is_sent(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/car.jpg"] = Reply(PHOTO)
    make_fetcher(LABEL_STUDIO_API_KEY="").fetch("/car.jpg")
    assert server.tokens == [None]


def test_the_environments_proxy_is_not_used(
    make_fetcher: MakeFetcher, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    server.answers["/car.jpg"] = Reply(PHOTO)
    assert make_fetcher().fetch("/car.jpg") == PHOTO


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://bob:hunter2@host/car.jpg", "'ftp'"),
        ("//bob:hunter2@host/car.jpg", "no scheme"),
        ("http://bob:hunter2@[/car.jpg", "malformed"),
        ("http://bob:hunter2@host:port/car.jpg", "malformed"),
        ("http://bob:hunter2@host/car.jpg", "'host' is neither"),
    ],
)
def test_an_address_that_is_refused_is_told_without_its_user_and_password(
    make_fetcher: MakeFetcher, url: str, told: str
) -> None:
    with pytest.raises(PhotoFetchError, match=told) as caught:
        make_fetcher().address(url)
    assert not re.search("bob|hunter2", str(caught.value))
