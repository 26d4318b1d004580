"""``GET /llm-proxy/openapi.json``: the proxy's own endpoints as an OpenAPI 3.1 document, for programs that ask them.

The document is written by hand and kept true by `tests/faces/test_openapi.py`: every path of the proxy's own is in it,
and what each answers is as it says.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources

from llm_proxy import __version__

__all__ = ["PATH", "document"]

PATH = "/llm-proxy/openapi.json"


@lru_cache(maxsize=1)
def document() -> bytes:
    """The document as JSON, with the version of this program. Reads a file the first time."""
    found = json.loads(resources.files("llm_proxy.faces").joinpath("openapi.json").read_bytes())
    found["info"]["version"] = __version__
    return json.dumps(found).encode()
