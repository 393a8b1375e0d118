"""Downloading photos: from Label Studio and named hosts only, with limits."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urljoin

import httpx

from backend.label_studio.photo_address import PhotoAddresses
from backend.label_studio.photo_network import photo_transport, time_limit
from backend.label_studio.token_auth import TokenAuth
from carcond.errors import LabelStudioError, PhotoFetchError
from carcond.settings import Settings

_MAX_REDIRECTS = 3


class PhotoFetcher:
    """Fetches the bytes of photos. Safe to share between threads.

    Photo addresses come from whoever imported the tasks, so they are not trusted: only Label Studio
    itself and the hosts in `photo_hosts` are requested, redirects included, and only Label Studio is
    sent its token. One time limit holds for a photo, whatever its host does.
    """

    def __init__(self, settings: Settings) -> None:
        self._addresses = PhotoAddresses(settings)
        self._max_bytes = settings.max_photo_bytes
        self._timeout_s = settings.photo_timeout_s
        self._client = httpx.Client(
            auth=TokenAuth(settings.label_studio_url, settings.label_studio_api_key.get_secret_value()),
            timeout=httpx.Timeout(settings.photo_timeout_s, connect=3.0),
            # Photos are compressed already, and a compressed body may grow a thousandfold before it can be measured.
            headers={"Accept-Encoding": "identity"},
            # No host's cookies are kept: they would link requests, and go to other ports of the same host.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            transport=photo_transport(),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def address(self, url: str) -> str:
        """Address from which a photo is actually fetched; see `PhotoAddresses.resolve`."""
        return self._addresses.resolve(url)

    def fetch(self, url: str) -> bytes:
        """Download one photo.

        Raises:
            PhotoFetchError: the address is not allowed, nothing answered in time, or the answer is no
                photo of acceptable size. `transient` states whether a retry may help.
        """
        address = self.address(url)
        with time_limit(self._timeout_s):
            for _ in range(_MAX_REDIRECTS + 1):
                with self._response(address) as response:
                    if response.has_redirect_location:
                        address = self._redirected(address, response)
                        continue
                    return self._read(response)
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
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise PhotoFetchError(f"the photo took longer than {self._timeout_s:g} s", transient=True) from error
        except httpx.HTTPError as error:
            raise PhotoFetchError(
                f"the photo could not be downloaded: {type(error).__name__}", transient=True
            ) from error
        except LabelStudioError as error:  # the token could not be refreshed
            raise PhotoFetchError(f"the photo could not be downloaded: {error}", transient=True) from error

    def _read(self, response: httpx.Response) -> bytes:
        if response.is_error:
            raise PhotoFetchError(
                f"the photo's address answered HTTP {response.status_code}",
                transient=response.is_server_error or response.status_code in (401, 403, 408, 429),
                status=response.status_code,
            )
        if response.status_code != httpx.codes.OK:
            raise PhotoFetchError(f"the photo's address answered HTTP {response.status_code}, expected 200")
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            raise PhotoFetchError(f"expected the photo as it is, got it encoded as {encoding[:20]!r}")
        data = bytearray()
        # Chunks as they come: one of a fixed size could take forever to fill.
        for chunk in response.iter_raw():
            data += chunk
            if len(data) > self._max_bytes:
                raise PhotoFetchError(f"the photo is larger than the allowed {self._max_bytes} bytes")
        return bytes(data)
