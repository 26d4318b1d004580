"""``llm-proxy cache export``, ``import`` and ``warm``: entries from and to files. A proxy may run meanwhile."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from llm_proxy.errors import CacheError, ConfigError

from ._entries import opened, spare
from ._format import amount
from ._progress import progress
from ._shared import Json, emit, one_line, say, settings, visible
from ._warm import API_KEY_VARIABLE, Caller, Warmed, warm_from

if TYPE_CHECKING:
    from llm_proxy.cache.transfer import Exported, Imported, Vectors
    from llm_proxy.config import Config

__all__ = ["export", "import_", "warm"]

_STANDARD = Path("-")


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="File to write; - is standard output.")] = _STANDARD,
    without_vectors: Annotated[
        bool, typer.Option("--without-vectors", help="Leave vectors out; whoever imports encodes the questions again.")
    ] = False,
    half_vectors: Annotated[
        bool, typer.Option("--half-vectors", help="Write vectors in half precision: half as long, as good as equal.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write all cached answers to a file: one line of JSON each.

    Prompts and answers are in it, and so only you may read the file. It takes its name when it is complete.

    Examples:
        llm-proxy cache export answers.jsonl
        llm-proxy cache export > answers.jsonl
    """
    if file == _STANDARD and as_json:
        raise ConfigError("--json needs a FILE: standard output is taken by the entries")
    vectors: Vectors = "none" if without_vectors else "float16" if half_vectors else "float32"
    count = _exported(settings(context), file, vectors)
    if as_json:
        emit(asdict(count))
        return
    left_out = _listing({"expired": count.expired, "damaged": count.damaged})
    say(f"Exported {amount(count.entries)} entries{f', left out {left_out}' if left_out else ''}.")


def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What cache export wrote; - is standard input.")],
    as_json: Json = False,
) -> None:
    """Take in the answers of a file that cache export wrote, as far as the budget allows.

    Of two answers under one key the newer stays. The exit code is 1 when lines could not be read: they are passed over.

    Examples:
        llm-proxy cache import answers.jsonl
        gunzip -c answers.jsonl.gz | llm-proxy cache import -
    """
    count = _imported(settings(context), file)
    if as_json:
        emit(asdict(count) | {"first_broken": [{"line": line, "fault": why} for line, why in count.first_broken]})
    else:
        names = ("older", "expired", "refused", "too_large", "broken")
        left_out = _listing({name: getattr(count, name) for name in names})
        typer.echo(f"Imported {amount(count.stored)} entries{f', left out {left_out}' if left_out else ''}.")
        for line, why in count.first_broken:
            say(f"line {line}: {one_line(why, 200)}")
    if count.broken:
        raise typer.Exit(1)


def warm(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Log of past calls; - is standard input.")],
    base_url: Annotated[
        str, typer.Option(metavar="URL", help="Where the client sends its calls, if not to OpenAI or a backend.")
    ] = "",
    tenant_key_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable of the API key that the calls will be made with.")
    ] = API_KEY_VARIABLE,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME:VALUE", help="A header that the calls will have; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Store the answers of a log of past calls, under the keys that the same calls will have.

    Each line is {"request": …, "response": …}: the body of a chat completion and the chat.completion object that
    answered it. OpenAI's batch files are read as well: give the input file before the output file. Answers that a
    proxy would not store (errors, refusals, cut ones, chunks of a stream) are passed over and counted. The exit code
    is 1 when lines could not be read.

    Examples:
        llm-proxy cache warm calls.jsonl
        llm-proxy cache warm batch_input.jsonl batch_output.jsonl --tenant-key-env MY_KEY
    """
    config = settings(context)
    spare(config)
    caller = Caller.of(base_url=base_url, key_variable=tenant_key_env, headers=header or [])
    count = Warmed()
    with ExitStack() as stack:
        opened_files = [stack.enter_context(_reading(file)) for file in files]
        step = stack.enter_context(progress("Warming", _size_of(files)))
        for read_bytes in warm_from(config, opened_files, caller, count):
            step(read_bytes)
    if as_json:
        emit(asdict(count) | {"first_broken": [{"line": line, "fault": why} for line, why in count.first_broken]})
    else:
        _say_warmed(count, caller.endpoint(config))
    if count.skipped.get("broken"):
        raise typer.Exit(1)


def _say_warmed(count: Warmed, endpoint: str) -> None:
    left_out = _listing(count.skipped)
    place = endpoint.removesuffix("/chat/completions") or "the configured backends"
    typer.echo(
        f"Stored {amount(count.stored)} answers of {amount(count.calls)} calls to {visible(place)}, "
        f"{amount(count.vectors)} with vectors{f', left out {left_out}' if left_out else ''}."
    )
    for line, why in count.first_broken:
        say(f"line {line}: {one_line(why, 200)}")


def _exported(config: Config, file: Path, vectors: Vectors) -> Exported:
    from llm_proxy.cache.stores.memory import MemoryStore
    from llm_proxy.cache.transfer import Exported, export

    count = Exported()
    with opened(config) as store, _writing(file) as target:
        source = store or MemoryStore()  # nothing was ever stored
        with progress("Exporting", len(source.keys())) as step:
            for number in export(source, target.write, count, now_s=time.time(), vectors=vectors):
                step(number)
    return count


def _imported(config: Config, file: Path) -> Imported:
    from llm_proxy.cache.build import build
    from llm_proxy.cache.transfer import Imported, import_into
    from llm_proxy.runtime import SystemClock

    spare(config)
    count = Imported()
    with _reading(file) as source, progress("Importing", _size_of([file])) as step:
        cache = build(config.cache, clock=SystemClock())
        try:
            for read_bytes in import_into(cache, source, count, now_s=time.time()):
                step(read_bytes)
        finally:
            cache.close()
    return count


@contextmanager
def _reading(file: Path) -> Iterator[BinaryIO]:
    if file == _STANDARD:
        yield sys.stdin.buffer
        return
    try:
        source = file.open("rb")
    except OSError as exc:
        raise CacheError(f"{file} can't be read: {exc.strerror}; - stands for standard input") from exc
    with source:
        yield source


@contextmanager
def _writing(file: Path) -> Iterator[BinaryIO]:
    """A file that only its owner reads and that takes its name when it is complete; or standard output."""
    if file == _STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        if not file.name or file.is_dir():
            raise CacheError(
                f"{str(file)!r} can't be written: it is a folder; name a file in it, or - for standard output"
            )
        if file.exists() and not file.is_file():  # a pipe or a device is no name that a file could take
            with file.open("wb") as target:
                yield target
            return
        if file.is_symlink():
            raise CacheError(f"{file} can't be written: it is a link; name the file itself, or - for standard output")
        with ExitStack() as on_failure:
            # A name that nobody can foresee and that is not there: one in /tmp could be another user's link.
            descriptor, name = tempfile.mkstemp(prefix=f".{file.name[:100]}.", dir=file.parent)
            part = Path(name)
            on_failure.callback(part.unlink, missing_ok=True)
            with os.fdopen(descriptor, "wb") as target:
                yield target
            part.replace(file)
            on_failure.pop_all()
    except OSError as exc:
        raise CacheError(f"{file} can't be written: {exc.strerror}") from exc


def _size_of(files: list[Path]) -> float | None:
    try:
        return sum(file.stat().st_size for file in files)
    except OSError:  # standard input, as a rule
        return None


def _listing(counts: dict[str, Any]) -> str:
    return ", ".join(f"{amount(count)} {visible(name).replace('_', ' ')}" for name, count in counts.items() if count)
