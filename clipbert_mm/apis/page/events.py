"""Validation of what a visitor sends: texts and numbers within bounds, by the annotations of the event's function."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, create_model

from clipbert_mm.errors import OptionError, quoted

MAX_TEXT_LENGTH = 1000
"""Most characters of a text."""
MAX_HITS = 50
"""Most hits of a search."""
MAX_SECONDS = 1e9
"""Greatest length of a video that is asked for, in seconds."""

Text: TypeAlias = Annotated[str, StringConstraints(max_length=MAX_TEXT_LENGTH)]
Hits: TypeAlias = Annotated[int, Field(ge=1, le=MAX_HITS)]
Number: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000_000)]
"""Number of a page of videos, from 1 on."""
Seconds: TypeAlias = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
Key: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""Key of a video; see :attr:`~clipbert_mm.index.records.Entry.key`."""


class EventError(OptionError):
    """Unknown event, or values of the wrong type or out of bounds."""


class _Event(BaseModel):
    """Fields of every event; other fields of a request are dropped."""

    model_config = ConfigDict(strict=True)
    session_hash: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z]{1,32}$")]
    trigger_id: Annotated[int, Field(ge=0, le=10_000)] | None = None


class Events:
    """Validate the events of a page by the annotations of their functions.

    Args:
        functions: The function of each event, by Gradio's event number.
    """

    def __init__(self, functions: Mapping[int, Callable[..., Any]]) -> None:
        self.adapters: dict[int, TypeAdapter[_Event]] = {
            number: TypeAdapter(
                create_model(f"Event{number}", __base__=_Event, fn_index=(int, ...), data=(_row(function), ...))
            )
            for number, function in functions.items()
        }
        self._number: TypeAdapter[_Number] = TypeAdapter(_Number)

    def check(self, body: bytes) -> bytes:
        """Return the validated fields of a request, as JSON.

        Raises:
            EventError: If the event is unknown, or its values are of the wrong type or out of bounds.
        """
        try:
            number = self._number.validate_json(body).fn_index
            if number not in self.adapters:
                raise EventError(f"The page has no event {number}.")
            return self.adapters[number].validate_json(body).model_dump_json().encode()
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            field = ".".join(str(step) for step in first["loc"]) or "the request"
            raise EventError(f"Invalid request: {quoted(field)}: {first['msg']}.") from None


class _Number(BaseModel):
    """The event number of a request."""

    model_config = ConfigDict(strict=True)
    fn_index: int


def _row(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Return the tuple type of a function's parameters."""
    types = tuple(parameter.annotation for parameter in inspect.signature(function).parameters.values())
    return tuple.__class_getitem__(types)
