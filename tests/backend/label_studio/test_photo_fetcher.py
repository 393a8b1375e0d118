import gzip
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Self

import httpx
import pytest

from backend.label_studio.photo_fetcher import PhotoFetcher
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
    fetcher = make_fetcher(CARCOND_PHOTO_HOSTS=f"127.0.0.1:{other_server.port}")
    assert fetcher.fetch(f"{other_server.url}/car.jpg") == PHOTO
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
    fetcher = make_fetcher(CARCOND_PHOTO_HOSTS=f"127.0.0.1:{other_server.port}")
    assert fetcher.fetch("/data/upload/1/a.jpg") == PHOTO
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
    server.answers["/data/old.jpg"] = redirect("https://labels.example.com/data/new.jpg", 301)
    server.answers["/data/new.jpg"] = Reply(PHOTO)
    assert make_fetcher(LABEL_STUDIO_HOST="https://labels.example.com").fetch("/data/old.jpg") == PHOTO


def test_a_relative_redirect_is_followed(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/data/a/old.jpg"] = redirect("new.jpg", 307)
    server.answers["/data/a/new.jpg"] = Reply(PHOTO)
    assert make_fetcher().fetch("/data/a/old.jpg") == PHOTO


@pytest.mark.parametrize(
    "location", ["/data/loop.jpg", "file:///etc/passwd", "http://[", "http://127.0.0.1:port/", "//x", "/user/login/"]
)
def test_endless_and_odd_redirects_are_refused(make_fetcher: MakeFetcher, server: HttpServer, location: str) -> None:
    server.answers["/data/loop.jpg"] = redirect(location)
    with pytest.raises(PhotoFetchError):
        make_fetcher().fetch("/data/loop.jpg")
    assert len(server.requests) <= 4


@pytest.mark.parametrize(
    ("status", "transient"),
    [(401, True), (403, True), (404, False), (410, False), (429, True), (500, True), (304, False)],
)
def test_a_refusal_tells_whether_asking_again_may_help(
    make_fetcher: MakeFetcher, server: HttpServer, status: int, transient: bool
) -> None:
    server.answers["/data/car.jpg"] = Reply(status=status)
    with pytest.raises(PhotoFetchError, match=str(status)) as caught:
        make_fetcher().fetch("/data/car.jpg")
    assert caught.value.transient == transient
    assert caught.value.status == (None if status == 304 else status)


def test_nobody_there_is_transient(make_fetcher: MakeFetcher) -> None:
    with pytest.raises(PhotoFetchError, match="ConnectError") as caught:
        make_fetcher(LABEL_STUDIO_URL=f"http://127.0.0.1:{free_port()}").fetch("/data/car.jpg")
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
    server.answers["/data/car.jpg"] = Reply(stream=stream, headers=headers)
    with pytest.raises(PhotoFetchError, match="larger than the allowed 200000 bytes") as caught:
        make_fetcher(CARCOND_MAX_PHOTO_BYTES="200000").fetch("/data/car.jpg")
    assert not caught.value.transient
    assert sum(sent) < 50_000_000


def test_a_photo_of_just_the_allowed_size_is_fine(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/data/car.jpg"] = Reply(b"x" * 200_000)
    assert len(make_fetcher(CARCOND_MAX_PHOTO_BYTES="200000").fetch("/data/car.jpg")) == 200_000


def test_a_server_that_drips_is_given_up(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    def drip(write: Callable[[bytes], Any]) -> None:
        for _ in range(600):
            write(b"x")
            time.sleep(0.05)

    server.answers["/data/car.jpg"] = Reply(stream=drip)
    with pytest.raises(PhotoFetchError, match=r"longer than 0\.3 s") as caught:
        make_fetcher(CARCOND_PHOTO_TIMEOUT_S="0.3").fetch("/data/car.jpg")
    assert caught.value.transient


def test_a_server_that_says_nothing_is_given_up(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    def wait(_: Callable[[bytes], Any]) -> None:
        time.sleep(1)

    server.answers["/data/car.jpg"] = Reply(stream=wait, headers={"Content-Length": "10"})
    with pytest.raises(PhotoFetchError, match=r"longer than 0\.2 s") as caught:
        make_fetcher(CARCOND_PHOTO_TIMEOUT_S="0.2").fetch("/data/car.jpg")
    assert caught.value.transient


def test_a_body_that_breaks_off_is_no_photo(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/data/car.jpg"] = Reply(b"short", headers={"Content-Length": "1000"}, with_length=False)
    with pytest.raises(PhotoFetchError) as caught:
        make_fetcher().fetch("/data/car.jpg")
    assert caught.value.transient


def test_a_compressed_photo_is_refused_before_it_grows(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    bomb = gzip.compress(gzip.compress(bytes(200_000_000)))
    assert len(bomb) < 10_000
    server.answers["/data/car.jpg"] = Reply(bomb, headers={"Content-Encoding": "gzip, gzip"})
    began = time.monotonic()
    with pytest.raises(PhotoFetchError, match="expected the photo as it is, got it encoded as 'gzip, gzip'"):
        make_fetcher().fetch("/data/car.jpg")
    assert time.monotonic() - began < 1
    (asked,) = server.requests
    assert asked.headers["accept-encoding"] == "identity"


def test_no_cookie_is_kept(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/data/car.jpg"] = Reply(PHOTO, headers={"Set-Cookie": "session=mine; Path=/"})
    fetcher = make_fetcher()
    assert [fetcher.fetch("/data/car.jpg") for _ in range(2)] == [PHOTO, PHOTO]
    assert [request.headers.get("cookie") for request in server.requests] == [None, None]


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
    for path in ("\\evil.example.com/a.jpg", "@evil.example.com/a.jpg", ":80/a.jpg", "./a.jpg", "//a.jpg"):
        with pytest.raises(PhotoFetchError, match="404"):
            fetcher.fetch(f"/data/{path}")
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    "path",
    [
        "/api/current-user/token",
        "/api/users/",
        "/",
        "/user/account",
        "/metadata/a.jpg",
        "/data",
        "/dataset/a.jpg",
        "/data/../api/users/",
        "/data/upload/%2e%2e/%2E./api/users/",
        "/data/..%2fapi/users/",
        "/data/..\\api/users/",
        "/tasks/12/",
        "/tasks/12/annotations/",
        "/tasks/../api/users/resolve/",
        "/projects/1/settings/resolve/",
    ],
)
def test_no_other_page_of_label_studio_is_fetched_with_the_token(
    make_fetcher: MakeFetcher, server: HttpServer, path: str
) -> None:
    fetcher = make_fetcher(LABEL_STUDIO_HOST="https://labels.example.com/below")
    for url in (path, f"{server.url}{path}", f"https://labels.example.com/below{path}"):
        with pytest.raises(PhotoFetchError, match="expected a path below which Label Studio serves photos") as caught:
            fetcher.fetch(url)
        assert not caught.value.transient
    assert server.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "/data/upload/1/a b..c.jpg",
        "/data/local-files/?d=a/../b.jpg",
        "/storage-data/uploaded/?filepath=upload/1/a.jpg",
        "/tasks/12/resolve/?fileuri=czM6Ly9h",
        "/tasks/12/presign/?fileuri=czM6Ly9h",
        "/projects/3/resolve/?fileuri=czM6Ly9h",
        "/projects/3/presign/?fileuri=czM6Ly9h",
    ],
)
def test_every_path_below_which_label_studio_serves_photos_is_fetched(make_fetcher: MakeFetcher, url: str) -> None:
    fetcher = make_fetcher(LABEL_STUDIO_URL="http://ls:8080")
    assert fetcher.address(url) == f"http://ls:8080{url}"


@pytest.mark.parametrize("at", ["a header", "a body", "redirects", "a handshake"])
def test_a_host_that_dribbles_without_end_is_given_up_at_the_deadline(make_fetcher: MakeFetcher, at: str) -> None:
    beginning = {
        "a header": "HTTP/1.1 200 OK\r\nX-Slow: ",
        "a body": "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        "redirects": "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /again.jpg\r\nX-Slow: 1234567\r\n\r\n",
        "a handshake": "\x16\x03\x03\x40\x00",
    }[at]
    quickly = len(beginning) if at != "redirects" else len(beginning) - 9
    with _Dribbler(beginning, quickly) as dribbler:
        fetcher = make_fetcher(CARCOND_PHOTO_TIMEOUT_S="0.8", CARCOND_PHOTO_HOSTS=f"127.0.0.1:{dribbler.port}")
        scheme = "https" if at == "a handshake" else "http"
        began = time.monotonic()
        with pytest.raises(PhotoFetchError) as caught:
            fetcher.fetch(f"{scheme}://127.0.0.1:{dribbler.port}/car.jpg")
    assert 0.7 < time.monotonic() - began < 5
    assert caught.value.transient
    assert dribbler.connections >= 1


def test_the_deadline_is_of_each_photo_and_not_of_the_connection(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/data/car.jpg"] = Reply(PHOTO)
    fetcher = make_fetcher(CARCOND_PHOTO_TIMEOUT_S="0.4")
    for _ in range(3):  # one connection, kept for longer than a photo may take
        assert fetcher.fetch("/data/car.jpg") == PHOTO
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("hosts", "url", "is_allowed"),
    [
        ("cars.example.com", "http://cars.example.com/a.jpg", True),
        ("cars.example.com", "https://CARS.example.com/a.jpg", True),
        ("cars.example.com", "http://cars.example.com:443/a.jpg", True),
        ("cars.example.com", "http://cars.example.com:6379/a.jpg", False),
        ("cars.example.com:9000", "http://cars.example.com:9000/a.jpg", True),
        ("cars.example.com:9000", "http://cars.example.com/a.jpg", False),
        ("[2001:db8::1]:9000", "http://[2001:db8::1]:9000/a.jpg", True),
        ("2001:db8::1", "http://[2001:db8::1]/a.jpg", True),
        ("2001:db8::1", "http://[2001:db8::1]:9000/a.jpg", False),
    ],
)
def test_a_host_is_allowed_on_its_usual_ports_and_on_those_named(
    make_fetcher: MakeFetcher, hosts: str, url: str, is_allowed: bool
) -> None:
    fetcher = make_fetcher(CARCOND_PHOTO_HOSTS=hosts)
    if is_allowed:
        assert fetcher.address(url) == url
        return
    with pytest.raises(PhotoFetchError, match="CARCOND_PHOTO_HOSTS") as caught:
        fetcher.address(url)
    assert caught.value.host
    # What the error names is what has to be set.
    assert make_fetcher(CARCOND_PHOTO_HOSTS=caught.value.host).address(url) == url


@pytest.mark.parametrize(
    "resolved",
    [
        "169.254.169.254",
        "169.254.1.1",
        "fe80::1",
        "fe80::1%lo",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
    ],
)
def test_an_allowed_host_that_leads_to_link_local_addresses_is_not_connected_to(
    make_fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch, resolved: str
) -> None:
    connected: list[object] = []
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("127.0.0.1", resolved)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", lambda *args, **_: connected.append(args))
    with pytest.raises(PhotoFetchError, match="link-local") as caught:
        make_fetcher(CARCOND_PHOTO_HOSTS="cars.example.com").fetch("http://cars.example.com/a.jpg")
    assert not caught.value.transient
    assert connected == []


class _Dribbler:
    """A server that sends the same to each connection: some bytes at once, then one every 0.05 s."""

    def __init__(self, beginning: str, quickly: int) -> None:
        self._beginning, self._quickly = beginning.encode("latin-1"), quickly
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.port = self._socket.getsockname()[1]
        self.connections = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._socket.close()

    def _serve(self) -> None:
        while not self._is_over.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with suppress(OSError), connection:
                self._dribble(connection)

    def _dribble(self, connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(self._beginning[: self._quickly])
        rest = self._beginning[self._quickly :] or b"x" * 1000
        for byte in rest:
            connection.sendall(bytes([byte]))
            if self._is_over.wait(0.05):
                return


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
        make_fetcher(LABEL_STUDIO_API_KEY="aaa.bbb.ccc").fetch("/data/car.jpg")
    assert caught.value.transient
    assert "bbb" not in str(caught.value)


def test_without_a_key_nothing_is_sent(make_fetcher: MakeFetcher, server: HttpServer) -> None:
    server.answers["/data/car.jpg"] = Reply(PHOTO)
    make_fetcher(LABEL_STUDIO_API_KEY="").fetch("/data/car.jpg")
    assert server.tokens == [None]


def test_the_environments_proxy_is_not_used(
    make_fetcher: MakeFetcher, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    server.answers["/data/car.jpg"] = Reply(PHOTO)
    assert make_fetcher().fetch("/data/car.jpg") == PHOTO


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
