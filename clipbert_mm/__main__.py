"""The command: clipbert index|search|rank|ask|info|serve; the same as python -m clipbert_mm."""

import argparse
import gc
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clipbert_mm.command_options import add_arguments
from clipbert_mm.errors import OptionError, VideoIndexError, encodable, quoted

if TYPE_CHECKING:  # these imports take seconds, which `clipbert --help` does without
    from clipbert_mm.apis.indexing import Progress
    from clipbert_mm.apis.results import Record
    from clipbert_mm.apis.video_search import VideoSearch

FAILED, LEFT_OUT = 1, 3
"""Exit codes of an error, of a run that left unreadable videos out, and of Ctrl-C; 2 is a wrong command line."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="clipbert",
        description="Search your own videos by text, rank texts for a video, ask questions about it.",
        epilog="Exit codes: 0 done; 1 an error; 2 a wrong command line; 3 done, but some videos could not be read.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, help_text) in COMMANDS.items():
        description = f"{help_text[0].upper()}{help_text[1:]}."
        command = commands.add_parser(name, help=help_text, description=description)
        add_arguments(command, name)
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command and exit with its code."""
    args = build_parser().parse_args(argv)
    try:
        sys.exit(COMMANDS[args.command][0](args))
    except KeyboardInterrupt:
        from clipbert_mm.processes import EXIT_INTERRUPTED

        sys.stderr.write("\nstopped; everything done so far is kept\n")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of the output has closed it
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
    if args.take_over:
        return _take_over(args)
    if not args.paths:
        raise OptionError("clipbert index expects videos or folders of videos: clipbert index FOLDER.")
    if args.remove:
        from clipbert_mm.apis.video_search import remove
        from clipbert_mm.index import VideoIndex

        removed = remove(VideoIndex(_folder(args)), args.paths)
        _print({"removed": removed} if args.json else f"removed {len(removed)}")
        return 0
    search = _open(args)
    report = search.index(
        args.paths,
        workers=args.workers,
        batch_size=args.batch_size,
        timeout=args.timeout,
        prune=args.prune,
        retry=args.retry,
        keep_tokens=args.keep_tokens,
        progress=None if args.json else _progress(),
    )
    _show(report, args)
    return LEFT_OUT if report.unreadable else 0


@_importing()
def _take_over(args: argparse.Namespace) -> int:
    from clipbert_mm.apis.video_search import open_predictor
    from clipbert_mm.index.take_over import read_old_manifest, take_over

    folder = _folder(args)
    source = args.model or checked_source(folder, read_old_manifest(folder)["source"])
    predictor = open_predictor(source, args.device, args.weights, precision=args.precision)
    count = take_over(folder, predictor)
    _print({"taken_over": count} if args.json else f"took over {count} videos")
    return 0


def _search(args: argparse.Namespace) -> int:
    search = _open(args)
    result = search.search(
        args.text,
        args.topk,
        shortlist=args.shortlist,
        vector_pooling=args.vector_pooling,
        vectors_only=args.vectors_only,
    )
    _show(result, args)
    if args.explain:
        search.explain(args.text, result.hits[0].path, args.explain)
        _note(f"drew {args.explain}")
    return 0


def _rank(args: argparse.Namespace) -> int:
    with _importing():
        from clipbert_mm.apis.video_search import open_predictor, rank

        predictor = open_predictor(
            _model(args), args.device, args.weights, precision=args.precision, pooling=args.pooling
        )
    _show(rank(predictor, args.video, args.text), args)
    return 0


def _ask(args: argparse.Namespace) -> int:
    with _importing():
        from clipbert_mm.apis.video_qa import VideoQA

        qa = VideoQA(
            args.model,
            args.device,
            weights=args.weights,
            precision=args.precision,
            pooling=args.pooling,
            answers=args.answers,
        )
    _show(qa.ask(args.video, args.question, args.option, args.topk), args)
    if args.explain:
        qa.explain(args.video, args.question, args.option, args.explain)
        _note(f"drew {args.explain}")
    return 0


def _serve(args: argparse.Namespace) -> int:
    try:
        from clipbert_mm.apis.page import serve

        if importlib.util.find_spec("gradio") is None:  # it is imported when the page is built
            raise ModuleNotFoundError(name="gradio")
    except ImportError as error:
        raise OptionError(
            f"The page needs Gradio, and {error.name} is not installed. Run pip install 'clipbert_mm[page]'."
        ) from error
    from clipbert_mm.apis.video_qa import VideoQA

    qa = None if args.qa is None else VideoQA(args.qa, args.device, precision=args.precision)
    search = _open(args)
    count = len(search.video_index.entries)
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
        from clipbert_mm.checkpoint import find_selected, read_metadata
        from clipbert_mm.registry import type_name

        metadata = read_metadata(find_selected(args.model))
        pipeline = next(filter(None, metadata.pipelines.values()), [])
        steps = {type_name(step): {**step, "type": type_name(step)} for step in pipeline}
        facts: dict[str, Any] = dict(
            model=args.model,
            task=metadata.task,
            version=metadata.version,
            answers=None if metadata.answers is None else len(metadata.answers),
            clips=steps.get("SampleClips"),
            size=steps.get("ResizePad", {}).get("size") or steps.get("ResizeTo"),
            text_length=steps.get("Tokenize", {}).get("max_length"),
        )
    else:
        from clipbert_mm.index import VideoIndex

        video_index = VideoIndex(_folder(args))
        if not video_index.exists:
            raise VideoIndexError(
                f"There is no index {video_index.folder}. Create one: clipbert index FOLDER --model CHECKPOINT."
            )
        states = video_index.states(list(video_index.entries))
        seconds = sum(entry.seconds or 0 for entry in video_index.entries.values())
        facts = dict(
            index=str(video_index.folder),
            **video_index.manifest,
            hours=round(seconds / 3600, 3),
            stale=[path for path, is_up_to_date in states.items() if not is_up_to_date],
            unreadable=[f"{path}: {each.reason}" for path, each in video_index.unreadable.items()],
            videos=list(video_index.entries),
        )
    if args.json:
        _print(facts)
        return 0
    for key, value in facts.items():
        if isinstance(value, list):
            value = "".join(f"\n  {each}" for each in value) or "none"
        _print(f"{key}: {value}")
    return 0


def _folder(args: argparse.Namespace) -> str:
    from clipbert_mm.index import default_folder

    return args.index or default_folder()


@_importing()
def _open(args: argparse.Namespace) -> "VideoSearch":
    """Open the model of the command line, or the one that made the index."""
    from clipbert_mm.apis.video_search import VideoSearch

    return VideoSearch(
        _model(args),
        args.device,
        index=_folder(args),
        weights=args.weights,
        precision=args.precision,
        pooling=getattr(args, "pooling", None),
    )


def _model(args: argparse.Namespace) -> str:
    """Return the model of the command line, or the one that made the index."""
    from clipbert_mm.index import VideoIndex

    if args.model is not None:
        return args.model
    folder = _folder(args)
    manifest = VideoIndex(folder).manifest
    if not manifest:
        first = {"search": "Index videos first: clipbert index FOLDER --model CHECKPOINT"}
        advice = first.get(args.command, "Give the model: --model CHECKPOINT")
        raise VideoIndexError(f"There is no index {folder}, which would name the model. {advice}.")
    return checked_source(folder, manifest["source"])


def checked_source(folder: str, source: str) -> str:
    """Return the model that made an index, if it can be opened without running code.

    Raises:
        VideoIndexError: If it cannot.
    """
    from clipbert_mm.checkpoint.public import is_public

    if source.endswith(".py"):
        raise VideoIndexError(
            f"The index {folder} was made with the config {quoted(source)}. A config is Python code and runs only on "
            "request: --model CONFIG --weights CHECKPOINT."
        )
    if not os.path.isfile(source) and not is_public(source):
        raise VideoIndexError(
            f"The index {folder} was made with the checkpoint {quoted(source)}, which does not exist. Give its path: "
            "--model CHECKPOINT."
        )
    return source


def _progress() -> "Progress":
    """Return a progress bar on the standard error stream."""
    from tqdm import tqdm

    bar = tqdm(unit="video", file=sys.stderr, disable=None)  # only on a terminal

    def show(done: int, total: int, path: str) -> None:
        bar.total, bar.n = total, done
        bar.set_postfix_str(os.path.basename(path), refresh=False)
        bar.refresh()
        if done == total:
            bar.close()

    return show


def _show(record: "Record", args: argparse.Namespace) -> None:
    _print(record.to_dict() if args.json else str(record))


def _print(value: Any) -> None:  # noqa: ANN401
    """Print a text, or a value as JSON; file names that are not UTF-8 with their bytes escaped."""
    text = encodable(value) if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    if not isinstance(value, str) and encodable(text) != text:
        text = json.dumps(value, indent=2)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _note(message: str) -> None:
    sys.stderr.write(f"{message}\n")


COMMANDS = {
    "index": (_index, "encode videos into an index, each video once"),
    "search": (_search, "find the videos of an index that match a text"),
    "rank": (_rank, "rank texts by how well they match a video"),
    "ask": (_ask, "ask a question about a video"),
    "serve": (_serve, "serve a web page to search, play and ask"),
    "info": (_info, "show the content of an index or a checkpoint"),
}
"""The function and the description of each sub-command."""


if __name__ == "__main__":
    main()
