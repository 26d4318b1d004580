"""A simulated provider that takes predicted outputs and bills them as OpenAI documents; it has no model.

Its answer to a numbered question differs from the others in a share of the words, in runs of some. Words of the
prediction that are found in the answer, in runs of two or more, are accepted: they take no time. The others count as
completion tokens beside the answer's, and take none either. Every word is a token.

Source: OpenAI, guide "Predicted Outputs"; API reference, ``completion_tokens_details``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping, MutableMapping
from difflib import SequenceMatcher
from typing import Any

from llm_proxy.types import ChatRequest
from llm_proxy.wire.chat import error_body
from llm_proxy.wire.replay import replay

__all__ = ["PRICE", "PredictingProvider", "question"]

PRICE = {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10.0}
_RUN = 10  # words that differ together
_SPREAD = 0.3  # so that runs that differ do not stand together


def question(number: int) -> str:
    """A question that is like all others but for its number."""
    return f"Write the release notes of version {number}, in the usual form and with the usual sections."


class PredictingProvider:
    """A simulated OpenAI-compatible provider, as an ASGI application.

    Args:
        differs: Share of an answer's words that are no other answer's, in [0, 1].
        words: Length of an answer.
        word_s: What a word takes that was not predicted, seconds.
        first_s: What passes before the first one.
        is_ignorant: Whether it refuses requests that have a prediction, as a server that does not know it.
        wrong: Share of its words that a provider without would not say, in [0, 1].

    Attributes:
        differs: As above; may be changed.
        bill_usd: What it has billed so far, dollars.
        rejected_usd: Of it, for words that were predicted and not used.
        accepted_words: Words that were predicted and used.
        requests: Bodies received, oldest first.
    """

    def __init__(
        self,
        differs: float,
        *,
        words: int = 100,
        word_s: float = 0.001,
        first_s: float = 0.005,
        is_ignorant: bool = False,
        wrong: float = 0.0,
    ) -> None:
        self.differs, self.words, self.word_s, self.first_s = differs, words, word_s, first_s
        self.is_ignorant, self.wrong = is_ignorant, wrong
        self.bill_usd = self.rejected_usd = 0.0
        self.accepted_words = 0
        self.requests: list[Mapping[str, Any]] = []
        self._lock = threading.Lock()

    @property
    def predicted(self) -> int:
        """How many requests had a prediction."""
        return sum("prediction" in body for body in self.requests)

    def answer(self, text: str) -> str:
        """What it says to a question."""
        asked = "".join(re.findall(r"\d+", text)) or "0"
        return " ".join(self._word(place, asked) for place in range(self.words))

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        raw, more = b"", True
        while more:
            message = await receive()
            raw, more = raw + message.get("body", b""), message.get("more_body", False)
        body = json.loads(raw)
        self.requests.append(body)
        if self.is_ignorant and "prediction" in body:
            refusal = error_body("Unrecognized request argument: prediction", type="invalid_request_error")
            await _send(send, 400, "application/json", refusal)
            return
        request = ChatRequest(body=body, raw=raw, headers={})
        completion, generated = self._completion(request)
        ends_s = time.perf_counter() + self.first_s + generated * self.word_s
        await asyncio.sleep(max(0.0, ends_s - time.perf_counter()))
        replayed = replay(json.dumps(completion).encode(), request)
        await _send(send, 200, replayed.content_type, replayed.body)

    def _word(self, place: int, asked: str) -> str:
        share = place // _RUN * _SPREAD % 1.0
        own = f" of {asked}" if share < self.differs else ""
        own += " or so" if (place // _RUN * _SPREAD + 0.5) % 1.0 < self.wrong else ""
        return "w" + hashlib.sha256(f"{place}{own}".encode()).hexdigest()[:6]

    def _completion(self, request: ChatRequest) -> tuple[dict[str, Any], int]:
        """The answer, and how many of its words it had to write."""
        said = self.answer(request.question)
        given = request.body.get("prediction")
        draft = given["content"].split() if isinstance(given, Mapping) else []
        blocks = SequenceMatcher(None, draft, said.split(), autojunk=False).get_matching_blocks()
        accepted = sum(block.size for block in blocks if block.size >= 2)
        rejected = len(draft) - accepted
        prompt, answered = len(request.question.split()), self.words
        with self._lock:
            per_token = PRICE["output_usd_per_mtok"] / 1e6
            self.bill_usd += prompt * PRICE["input_usd_per_mtok"] / 1e6 + (answered + rejected) * per_token
            self.rejected_usd += rejected * per_token
            self.accepted_words += accepted
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": answered + rejected,
            "total_tokens": prompt + answered + rejected,
            "completion_tokens_details": {
                "accepted_prediction_tokens": accepted,
                "rejected_prediction_tokens": rejected,
            },
        }
        message = {"role": "assistant", "content": said, "refusal": None}
        return {
            "id": f"chatcmpl-simulated-{len(self.requests)}",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": request.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": usage,
        }, answered - accepted


async def _send(send: Any, status: int, content_type: str, body: bytes) -> None:
    rows = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": status, "headers": rows})
    await send({"type": "http.response.body", "body": body})
