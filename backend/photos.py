"""Downloading photos: from Label Studio and named hosts only, with limits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import httpx

from backend.token_auth import TokenAuth, origin
from carcond.errors import LabelStudioError, PhotoFetchError
from carcond.settings import Settings

_MAX_REDIRECTS = 3


class PhotoFetcher:
    """Fetches the bytes of photos. Safe to share between threads.

    Photo addresses come from whoever imported the tasks, so they are not trusted: only Label Studio
    itself and the hosts in `photo_hosts` are asked, redirects included, and only Label Studio is
    sent its token.
    """

    def __init__(self, settings: Settings) -> None:
        self._base = settings.label_studio_url
        names = [url for url in (settings.label_studio_url, settings.label_studio_host) if url]
        self._aliases = {origin(url) for url in names}
        self._prefixes = {urlsplit(url).path for url in names} - {""}
        self._hosts = set(settings.photo_hosts)
        self._max_bytes = settings.max_photo_bytes
        self._timeout_s = settings.photo_timeout_s
        self._client = httpx.Client(
            auth=TokenAuth(self._base, settings.label_studio_api_key.get_secret_value()),
            timeout=httpx.Timeout(settings.photo_timeout_s, connect=3.0),
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def address(self, url: str) -> str:
        """Where a photo of this address is really fetched from.

        Label Studio writes addresses with the name that browsers know it by; they are rewritten to
        the address at which this process reaches it.

        Raises:
            PhotoFetchError: the address is none that we fetch from.
        """
        url = url.strip()
        try:
            parts, place = urlsplit(url), origin(url)
        except ValueError:  # brackets that do not match, or a port that is none
            raise PhotoFetchError("the photo's address is malformed") from None
        if not parts.scheme and not parts.netloc and parts.path.startswith("/"):
            return self._at_label_studio(parts)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            # No more of it than the scheme: a user and password may follow.
            came = f"this one's scheme is {parts.scheme!r}" if parts.scheme else "this one has no scheme"
            raise PhotoFetchError(f"a photo address must start with http://HOST, https://HOST or /, {came}")
        if place in self._aliases:
            return self._at_label_studio(parts)
        if parts.hostname in self._hosts:
            return url
        raise PhotoFetchError(
            f"photos are fetched from Label Studio and from CARCOND_PHOTO_HOSTS only; {parts.hostname!r} is neither. "
            "If it is Label Studio's own name in browsers, set LABEL_STUDIO_HOST to it",
            host=parts.hostname,
        )

    def _at_label_studio(self, parts: SplitResult) -> str:
        path = parts.path
        for prefix in self._prefixes:  # Label Studio may live below a path, which its addresses then carry
            path = path.removeprefix(prefix) if path.startswith(prefix + "/") else path
        return self._base + urlunsplit(("", "", path, parts.query, ""))

    def fetch(self, url: str) -> bytes:
        """Download one photo.

        Raises:
            PhotoFetchError: the address is not allowed, nothing answered in time, or the answer is no
                photo of acceptable size. `transient` tells whether asking again may help.
        """
        deadline = time.monotonic() + self._timeout_s
        address = self.address(url)
        for _ in range(_MAX_REDIRECTS + 1):
            with self._response(address) as response:
                if response.has_redirect_location:
                    address = self._redirected(address, response)
                    continue
                return self._read(response, deadline)
        raise PhotoFetchError(f"the photo's address redirects more than {_MAX_REDIRECTS} times")

    def _redirected(self, address: str, response: httpx.Response) -> str:
        try:
            target = urljoin(address, response.headers["location"])
        except ValueError:
            raise PhotoFetchError("the photo's address redirects to a malformed one") from None
        return self.address(target)

    @contextmanager
    def _response(self, address: str) -> Iterator[httpx.Response]:
        try:
            with self._client.stream("GET", address) as response:
                yield response
        except (httpx.InvalidURL, UnicodeError) as error:  # the latter from a host that is no internet name
            raise PhotoFetchError(f"the photo's address is malformed: {type(error).__name__}") from error
        except httpx.HTTPError as error:
            raise PhotoFetchError(
                f"the photo could not be downloaded: {type(error).__name__}", transient=True
            ) from error
        except LabelStudioError as error:  # the token could not be refreshed
            raise PhotoFetchError(f"the photo could not be downloaded: {error}", transient=True) from error

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        if response.is_error:
            raise PhotoFetchError(
                f"the photo's address answered HTTP {response.status_code}",
                transient=response.is_server_error or response.status_code in (401, 403, 408, 429),
                status=response.status_code,
            )
        if response.status_code != httpx.codes.OK:
            raise PhotoFetchError(f"the photo's address answered HTTP {response.status_code}, expected 200")
        data = bytearray()
        # Chunks as they come: one of a fixed size could take for ever to fill.
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) > self._max_bytes:
                raise PhotoFetchError(f"the photo is larger than the allowed {self._max_bytes} bytes")
            if time.monotonic() > deadline:
                raise PhotoFetchError(f"the photo took longer than {self._timeout_s:g} s", transient=True)
        return bytes(data)
