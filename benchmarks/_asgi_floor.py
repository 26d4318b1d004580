"""A bare ASGI application under the server settings of the proxy: what no proxy on it can pass.

``python -m benchmarks._asgi_floor`` serves until ended; the first line on standard output is the port.
"""

from __future__ import annotations

import json
import socket
from typing import Any

import uvicorn

from llm_proxy.config import ServerConfig
from llm_proxy.faces.serve import server_settings

from ._upstream import completion

_BODY = json.dumps(completion()).encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]


class _Floor:
    """An application that says one thing."""

    limits = ServerConfig()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": (await receive())["type"] + ".complete"})
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": _BODY})


def main() -> None:
    """Serve until ended."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(server_settings(_Floor())).run(sockets=[listener])


if __name__ == "__main__":
    main()
