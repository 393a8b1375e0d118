"""Authentication and rate limit of the JSON API: bearer tokens, and photos per minute."""

import hashlib
import hmac
import logging
import math
import time

from flask import Request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis import ConnectionPool
from redis.exceptions import RedisError

from backend.web.api.problems import ProblemError
from backend.web.authorization import read_authorization
from carcond.settings import Settings

logger = logging.getLogger(__name__)

# Timeout in seconds: long for a healthy Redis; a dead one must not keep applications waiting.
_REDIS_TIMEOUT_S = 0.25


class ApiClients:
    """Identifies applications by their tokens, and counts the photos that each has sent.

    The counts are in Redis, so that all web processes and copies of the backend share them. Without Redis, each
    process counts for itself: a dead Redis never stops answers.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        pool = ConnectionPool.from_url(
            settings.redis_url, socket_timeout=_REDIS_TIMEOUT_S, socket_connect_timeout=_REDIS_TIMEOUT_S
        )
        shared = RedisStorage("redis://", connection_pool=pool, key_prefix="carcond:api")
        self._limiters = [SlidingWindowCounterRateLimiter(storage) for storage in (shared, MemoryStorage())]
        self._rate = RateLimitItemPerMinute(settings.api_photos_per_minute)

    def identify(self, request: Request) -> str:
        """Name of the application that sends a request; its address where no token is required.

        Raises:
            ProblemError: 401.
        """
        tokens = self._settings.api_tokens
        if not tokens and not self._settings.basic_auth_user:
            return request.remote_addr or "unknown"
        given = read_authorization(request)
        token = given.token if given is not None and given.type == "bearer" and given.token else ""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        # Each is compared, in constant time, against timing attacks.
        names = [name for name, expected in tokens.items() if hmac.compare_digest(digest, expected)]
        if not token or not names:
            remedy = "" if tokens else "; none can be used before CARCOND_API_TOKENS is set"
            detail = f"expected a token: 'Authorization: Bearer TOKEN'{remedy}"
            raise ProblemError(401, detail, {"WWW-Authenticate": 'Bearer realm="carcond"'})
        return names[0]

    def check(self, caller: str) -> None:
        """Refuse a caller that has reached its limit, before anything is read.

        Raises:
            ProblemError: 429.
        """
        self._ask("test", caller, 1)

    def count(self, caller: str, photos: int) -> None:
        """Count photos towards a caller's limit.

        Raises:
            ProblemError: 429, they exceed the limit.
        """
        self._ask("hit", caller, photos)

    def _ask(self, what: str, caller: str, photos: int) -> None:
        for limiter in self._limiters:
            try:
                if not getattr(limiter, what)(self._rate, caller, cost=photos):
                    raise self._refusal(limiter, caller)
            except RedisError as error:
                logger.warning("photos are counted without Redis: %s", type(error).__name__)
            else:
                return

    def _refusal(self, limiter: SlidingWindowCounterRateLimiter, caller: str) -> ProblemError:
        wait = max(1, math.ceil(limiter.get_window_stats(self._rate, caller).reset_time - time.time()))
        detail = f"more than {self._rate.amount} photos a minute: wait {wait} s, or raise CARCOND_API_PHOTOS_PER_MINUTE"
        return ProblemError(429, detail, {"Retry-After": str(wait)})
