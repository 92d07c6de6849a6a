"""Options of the command ``clipbert``."""

import argparse
import datetime
import sys
from collections.abc import Callable
from typing import Any

from clipbert_mm.errors import quoted

MODEL_HELP = "checkpoint, work folder, config, or Hugging Face folder or name[@revision]"


def add_arguments(command: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of a sub-command."""
    if name == "index":
        _add_index_options(command)
    if name in ("rank", "ask", "similar"):
        command.add_argument("video")
    if name == "calibrate":
        help_text = 'labelled pairs, a line each: {"text": "a dog", "video": "a.mp4", "match": true}'
        command.add_argument("pairs", metavar="PAIRS.jsonl", help=help_text)
    if name == "rank":
        command.add_argument("text", nargs="+")
    if name == "ask":
        command.add_argument("question")
        help_text = "an option of multiple choice, or a candidate answer; repeat it for each"
        command.add_argument("--option", action="append", help=help_text)
        command.add_argument("--answers", help="answer vocabulary (JSON), for a model that rates candidate answers")
    if name == "search":
        texts = command.add_mutually_exclusive_group(required=True)
        texts.add_argument("text", nargs="?", help="what the video shows")
        texts.add_argument("--queries", metavar="FILE", help="search for many texts, one a line; - for standard input")
    if name in ("search", "similar", "ask"):
        command.add_argument("--topk", type=at_least(1), default=5, help="number of hits or answers (default: 5)")
    if name in ("search", "ask"):
        command.add_argument("--explain", metavar="PNG", help="draw an explanation of the first one")
    if name == "search":
        _add_search_options(command)
    if name == "duplicates":
        help_text = "cosine similarity of near duplicates, more than 0 (default: 0.97)"
        command.add_argument("--threshold", type=_share, metavar="COSINE", help=help_text)
    if name in ("search", "similar", "duplicates"):
        _add_conditions(command)
    if name in ("search", "similar"):
        command.add_argument("--csv", action="store_true", help="print CSV")
        command.add_argument("--sheet", metavar="JPG", help="draw a picture of each hit to a .jpg or .png file")
    if name == "serve":
        _add_serve_options(command)
    if name == "info":
        help_text = "print only the files that could not be read, one a line, and after a tab the reason"
        command.add_argument("--unreadable", action="store_true", help=help_text)
    if name == "ask":
        command.add_argument("--model", required=True, help=MODEL_HELP)
    else:
        command.add_argument("--model", help=f"{MODEL_HELP} (default: that of the index)")
        command.add_argument("--index", help="folder or URL of the index (default: clipbert_index)")
        command.add_argument("--gallery", dest="index", action=OldOption, help=argparse.SUPPRESS)
    if name in ("search", "calibrate", "rank", "ask", "serve"):
        command.add_argument(
            "--pooling", help="how clips become one score: mean, max, logsumexp, concat, ... (default: the model's)"
        )
    command.add_argument("--weights", help="checkpoint, if --model is a config")
    command.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    help_text = "what the model computes in (default: bf16 of a public model on a GPU that computes in it, else fp32)"
    command.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help=help_text)


def _add_index_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("paths", nargs="*", metavar="VIDEO|FOLDER", help="videos, and folders of videos")
    help_text = "remove these videos, or all below these folders, from the index instead"
    add("--remove", action="store_true", help=help_text)
    help_text = "keep visual tokens (1.3 MB a video of the paper's model), so that a search decodes no video"
    add("--keep-tokens", action="store_true", default=None, help=help_text)
    help_text = "only free the disk of what removed and changed videos have left; needs no VIDEO"
    add("--compact", action="store_true", help=help_text)
    help_text = "take over the index, made by a release before format 2, decoding nothing; needs no VIDEO"
    add("--take-over", action="store_true", help=help_text)
    help_text = "build an approximate index of the vectors, for search --approximate; needs no VIDEO"
    add("--approximate", action="store_true", help=help_text)
    help_text = "share of the nearest videos that it is to find, 0 to 1 (default: 0.95)"
    add("--recall", type=_share, default=0.95, metavar="P", help=help_text)
    add("--prune", action="store_true", help="remove videos from the index that no longer exist in these folders")
    add("--retry", action="store_true", help="try files again that were unreadable before and have not changed")
    add("--workers", type=at_least(1), default=2, help="decoding processes (default: 2)")
    add("--batch-size", type=at_least(1), default=4, help="videos per batch (default: 4)")
    help_text = "most time for decoding one video (default: 120)"
    add("--timeout", type=at_least(1), default=120, metavar="SECONDS", help=help_text)
    help_text = "what started several of these processes, which share the work; see tools/dist_index.sh (default: none)"
    add("--launcher", choices=("none", "pytorch", "slurm", "mpi"), default="none", help=help_text)


def _add_search_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    help_text = "videos to score with all clips, chosen by their vectors or coarse tokens; 0 for all"
    add("--shortlist", type=at_least(0), help=help_text)
    help_text = "ask a running server (clipbert serve), as http://127.0.0.1:7860, which spares opening a model"
    add("--server", metavar="URL", help=help_text)
    help_text = "most time for an answer of the server (default: 60)"
    add("--server-timeout", type=at_least(1), default=60, metavar="SECONDS", help=help_text)
    add("--vectors-only", action="store_true", help="rank by the vectors alone, which decodes no video")
    help_text = "how the vectors of a video's clips choose the shortlist: max, mean, logsumexp or query-weighted"
    add("--vector-pooling", help=help_text)
    add("--approximate", action="store_true", help="choose by the approximate index, which index --approximate builds")
    add("--clips", action="store_true", help="find the best clips of all videos, not the best videos")
    help_text = "leave out hits of a smaller probability, 0 to 1; see clipbert calibrate"
    add("--threshold", type=_share, metavar="P", help=help_text)


def _add_conditions(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    help_text = "search only videos below this folder, or this video; repeat it for each"
    add("--in", dest="folders", action="append", metavar="FOLDER", help=help_text)
    add("--min-seconds", type=_seconds, metavar="S", help="search only videos of at least so many seconds")
    add("--max-seconds", type=_seconds, metavar="S", help="search only videos of at most so many seconds")
    help_text = "search only files last written at or {} this date, as 2026-03-01 or 2026-03-01T12:30 (local time)"
    add("--written-after", type=_time, metavar="DATE", help=help_text.format("after"))
    add("--written-before", type=_time, metavar="DATE", help=help_text.format("before"))


def _add_serve_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--qa", metavar="CHECKPOINT", help="model for questions (default: none, no questions)")
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    add("--port", type=at_least(0, 65535), default=7860, help="port to listen on (default: 7860)")
    help_text = "host name of the page, if it is not --host; repeat it for each"
    add("--allow-host", action="append", default=[], metavar="NAME", help=help_text)
    add("--max-upload", type=at_least(1), default=200, metavar="MB", help="largest upload (default: 200 MB)")
    add("--api-only", action="store_true", help="serve the routes for scripts alone, which takes no Gradio")
    add("--paths", action="store_true", help="let scripts see and name paths of this machine")
    add("--max-uploads", type=at_least(0), default=100, help="most uploads to keep (default: 100)")


class OldOption(argparse.Action):
    """Old name of an option, which still works with a warning."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,  # noqa: ANN401
        option_string: str | None = None,
    ) -> None:
        """Warn, and set the option."""
        sys.stderr.write(
            f"warning: {option_string} is deprecated and will go with the next release. Use --{self.dest}.\n"
        )
        setattr(namespace, self.dest, values)


def at_least(smallest: int, largest: int | None = None) -> Callable[[str], int]:
    """Return an argument type: whole numbers in a range."""
    expected = f"{smallest} or more" if largest is None else f"{smallest} to {largest}"

    def parse(text: str) -> int:
        number = int(text) if text.isascii() and len(text) < 20 and text.lstrip("-").isdigit() else smallest - 1
        if number < smallest or (largest is not None and number > largest):
            raise argparse.ArgumentTypeError(f"expected a whole number, {expected}, got {quoted(text)}")
        return number

    return parse


def _seconds(text: str) -> float:
    """Parse a number of seconds, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, 0 or more, got {quoted(text)}")
    return number


def _time(text: str) -> float:
    """Parse a date, or date and time, of ISO 8601, as seconds since 1970; it is local time unless it has an offset."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"expected a date such as 2026-03-01, or 2026-03-01T12:30, got {quoted(text)}"
        ) from None


def _share(text: str) -> float:
    """Parse a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {quoted(text)}")
    return number
