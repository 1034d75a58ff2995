"""Connections of HTTP(S) that no server can hold for ever, and what their errors mean."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions

from models.errors import EnvironmentProblem, must
from preprocessing.fetch_limits import Lost
from preprocessing.video_types import MediaError

HEADER_PATIENCE = 4
"""Times `FetchConfig.timeout_s` that the headers of one answer may take in all."""


@contextlib.contextmanager
def sorted_errors(where: str) -> Iterator[None]:
    """Sort what can go wrong on a connection. The library's messages are left out: they show whole addresses."""
    try:
        yield
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidProxyURL) as error:
        if "SOCKS" in str(error):
            fix = "Install the package PySocks, or use an http proxy"
            raise EnvironmentProblem(must("fetch.proxy", "be usable", "a SOCKS proxy", fix)) from None
        raise MediaError(must(where, "be an address of http(s)", type(error).__name__), "failed") from None
    except (requests.exceptions.InvalidURL, UnicodeError, urllib3.exceptions.LocationParseError) as error:
        raise MediaError(must(where, "be an address of http(s)", type(error).__name__), "failed") from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        cause = _cause(error)
        message = must(where, "be readable to its end", _words(cause))
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise MediaError(message, "network") from None
        raise Lost(message, "network") from None
    except ValueError as error:  # of the library's own look at the address
        raise MediaError(must(where, "be an address of http(s)", type(error).__name__), "failed") from None


def _cause(error: BaseException) -> BaseException:
    """The innermost of nested errors."""
    for _ in range(10):
        inner = [part for part in (*error.args, getattr(error, "reason", None)) if isinstance(part, BaseException)]
        if not inner:
            break
        error = inner[0]
    return error


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "a TLS certificate that is not valid"
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "a host whose name is not known"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "a host that takes no connection"
    if isinstance(error, urllib3.exceptions.IncompleteRead):
        return f"the connection closed after {error.partial} of {(error.partial or 0) + (error.expected or 0)} bytes"
    if (
        isinstance(error, TimeoutError)
        and error.args
        and isinstance(error.args[0], str)
        and "bytes came" in error.args[0]
    ):
        return f"a trickle ({error.args[0]})"
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
        return "silence"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"a broken connection ({type(error).__name__})"


class _Bounded:
    """A connection whose answer's headers must come in a bounded time, however they trickle."""

    sock: Any
    timeout: Any

    def getresponse(self) -> Any:
        """The answer's headers."""
        cut = threading.Timer(HEADER_PATIENCE * float(self.timeout), _shut, (self.sock,))
        cut.daemon = True
        cut.start()
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            cut.cancel()


def _shut(sock: Any) -> None:
    with contextlib.suppress(OSError, AttributeError):
        sock.shutdown(socket.SHUT_RDWR)


class _HttpConnection(_Bounded, urllib3.connection.HTTPConnection):
    pass


class _HttpsConnection(_Bounded, urllib3.connection.HTTPSConnection):
    pass


class _HttpPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


class Adapter(requests.adapters.HTTPAdapter):  # type: ignore[misc]
    """Shared by all sessions of a `Fetcher`."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make pools of bounded connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Make pools of bounded connections, through a proxy."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class Session(requests.Session):  # type: ignore[misc]
    """Cookies and headers of one file, over connections that all share.

    It follows no redirect: the library would read their bodies into memory, however long they are.
    """

    def close(self) -> None:
        """Leave the adapter open: it belongs to all."""

    def get_redirect_target(self, resp: Any) -> None:
        """Say that there is none."""

    def location(self, response: Any) -> str | None:
        """Where a response leads, if anywhere."""
        target: str | None = super().get_redirect_target(response)
        return target
