"""Routes that answer searches with JSON, for scripts; docs/inference.md describes them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipbert_mm.apis.page.events import Key, Text
from clipbert_mm.apis.results import Record
from clipbert_mm.apis.search_results import Hit
from clipbert_mm.apis.similar import similar
from clipbert_mm.apis.video_search import VideoSearch
from clipbert_mm.errors import ClipBertError, OptionError, encodable, quoted
from clipbert_mm.index import Entry, Filter, name_below
from clipbert_mm.version import __version__

WAITING = 32
"""Most searches that wait for the one that runs; further ones are asked to try again later."""
MOST = 1000
"""Most hits of a search, and most videos of a shortlist."""
_Query = TypeVar("_Query", bound=BaseModel)


class ApiError(ClipBertError):
    """A request that cannot be answered.

    Args:
        message: Reason, for the one who asked.
        status: HTTP status of the response.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Conditions(BaseModel):
    """Parameters that all searches take; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    topk: Annotated[int, Field(ge=1, le=MOST)] = 10
    folders: Annotated[list[str], Field(alias="in", max_length=100)] = []
    min_seconds: float | None = None
    max_seconds: float | None = None
    written_after: float | None = None
    written_before: float | None = None

    def filter(self) -> Filter:
        """Return the conditions that a video meets."""
        folders = tuple(self.folders) or None
        return Filter(folders, self.min_seconds, self.max_seconds, self.written_after, self.written_before)


class _SearchQuery(_Conditions):
    """Parameters of ``/api/search``."""

    text: Text
    shortlist: Annotated[int, Field(ge=0, le=MOST)] | None = None
    vector_pooling: str | None = None
    vectors_only: bool = False
    threshold: float | None = None
    clips: bool = False


class _SimilarQuery(_Conditions):
    """Parameters of ``/api/similar``, of which one names the video."""

    key: Key | None = None
    video: str | None = None


class _InfoQuery(BaseModel):
    """``/api/info`` takes no parameters."""

    model_config = ConfigDict(extra="forbid")


class Api:
    """Answer searches, one at a time.

    Args:
        search: Searches the index.
        paths: Whether paths of this machine are told, and taken as conditions; else videos have keys and names.
    """

    def __init__(self, search: VideoSearch, *, paths: bool = False) -> None:
        self.search, self.paths = search, paths
        self._one = anyio.CapacityLimiter(1)
        self._waiting = 0

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an application."""
        app.get("/api/search")(self._endpoint(_SearchQuery, self._search))
        app.get("/api/similar")(self._endpoint(_SimilarQuery, self._similar))
        app.get("/api/info")(self._endpoint(_InfoQuery, self._info))

    def _endpoint(self, query: type[_Query], answer: Callable[[_Query], dict[str, Any]]) -> Callable:
        async def respond(request: Request) -> JSONResponse:
            try:
                values = _parse(query, request.scope["query_string"].decode("latin-1"))
                if isinstance(values, _Conditions) and values.folders and not self.paths:
                    raise ApiError("This server takes no paths: it was started without --paths.", 400)
                if self._waiting > WAITING:
                    raise ApiError("The server is busy. Try again in a minute.", 503)
                self._waiting += 1
                try:
                    return JSONResponse(await anyio.to_thread.run_sync(answer, values, limiter=self._one))
                finally:
                    self._waiting -= 1
            except ApiError as error:
                return JSONResponse(dict(detail=str(error)), error.status)
            except OptionError as error:
                return JSONResponse(dict(detail=self._without_paths(str(error))), 400)
            except Exception:
                logging.getLogger(__name__).exception("a request of the API failed")
                detail = "This failed on the server. Its owner finds the reason in its log."
                return JSONResponse(dict(detail=detail), 500)

        return respond

    def _search(self, query: _SearchQuery) -> dict[str, Any]:
        self._check_not_empty()
        result = self.search.search(
            query.text,
            query.topk,
            shortlist=query.shortlist,
            where=query.filter(),
            vector_pooling=query.vector_pooling,
            vectors_only=query.vectors_only,
            threshold=query.threshold,
            clips=query.clips,
        )
        return self._told(result, result.hits) | dict(warnings=result.warnings)

    def _similar(self, query: _SimilarQuery) -> dict[str, Any]:
        self._check_not_empty()
        if (query.key is None) == (query.video is None):
            raise ApiError("/api/similar takes one of key and video.", 400)
        if query.video is not None and not self.paths:
            raise ApiError("This server takes no paths: it was started without --paths. Give the key of a hit.", 400)
        index = self.search.video_index
        if query.key is not None:
            entry = index.by_key(query.key)
        else:
            entry = next(iter(index.found([query.video or ""]).values()), None)
        if entry is None or not entry.is_current():  # no file that is not in the index is read
            raise ApiError("There is no such video in the index.", 404)
        result = similar(index, entry.path, query.topk, where=query.filter())
        own = dict(key=entry.key, name=self._name(entry.path))
        return self._told(result, result.hits) | (own | dict(path=encodable(entry.path)) if self.paths else own)

    def _info(self, query: _InfoQuery) -> dict[str, Any]:
        index, predictor = self.search.video_index, self.search.predictor
        facts: dict[str, Any] = dict(
            version=__version__,
            videos=index.count(),
            identity=predictor.identity,
            score_kind=predictor.score_kind,
            has_vectors=predictor.model.encoder.has_vectors,
            calibrated=index.manifest.get("calibration") is not None,
            paths=self.paths,
        )
        return facts | dict(index=encodable(index.name), model=encodable(predictor.source)) if self.paths else facts

    def _told(self, result: Record, hits: Sequence[Hit]) -> dict[str, Any]:
        """Return a result as plain values; videos have keys and names, and paths only if they are told."""
        values = result.to_dict()
        entries = self.search.video_index.found([hit.path for hit in hits])
        values["hits"] = [self._hit(hit, entries) for hit in hits]
        if not self.paths:
            values.pop("model", None)
            values.pop("path", None)
            values["left_out"] = len(values["left_out"])
        else:
            values["left_out"] = {encodable(path): reason for path, reason in values["left_out"].items()}
        return values

    def _hit(self, hit: Hit, entries: Mapping[str, Entry]) -> dict[str, Any]:
        values = hit.to_dict()
        del values["path"]
        entry = entries.get(hit.path)  # it may have been removed meanwhile
        named = dict(key=None if entry is None else entry.key, name=self._name(hit.path))
        return named | (dict(path=encodable(hit.path)) if self.paths else {}) | values

    def _name(self, path: str) -> str:
        return encodable(name_below(path, self.search.video_index.folders))

    def _check_not_empty(self) -> None:
        if not self.search.video_index.count():
            raise ApiError("There are no videos in the index.", 404)

    def _without_paths(self, message: str) -> str:
        """Return a message for the one who asked; the model and the index are named only if paths are told."""
        if self.paths:
            return encodable(message)
        for path, name in (
            (self.search.predictor.source, "The model"),
            (self.search.video_index.name, "of the server"),
        ):
            message = message.replace(path, name)
        return message


def _parse(model: type[_Query], query: str) -> _Query:
    """Parse the parameters of a request.

    Raises:
        ApiError: If one is unknown, missing, given twice, of the wrong type or out of bounds.
    """
    values: dict[str, Any] = {}
    try:
        pairs = (
            parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=200)
            if query
            else []
        )
    except ValueError:
        raise ApiError("Invalid request: expected parameters such as text=a%20dog&topk=5, in UTF-8.", 400) from None
    for name, value in pairs:
        if name == "in":
            values.setdefault("in", []).append(value)
        elif name in values:
            raise ApiError(f"Invalid request: {quoted(name)} is given twice.", 400)
        else:
            values[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(step) for step in first["loc"]) or "the request"
        raise ApiError(f"Invalid request: {quoted(field)}: {first['msg']}.", 400) from None
