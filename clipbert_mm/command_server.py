"""``clipbert search --server``: ask a running search server, without importing what a search needs."""

import argparse
import http.client
import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlencode, urlsplit

from clipbert_mm.errors import OptionError, ServerError, encodable, quoted

MAX_ANSWER_BYTES = 2**26
"""Most bytes of an answer."""
PARAMETERS = (
    *("topk", "shortlist", "vector_pooling", "vectors_only", "threshold", "clips"),
    *("min_seconds", "max_seconds", "written_after", "written_before"),
)
"""Options of the command that are parameters of the route."""
NOT_WITH_SERVER = ("explain", "sheet", "approximate", "model", "index", "weights", "device", "precision", "pooling")
"""Options that say what a server was started with, or need the model here."""


def search_server(texts: Iterable[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Search for texts on a server, and return what it answers, checked.

    Raises:
        OptionError: If the address is none, or an option does not go with a server.
        ServerError: If the server cannot be reached, is slow, refuses, or answers something else.
    """
    given = [name for name in NOT_WITH_SERVER if getattr(args, name, None) not in (None, False)]
    if given:
        raise OptionError(
            f"--{given[0]} does not go with --server, which has a model and an index already. Leave one of the two out."
        )
    values = {name: getattr(args, name) for name in PARAMETERS}
    query = [(name, str(value).lower()) for name, value in values.items() if value not in (None, False)]
    query += [("in", folder) for folder in args.folders or ()]
    return [
        _checked(ask(args.server, "/api/search", [("text", text), *query], args.server_timeout), args) for text in texts
    ]


def ask(server: str, route: str, query: Iterable[tuple[str, str]], timeout: float) -> Any:  # noqa: ANN401
    """Return what a server answers, JSON.

    Args:
        server: Its address.
        route: The route.
        query: Parameters.
        timeout: Most seconds.

    Raises:
        OptionError: If the address is none.
        ServerError: If the server cannot be reached, is slow, refuses, or answers something else.
    """
    connection, prefix = _connection(server, timeout)
    deadline = time.monotonic() + timeout
    with closing(connection):
        try:
            connection.request(
                "GET", f"{prefix}{route}?{urlencode(list(query))}", headers={"Accept": "application/json"}
            )
            response = connection.getresponse()
            content = b""
            while chunk := response.read1(2**16):
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise _nonsense(server, f"more than {MAX_ANSWER_BYTES / 2**20:.0f} MiB")
                if time.monotonic() > deadline:
                    raise TimeoutError
        except TimeoutError:
            raise ServerError(
                f"The search server {server} did not answer within {timeout:g} s. Give it more time: --server-timeout SECONDS."
            ) from None
        except http.client.HTTPException as error:
            raise _nonsense(server, f"{type(error).__name__} {str(error)[:80]}".strip()) from error
        except OSError as error:
            raise ServerError(
                f"Cannot reach the search server {server}: {error.strerror or error}. Start it: clipbert serve."
            ) from error
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        raise _nonsense(server, quoted(content[:60].decode(errors="replace"), 80)) from None
    if response.status != 200:
        detail = answer.get("detail") if isinstance(answer, dict) else None
        if not isinstance(detail, str):
            raise _nonsense(server, f"status {response.status}")
        raise ServerError(f"The search server {server} refuses: {encodable(detail[:500])}")
    return answer


def _connection(server: str, timeout: float) -> tuple[http.client.HTTPConnection, str]:
    """Return a connection, and the path of the server's address.

    Raises:
        OptionError: If the address is none.
    """
    try:
        parts = urlsplit(server)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.username:
        raise OptionError(f"--server expects an address such as http://127.0.0.1:7860, got {quoted(server)}.")
    kind = http.client.HTTPConnection if parts.scheme == "http" else http.client.HTTPSConnection
    return kind(host, port, timeout=timeout), parts.path.rstrip("/")


def _nonsense(server: str, got: str) -> ServerError:
    return ServerError(
        f"{server} does not answer as a search server of clipbert does: expected a result in JSON, got {got}. Check the "
        "address."
    )


def _checked(answer: Any, args: argparse.Namespace) -> dict[str, Any]:  # noqa: ANN401
    """Check that an answer is a result of a search, as far as it is printed.

    Raises:
        ServerError: If it is not.
    """
    hits = answer.get("hits") if isinstance(answer, dict) else None
    if not (
        isinstance(hits, list)
        and all(isinstance(hit, dict) and _is_hit(hit) for hit in hits)
        and isinstance(answer.get("text"), str)
        and isinstance(answer.get("searched"), int)
        and isinstance(answer.get("score_kind"), str)
        and isinstance(answer.get("warnings"), list)
    ):
        raise _nonsense(args.server, quoted(json.dumps(answer)[:60], 80))
    return answer


def _is_hit(hit: Mapping[str, Any]) -> bool:
    moment = hit.get("moment")
    numbers = [
        hit.get("score"),
        *([] if moment is None else [moment.get("start"), moment.get("end")] if isinstance(moment, dict) else [None]),
    ]
    numbers += [] if hit.get("probability") is None else [hit["probability"]]
    return isinstance(hit.get("name"), str) and all(
        isinstance(each, (int, float)) and math.isfinite(each) for each in numbers
    )


def format_result(result: Mapping[str, Any]) -> str:
    """Format the result of a server, one hit a line."""
    lines = [f"{result['text']!r} in {result['searched']} videos, scored by {result['score_kind']}"]
    lines += [str(each) for each in result["warnings"]]
    for rank, hit in enumerate(result["hits"], start=1):
        moment, chance = hit.get("moment"), hit.get("probability")
        span = "" if moment is None else f"{moment['start']:.1f}–{moment['end']:.1f} s"
        probability = "" if chance is None else f"{chance:6.1%}  "
        lines.append(f"{rank:3}. {hit['score']:7.3f}  {probability}{span:<15} {hit.get('path') or hit['name']}")
    return "\n".join(lines)


def result_rows(result: Mapping[str, Any]) -> list[list[Any]]:
    """Return the rows of CSV of a server's result; see :func:`~clipbert_mm.command_search.hit_rows`."""
    rows = []
    for rank, hit in enumerate(result["hits"], start=1):
        moment = hit.get("moment") or {}
        times = moment.get("start", ""), moment.get("end", "")
        rows.append(
            [
                result["text"],
                rank,
                hit.get("path") or hit["name"],
                hit["score"],
                hit.get("probability"),
                *times,
                hit.get("stage"),
            ]
        )
    return rows


def print_json(results: Iterable[Mapping[str, Any]], *, lines: bool) -> None:
    """Print results as JSON, each in a line or with an indent."""
    for result in results:
        sys.stdout.write(encodable(json.dumps(result, indent=None if lines else 2, ensure_ascii=False)) + "\n")
