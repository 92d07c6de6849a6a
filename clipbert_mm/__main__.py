"""The command: clipbert index|search|rank|ask|info|serve; the same as python -m clipbert_mm."""

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clipbert_mm.errors import OptionError, VideoIndexError, printable, quoted

if TYPE_CHECKING:  # they take seconds to import, which `clipbert --help` need not
    from clipbert_mm.apis.indexing import Progress
    from clipbert_mm.apis.results import Record
    from clipbert_mm.apis.video_search import VideoSearch

FAILED, LEFT_OUT, INTERRUPTED = 1, 3, 130
"""Exit codes: an error; done, but for videos that cannot be read; stopped by Ctrl-C. 2 is a wrong command line."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="clipbert",
        description="Search your own videos by text, rank texts for a video, ask questions of it.",
        epilog="Exit codes: 0 done; 1 an error; 2 a wrong command line; 3 done, but some videos could not be read.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, what) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        _add_arguments(command, name)
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_arguments(command: argparse.ArgumentParser, name: str) -> None:
    """Add what a sub-command takes."""
    if name == "index":
        command.add_argument("places", nargs="+", metavar="VIDEO|FOLDER", help="videos, and folders of videos")
        command.add_argument(
            "--remove", action="store_true", help="take these, or all below these folders, out of the gallery instead"
        )
        command.add_argument(
            "--prune", action="store_true", help="take videos out of the gallery that are gone from these folders"
        )
        command.add_argument(
            "--retry", action="store_true", help="try again what could not be read before and has not changed"
        )
        command.add_argument("--workers", type=at_least(1), default=2, help="processes that decode (default: 2)")
        command.add_argument("--batch-size", type=at_least(1), default=4, help="videos encoded together (default: 4)")
        command.add_argument(
            "--timeout",
            type=at_least(1),
            default=120,
            metavar="SECONDS",
            help="most for decoding one video (default: 120)",
        )
    if name in ("rank", "ask"):
        command.add_argument("video")
    if name in ("search", "rank"):
        command.add_argument("text", nargs=None if name == "search" else "+")
    if name == "ask":
        command.add_argument("question")
        command.add_argument("--option", action="append", help="an option of multiple choice; once for each")
    if name in ("search", "ask"):
        command.add_argument("--topk", type=at_least(1), default=5, help="most hits or answers (default: 5)")
        command.add_argument("--explain", metavar="PNG", help="draw why the first one is the first")
    if name == "search":
        command.add_argument(
            "--shortlist",
            type=at_least(0),
            help="videos to score with all clips, chosen by their coarse tokens; 0 for all",
        )
    if name == "serve":
        command.add_argument("--qa", metavar="CHECKPOINT", help="model for questions (default: none, no questions)")
        command.add_argument(
            "--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)"
        )
        command.add_argument("--port", type=at_least(0, 65535), default=7860, help="port to listen at (default: 7860)")
        command.add_argument(
            "--allow-host",
            action="append",
            default=[],
            metavar="NAME",
            help="what visitors call this machine, where that is not --host; once for each",
        )
        command.add_argument(
            "--max-upload", type=at_least(1), default=200, metavar="MB", help="largest upload (default: 200 MB)"
        )
        command.add_argument(
            "--max-uploads", type=at_least(0), default=100, help="most uploads that are kept (default: 100)"
        )
    needs = name == "ask"
    command.add_argument(
        "--model", required=needs, help="checkpoint, or config" + ("" if needs else " (default: the gallery's)")
    )
    command.add_argument("--weights", help="checkpoint beside a config")
    if not needs:
        command.add_argument(
            "--gallery", default="clipbert_gallery", help="folder of the gallery (default: clipbert_gallery)"
        )
    command.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")


def at_least(smallest: int, largest: int | None = None) -> Callable[[str], int]:
    """Return a type of option: whole numbers of some size."""
    expected = f"{smallest} or more" if largest is None else f"{smallest} to {largest}"

    def parse(text: str) -> int:
        number = int(text) if text.isascii() and len(text) < 20 and text.lstrip("-").isdigit() else smallest - 1
        if number < smallest or (largest is not None and number > largest):
            raise argparse.ArgumentTypeError(f"expected a whole number, {expected}, got {quoted(text)}")
        return number

    return parse


def main(argv: list[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    args = build_parser().parse_args(argv)
    try:
        sys.exit(COMMANDS[args.command][0](args))
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; what was done is kept\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # whoever read our lines has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        from clipbert_mm.engine.run_tool import format_error

        message = format_error(error)
        if message is None:
            raise
        sys.stderr.write(f"{message}\n")
        sys.exit(FAILED)


@contextmanager
def _importing() -> Iterator[None]:
    """Leave out garbage collection while libraries are imported, and what they hold from then on.

    Their 4,000 modules last as long as the process; to go through their objects again and again while they grow, and once
    more when the process ends, takes a third of the time of a short command.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _index(args: argparse.Namespace) -> int:
    if args.remove:
        from clipbert_mm.apis.video_index import VideoIndex
        from clipbert_mm.apis.video_search import remove

        removed = remove(VideoIndex(args.gallery), args.places)
        _say({"removed": removed} if args.json else f"removed {len(removed)}")
        return 0
    search = _open(args)
    report = search.index(
        args.places,
        workers=args.workers,
        batch_size=args.batch_size,
        timeout=args.timeout,
        prune=args.prune,
        retry=args.retry,
        progress=None if args.json else _progress(),
    )
    _show(report, args)
    return LEFT_OUT if report.unreadable else 0


def _search(args: argparse.Namespace) -> int:
    search = _open(args)
    found = search.search(args.text, args.topk, shortlist=args.shortlist)
    _show(found, args)
    if args.explain:
        search.explain(args.text, found.hits[0].path, args.explain)
        _note(f"drew {args.explain}")
    return 0


def _rank(args: argparse.Namespace) -> int:
    _show(_open(args).rank(args.video, args.text), args)
    return 0


def _ask(args: argparse.Namespace) -> int:
    with _importing():
        from clipbert_mm.apis.video_qa import VideoQA

        qa = VideoQA(args.model, args.device, weights=args.weights)
    _show(qa.ask(args.video, args.question, args.option, args.topk), args)
    if args.explain:
        qa.explain(args.video, args.question, args.option, args.explain)
        _note(f"drew {args.explain}")
    return 0


def _serve(args: argparse.Namespace) -> int:
    try:
        from clipbert_mm.apis.page import serve
    except ImportError as error:
        raise OptionError(
            f"The page needs Gradio, and {error.name} is not installed: pip install 'clipbert_mm[page]'."
        ) from error
    from clipbert_mm.apis.video_qa import VideoQA

    qa = None if args.qa is None else VideoQA(args.qa, args.device)
    search = _open(args)
    count = len(search.gallery.entries)
    serve(
        search,
        qa,
        host=args.host,
        port=args.port,
        allow_hosts=args.allow_host,
        max_upload=args.max_upload * 1_000_000,
        max_uploads=args.max_uploads,
        ready=lambda address: _note(f"{count} videos at {address}  (Ctrl-C ends it)"),
    )
    return 0


def _info(args: argparse.Namespace) -> int:
    if args.model:
        from clipbert_mm.checkpoint import read_metadata

        contents = read_metadata(args.model)
        steps = {str(step["type"]): step for step in next(filter(None, contents.pipelines.values()), [])}
        facts: dict[str, Any] = dict(
            model=args.model,
            task=contents.task,
            version=contents.version,
            answers=None if contents.answers is None else len(contents.answers),
            clips=steps.get("SampleClips"),
            size=steps.get("ResizePad", {}).get("size"),
            text_length=steps.get("Tokenize", {}).get("max_length"),
        )
    else:
        from clipbert_mm.apis.video_index import VideoIndex

        gallery = VideoIndex(args.gallery)
        if not gallery.exists:
            raise VideoIndexError(
                f"There is no gallery {args.gallery}. Make one: clipbert index FOLDER --model CHECKPOINT."
            )
        stale = [path for path, entry in gallery.entries.items() if not entry.is_up_to_date()]
        seconds = sum(entry.seconds or 0 for entry in gallery.entries.values())
        facts = dict(
            gallery=args.gallery,
            **gallery.manifest,
            hours=round(seconds / 3600, 3),
            stale=stale,
            missing=list(gallery.missing),
            unreadable=[f"{path}: {each.reason}" for path, each in gallery.unreadable.items()],
            videos=list(gallery.entries),
        )
    if args.json:
        _say(facts)
        return 0
    for key, value in facts.items():
        if isinstance(value, list):
            value = "".join(f"\n  {each}" for each in value) or "none"
        _say(f"{key}: {value}")
    return 0


@_importing()
def _open(args: argparse.Namespace) -> "VideoSearch":
    """Open the model that is named, or the one that the gallery was made with."""
    from clipbert_mm.apis.video_index import VideoIndex
    from clipbert_mm.apis.video_search import VideoSearch

    model, weights = args.model, args.weights
    if model is None:
        manifest = VideoIndex(args.gallery).manifest
        if not manifest:
            raise VideoIndexError(
                f"There is no gallery {args.gallery}, which would say what model to use. Name one: --model CHECKPOINT."
            )
        model = manifest["source"]
        if model.endswith(".py"):
            raise VideoIndexError(
                f"The gallery {args.gallery} was made with the config {quoted(model)}. A config is Python, so it runs only if "
                "you name it: --model CONFIG --weights CHECKPOINT."
            )
        if not os.path.isfile(model):
            raise VideoIndexError(
                f"The gallery {args.gallery} was made with the checkpoint {quoted(model)}, which is not there. Name it: "
                "--model CHECKPOINT."
            )
    return VideoSearch(model, args.device, gallery=args.gallery, weights=weights)


def _progress() -> "Progress":
    """Return a progress bar on the standard error stream."""
    from tqdm import tqdm

    bar = tqdm(unit="video", file=sys.stderr, disable=None)  # a bar on a terminal alone

    def show(done: int, total: int, path: str) -> None:
        bar.total, bar.n = total, done
        bar.set_postfix_str(os.path.basename(path), refresh=False)
        bar.refresh()
        if done == total:
            bar.close()

    return show


def _show(record: "Record", args: argparse.Namespace) -> None:
    _say(record.to_dict() if args.json else str(record))


def _say(what: Any) -> None:  # noqa: ANN401
    """Print a text, or JSON; a file name that is not UTF-8 with its bytes escaped."""
    text = printable(what) if isinstance(what, str) else json.dumps(what, indent=2, ensure_ascii=False)
    if not isinstance(what, str) and printable(text) != text:
        text = json.dumps(what, indent=2)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _note(words: str) -> None:
    sys.stderr.write(f"{words}\n")


COMMANDS = {
    "index": (_index, "encode videos into a gallery, once each"),
    "search": (_search, "find the videos of a gallery that match a text"),
    "rank": (_rank, "put texts into the order in which they match a video"),
    "ask": (_ask, "ask a question of a video"),
    "serve": (_serve, "open a page in the browser to search, play and ask"),
    "info": (_info, "say what a gallery or a checkpoint holds"),
}
"""The sub-commands: what runs them, and what they are for."""


if __name__ == "__main__":
    main()
