"""``%load_ext llm_proxy`` and ``%unload_ext llm_proxy``: the magics, their completion, and the session behind them.

::

    %%chat [--model NAME | --route NAME] [--system TEXT] [--no-cache]     the question goes below
    %llm_proxy                                                            the status card
    %llm_proxy undo | again | last                                        about the last hit, and the last call
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from llm_proxy._shown import sentence_of
from llm_proxy.errors import CacheError, ConfigError, LLMProxyError

from .card import Card
from .options import WORDS, chat_completions, chat_options, word_completions
from .screen import screen_for, show
from .session import Heard, Session, pieces_of

__all__ = ["Extension", "load", "unload"]

_CHAT_HELP = """Ask a model what stands below, and show the answer as it comes.

%%chat [--model NAME | --route NAME] [--system TEXT] [--no-cache]

--model NAME    the model, BACKEND/MODEL, or an alias; without it the one asked last, a route, or a backend's first
--route NAME    a route of the settings, which chooses the model
--system TEXT   a system message
--no-cache      ask upstream even where the answer is stored, and replace it
"""
_STATUS_HELP = """Show what llm-proxy has done in this kernel.

%llm_proxy          the status card
%llm_proxy undo     take the last semantic hit back: it was no answer to that question
%llm_proxy again    ask the last hit's question upstream, and replace the stored answer
%llm_proxy last     what became of the last call
"""
_TABLES = {"chat": "cell", "llm_proxy": "line"}


class Extension:
    """The magics in one IPython shell.

    Args:
        shell: The shell.
        session: The engine of the kernel.
    """

    def __init__(self, shell: Any, session: Session) -> None:
        self.shell, self.session = shell, session
        self._before: dict[str, Any] = {}

    def register(self) -> None:
        """Add the magics; those of the same name come back with `unregister`."""
        tables = self.shell.magics_manager.magics
        for name, function in (("chat", self._chat), ("llm_proxy", self._status)):
            self._before[name] = tables[_TABLES[name]].get(name)
            self.shell.register_magic_function(function, _TABLES[name], name)
        self.shell.set_hook("complete_command", self._complete_chat, str_key="%%chat")
        self.shell.set_hook("complete_command", self._complete_status, str_key="%llm_proxy")

    def unregister(self) -> None:
        """Take the magics away."""
        tables = self.shell.magics_manager.magics
        for name, before in self._before.items():
            table = tables[_TABLES[name]]
            table.pop(name, None)
            if before is not None:
                table[name] = before
        completers = self.shell.strdispatchers.get("complete_command")
        for key in ("%%chat", "%llm_proxy"):
            if completers is not None:
                completers.strs.pop(key, None)

    @property
    def _chat(self) -> Any:
        def chat(line: str, cell: str) -> None:
            with _said_plainly():
                self._ask(line, cell)

        chat.__doc__ = _CHAT_HELP
        return chat

    @property
    def _status(self) -> Any:
        def llm_proxy(line: str) -> Any:
            with _said_plainly():
                return self._do(line.strip())

        llm_proxy.__doc__ = _STATUS_HELP
        return llm_proxy

    def _ask(self, line: str, question: str) -> None:
        options, session = chat_options(line), self.session
        if options.route and options.route not in session.config.routes:
            known = ", ".join(sorted(session.config.routes)) or "none"
            raise ConfigError(f"%%chat --route {options.route}: the settings have no such route; there are: {known}")
        model = options.model or options.route or session.default_model()
        if not question.strip():
            raise ConfigError("%%chat needs a question below its line")
        messages = [{"role": "user", "content": question.strip()}]
        if options.system:
            messages.insert(0, {"role": "system", "content": options.system})
        with session.client() as client:
            raw = client.chat.completions.with_streaming_response.create(
                model=model,
                messages=messages,
                stream=True,
                stream_options={"include_usage": True},
                extra_headers={"Cache-Control": "no-cache"} if options.is_new else None,
            )
            with raw as response:
                self._show(response.http_response)
        session.model = model

    def _show(self, response: Any) -> None:
        screen = screen_for(self.shell)
        try:
            said = show(pieces_of(response), screen)
        except BaseException:
            screen.end("broken off")  # what came stays
            raise
        outcome = self.session.settled(response.extensions["llm_proxy"])
        if not said:
            screen.write("(no text)")
        screen.end(sentence_of(outcome), outcome)

    def _do(self, word: str) -> Any:
        session = self.session
        if not word:
            return Card(session)
        if word not in WORDS:
            raise ConfigError(f"%llm_proxy knows {', '.join(WORDS)}, not {word!r}")
        if word == "last":
            return None if session.last is None else session.settled(session.last.outcome)
        if session.last_hit is None:
            raise ConfigError("there was no hit in this kernel yet")
        (self._undo if word == "undo" else self._again)(session.last_hit)
        return None

    def _undo(self, hit: Heard) -> None:
        if hit.outcome.kind != "semantic":
            raise ConfigError("the last hit was the same question word for word; %llm_proxy again asks it anew")
        if self.session.undo(hit):
            sys.stdout.write("Taken back: this answer is not served to such a question again.\n")
        else:
            sys.stdout.write("Its entry is gone already.\n")

    def _again(self, hit: Heard) -> None:
        response = self.session.again(hit)
        if response.status_code != 200:
            with closing(response):
                said = response.read()[:500].decode("utf-8", "replace")
            raise CacheError(f"upstream says {response.status_code}: {said}")
        self._show(response)

    def _complete_chat(self, shell: Any, event: Any) -> Any:
        return chat_completions(self.session, event)

    def _complete_status(self, shell: Any, event: Any) -> Any:
        return word_completions(event)


@contextmanager
def _said_plainly() -> Iterator[None]:
    """Turn what llm-proxy itself refuses into IPython's one-line error; an upstream's errors stay as they are."""
    try:
        yield
    except (LLMProxyError, ValueError) as exc:
        from IPython.core.error import UsageError

        raise UsageError(str(exc)) from exc


_loaded: list[Extension] = []


def load(shell: Any) -> None:
    """Route every openai client that is made from now on through one engine, and add the magics.

    Raises:
        ConfigError: A setting is wrong.
    """
    unload(shell)
    extension = Extension(shell, Session())
    extension.register()
    _loaded.append(extension)


def unload(shell: Any) -> None:
    """Take everything back that `load` did; safe where nothing is loaded."""
    for extension in _loaded.copy():
        _loaded.remove(extension)
        extension.unregister()
        others = extension.session.close()
        if others:
            sys.stdout.write(f"The engine goes on for what llm_proxy's own clients made: {others} transports.\n")
