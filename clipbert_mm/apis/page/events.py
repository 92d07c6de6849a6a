"""What a visitor may send: texts and numbers, each with its bounds. The function that answers an event says its types."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, create_model

from clipbert_mm.errors import OptionError, quoted

LONGEST_TEXT = 1000
"""Letters of a text that a visitor may send."""
MOST_HITS = 20
"""Hits that a visitor may ask for."""

Text: TypeAlias = Annotated[str, StringConstraints(max_length=LONGEST_TEXT)]
Hits: TypeAlias = Annotated[int, Field(ge=1, le=MOST_HITS)]
Key: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""Key of a video; see :attr:`~clipbert_mm.apis.index_records.Entry.key`."""


class EventError(OptionError):
    """An event that the page does not have, or whose values are of another type or out of their bounds."""


class _Event(BaseModel):
    """What every event carries; anything else in a request is dropped."""

    model_config = ConfigDict(strict=True)
    session_hash: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z]{1,32}$")]
    trigger_id: Annotated[int, Field(ge=0, le=10_000)] | None = None


class Events:
    """Checks the events of a page against the annotations of their functions.

    Args:
        functions: The function of each event, by Gradio's number of the event.
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
        """Return a request for an event with nothing in it but what was checked, as JSON.

        Raises:
            EventError: If there is no such event, or its values are of another type or out of their bounds.
        """
        try:
            number = self._number.validate_json(body).fn_index
            if number not in self.adapters:
                raise EventError(f"The page has no event {number}.")
            return self.adapters[number].validate_json(body).model_dump_json().encode()
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(str(step) for step in first["loc"]) or "the request"
            raise EventError(f"The page does not take this: {quoted(place)}: {first['msg']}.") from None


class _Number(BaseModel):
    """Which event a request is for."""

    model_config = ConfigDict(strict=True)
    fn_index: int


def _row(function: Callable[..., Any]) -> Any:  # noqa: ANN401
    """Return the type of what a function takes, in its order."""
    types = tuple(parameter.annotation for parameter in inspect.signature(function).parameters.values())
    return tuple.__class_getitem__(types)
