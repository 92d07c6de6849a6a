"""The command: clipbert index|search|similar|duplicates|calibrate|rank|ask|serve|info; the same as python -m clipbert_mm."""

import argparse
import importlib.util
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from clipbert_mm.command_options import add_arguments
from clipbert_mm.command_search import run_calibrate, run_duplicates, run_search, run_similar
from clipbert_mm.command_steps import (
    checked_source,
    importing,
    index_folder,
    model_of,
    note,
    open_search,
    print_value,
    show,
)
from clipbert_mm.errors import OptionError, ServerError, VideoIndexError

if TYPE_CHECKING:  # these imports take seconds, which `clipbert --help` does without
    from clipbert_mm.apis.index_run import Progress

FAILED, LEFT_OUT = 1, 3
"""Exit codes of an error, of a run that left unreadable videos out, and of Ctrl-C; 2 is a wrong command line."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="clipbert",
        description="Search your own videos by text, rank texts for a video, ask questions about it.",
        epilog="Exit codes: 0 done; 1 an error; 2 a wrong command line; 3 done, but some videos could not be read; "
        "75 indexing was stopped by SIGTERM or SIGUSR1; 130 Ctrl-C.",
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
        message: str | None = f"error: {error}"
        if not isinstance(error, ServerError):  # which is told without the imports
            from clipbert_mm.engine.run_tool import format_error

            message = format_error(error)
        if message is None:
            raise
        sys.stderr.write(f"{message}\n")
        sys.exit(FAILED)


def _index(args: argparse.Namespace) -> int:
    if args.take_over:
        return _take_over(args)
    if args.approximate:
        return _build_approximate(args)
    if args.compact:
        return _compact(args)
    if not args.paths:
        raise OptionError("clipbert index expects videos or folders of videos: clipbert index FOLDER.")
    if args.remove:
        from clipbert_mm.apis.video_search import remove
        from clipbert_mm.index.engines import open_index

        removed = remove(open_index(index_folder(args)), args.paths)
        print_value({"removed": removed} if args.json else f"removed {len(removed)}")
        return 0
    together = args.launcher != "none"
    if together:
        from clipbert_mm.engine.team import join_team

        join_team(args.launcher)
    is_first = int(os.environ.get("RANK", 0)) == 0 or not together
    search = open_search(args)
    report = search.index(
        args.paths,
        workers=args.workers,
        batch_size=args.batch_size,
        timeout=args.timeout,
        prune=args.prune,
        retry=args.retry,
        keep_tokens=args.keep_tokens,
        together=together,
        progress=_progress(args) if is_first else None,
    )
    if is_first:
        show(report, args)
    return LEFT_OUT if report.unreadable and is_first else 0


def _compact(args: argparse.Namespace) -> int:
    from clipbert_mm.index.engines import open_index

    video_index = open_index(index_folder(args))
    if not video_index.exists:
        raise VideoIndexError(f"There is no index {video_index.name}.")
    with video_index.locked():
        video_index.compact(always=True)
    return 0


@importing()
def _take_over(args: argparse.Namespace) -> int:
    from clipbert_mm.apis.video_search import open_predictor
    from clipbert_mm.index.take_over import read_old_manifest, take_over

    folder = index_folder(args)
    source = args.model or checked_source(folder, read_old_manifest(folder)["source"])
    predictor = open_predictor(source, args.device, args.weights, precision=args.precision)
    count = take_over(folder, predictor)
    print_value({"taken_over": count} if args.json else f"took over {count} videos")
    return 0


def _build_approximate(args: argparse.Namespace) -> int:
    from clipbert_mm.index.engines import open_index

    facts = open_index(index_folder(args)).build_approximate(args.recall)
    shown = f"{facts.rows:,} vectors; a search found {facts.recall:.1%} of the nearest videos of generated queries"
    print_value(asdict(facts) if args.json else shown)
    return 0


def _rank(args: argparse.Namespace) -> int:
    with importing():
        from clipbert_mm.apis.ranking import rank
        from clipbert_mm.apis.video_search import open_predictor

        predictor = open_predictor(
            model_of(args), args.device, args.weights, precision=args.precision, pooling=args.pooling
        )
    show(rank(predictor, args.video, args.text), args)
    return 0


def _ask(args: argparse.Namespace) -> int:
    with importing():
        from clipbert_mm.apis.video_qa import VideoQA

        qa = VideoQA(
            args.model,
            args.device,
            weights=args.weights,
            precision=args.precision,
            pooling=args.pooling,
            answers=args.answers,
        )
    show(qa.ask(args.video, args.question, args.option, args.topk), args)
    if args.explain:
        qa.explain(args.video, args.question, args.option, args.explain)
        note(f"drew {args.explain}")
    return 0


def _serve(args: argparse.Namespace) -> int:
    try:
        from clipbert_mm.apis.page import serve

        if not args.api_only and importlib.util.find_spec("gradio") is None:  # it is imported when the page is built
            raise ModuleNotFoundError(name="gradio")
    except ImportError as error:
        raise OptionError(
            f"{'The server needs FastAPI and uvicorn' if args.api_only else 'The page needs Gradio'}, and {error.name} is not "
            "installed. Run pip install 'clipbert_mm[page]'."
        ) from error
    if args.api_only and args.qa is not None:
        raise OptionError("--qa goes with the page: the routes for scripts answer no questions. Leave --api-only out.")
    from clipbert_mm.apis.video_qa import VideoQA

    qa = None if args.qa is None else VideoQA(args.qa, args.device, precision=args.precision)
    search = open_search(args)
    count = len(search.video_index.entries)
    serve(
        search,
        qa,
        host=args.host,
        port=args.port,
        allow_hosts=args.allow_host,
        max_upload=args.max_upload * 1_000_000,
        max_uploads=args.max_uploads,
        paths=args.paths,
        api_only=args.api_only,
        ready=lambda address: note(f"{count} videos at {address}  (Ctrl-C ends it)"),
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
        from clipbert_mm.index.engines import open_index

        video_index = open_index(index_folder(args))
        if not video_index.exists:
            raise VideoIndexError(
                f"There is no index {video_index.name}. Create one: clipbert index FOLDER --model CHECKPOINT."
            )
        if args.unreadable:
            reasons = {path: each.reason for path, each in video_index.unreadable.items()}
            print_value(reasons if args.json else "\n".join(f"{path}\t{reason}" for path, reason in reasons.items()))
            return 0
        states = video_index.states(list(video_index.entries))
        seconds = sum(entry.seconds or 0 for entry in video_index.entries.values())
        facts = dict(
            index=video_index.name,
            **video_index.manifest,
            hours=round(seconds / 3600, 3),
            stale=[path for path, is_up_to_date in states.items() if not is_up_to_date],
            unreadable=[f"{path}: {each.reason}" for path, each in video_index.unreadable.items()],
            videos=list(video_index.entries),
        )
    if args.json:
        print_value(facts)
        return 0
    for key, value in facts.items():
        if isinstance(value, list):
            value = "".join(f"\n  {each}" for each in value) or "none"
        print_value(f"{key}: {value}")
    return 0


def _progress(args: argparse.Namespace) -> "Progress | None":
    """Return a progress bar on the standard error stream; without a terminal, a line of the log a minute goes there."""
    if not sys.stderr.isatty():
        from clipbert_mm.log import show_on_stderr

        show_on_stderr()
    if args.json or not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    bar = tqdm(unit="video", file=sys.stderr)

    def show_progress(done: int, total: int, path: str) -> None:
        bar.total, bar.n = total, done
        bar.set_postfix_str(os.path.basename(path), refresh=False)
        bar.refresh()
        if done == total:
            bar.close()

    return show_progress


COMMANDS = {
    "index": (_index, "encode videos into an index, each video once"),
    "search": (run_search, "find the videos of an index that match a text"),
    "similar": (run_similar, "find the videos of an index that are similar to a video or an image"),
    "duplicates": (run_duplicates, "find copies and near duplicates among the videos of an index"),
    "calibrate": (run_calibrate, "fit the probabilities of an index on labelled pairs of text and video"),
    "rank": (_rank, "rank texts by how well they match a video"),
    "ask": (_ask, "ask a question about a video"),
    "serve": (_serve, "serve a web page to search, play and ask"),
    "info": (_info, "show the content of an index or a checkpoint"),
}
"""The function and the description of each sub-command."""


if __name__ == "__main__":
    main()
