"""Addresses of photos: which may be requested, and where.

They come from whoever imported the tasks, so they are not trusted.
"""

import re
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from backend.label_studio.token_auth import origin
from carcond.errors import PhotoFetchError
from carcond.settings import Settings

# Uploads and local files, uploads of older releases, and files of connected storages.
_PHOTO_PATH = re.compile(r"/(?:data|storage-data)/|/(?:tasks|projects)/\d+/(?:resolve|presign)/")
_STEP_UP = re.compile(r"(?:^|[/\\])\.\.(?:[/\\]|$)")
_DEFAULT_PORTS = (80, 443)


class PhotoAddresses:
    """Rules of one installation: only Label Studio itself and `photo_hosts` are requested."""

    def __init__(self, settings: Settings) -> None:
        self._base = settings.label_studio_url
        names = [url for url in (settings.label_studio_url, settings.label_studio_host) if url]
        self._aliases = {origin(url) for url in names}
        self._prefixes = {urlsplit(url).path for url in names} - {""}
        self._hosts = set(settings.photo_hosts)

    def resolve(self, url: str) -> str:
        """Address from which a photo is actually fetched.

        Label Studio writes addresses with the host name that browsers use; they are rewritten to
        the address at which this process reaches it.

        Raises:
            PhotoFetchError: photos are not fetched from this address.
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
        self._check_host(parts.hostname, place[2])
        return url

    def _check_host(self, hostname: str, port: int) -> None:
        name = f"[{hostname}]" if ":" in hostname else hostname
        with_port = f"{name}:{port}"
        if with_port in self._hosts or (name in self._hosts and port in _DEFAULT_PORTS):
            return
        if name in self._hosts:
            raise PhotoFetchError(
                f"CARCOND_PHOTO_HOSTS allows {name!r} on ports 80 and 443, and this photo is on port {port}: "
                f"if you trust it, add {with_port}",
                host=with_port,
            )
        needed = name if port in _DEFAULT_PORTS else with_port
        raise PhotoFetchError(
            f"photos are fetched from Label Studio and from CARCOND_PHOTO_HOSTS only; {needed!r} is neither. "
            "If it is Label Studio's own name in browsers, set LABEL_STUDIO_HOST to it",
            host=needed,
        )

    def _at_label_studio(self, parts: SplitResult) -> str:
        path = parts.path
        for prefix in self._prefixes:  # Label Studio may live below a path, which its addresses then carry
            path = path.removeprefix(prefix) if path.startswith(prefix + "/") else path
        # The token goes with the request: no other page of Label Studio is asked for in the token's name.
        if not _PHOTO_PATH.match(path) or _STEP_UP.search(unquote(path)):
            raise PhotoFetchError(
                "expected a path below which Label Studio serves photos (/data/, /storage-data/, and resolve/ or "
                f"presign/ below /tasks/N/ or /projects/N/), got {path!r:.60}"
            )
        return self._base + urlunsplit(("", "", path, parts.query, ""))
