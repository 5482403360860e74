"""The door of ``medaug ui``: MLflow's own server has none, and a port has no owner.

Every account of a machine can reach its loopback, and whoever reaches MLflow can list, rename and
delete experiments. So the server wants a token that is made anew at each start and printed in the
link, as notebook servers do; the browser then keeps it as a cookie of its session.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

TOKEN_ENV = "MEDAUG_UI_TOKEN"
APP = "medaug-ui"
"""Name of the server's app among MLflow's (``[project.entry-points."mlflow.app"]``)."""
_REFUSED = (
    b"<!doctype html><title>medaug</title><p>This page wants the token of its link: open the link "
    b"that <code>medaug ui</code> has printed."
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def create_app() -> AsgiApp:
    """MLflow's server behind the token of ``MEDAUG_UI_TOKEN``."""
    from mlflow.server.fastapi_app import app

    return Gate(app, os.environ[TOKEN_ENV])


class Gate:
    """Lets requests through to ``app`` that show ``token``: in the link, as a cookie, or as an
    ``Authorization: Bearer`` header."""

    def __init__(self, app: AsgiApp, token: str) -> None:
        assert token, "an empty token would let everybody in"
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if scope["type"] == "http" and self._is_it(dict(query).get("token", "")):
            await self._welcome(scope, send, [pair for pair in query if pair[0] != "token"])
        elif self._shown(headers):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(send, 403, [(b"content-type", b"text/html")], _REFUSED)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _shown(self, headers: dict[bytes, str]) -> bool:
        cookie = SimpleCookie()
        cookie.load(headers.get(b"cookie", ""))
        kept = cookie[APP].value if APP in cookie else ""
        bearer = headers.get(b"authorization", "").removeprefix("Bearer ")
        return self._is_it(kept) or self._is_it(bearer)

    def _is_it(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(), self._token.encode())

    async def _welcome(self, scope: Scope, send: Send, query: list[tuple[str, str]]) -> None:
        """Take the token out of the address, where others may read it, and into a cookie."""
        path = quote(scope["path"]) + (f"?{urlencode(query)}" if query else "")
        cookie = f"{APP}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        headers = [(b"location", path.encode()), (b"set-cookie", cookie.encode())]
        await _answer(send, 303, headers, b"")


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
