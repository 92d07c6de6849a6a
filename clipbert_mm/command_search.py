"""What ``clipbert search|similar|duplicates|calibrate`` do."""

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from clipbert_mm.command_steps import importing, index_folder, note, open_search, print_value, show
from clipbert_mm.errors import OptionError, encodable

if TYPE_CHECKING:  # these imports take seconds, which `clipbert --help` does without
    from clipbert_mm.apis.search_results import Hit, SearchResult
    from clipbert_mm.index import Filter

COLUMNS = ("query", "rank", "path", "score", "probability", "start", "end", "stage")
"""Columns of CSV; the times are those of the best clip."""
MAX_QUERIES_BYTES = 2**26
"""Bytes of the largest file of texts."""


def run_search(args: argparse.Namespace) -> int:
    """Search for one text, or for those of a file."""
    _check_format(args)
    if args.explain and args.queries is not None:
        raise OptionError("--explain goes with one text, and --queries has many. Search for the text alone.")
    if args.sheet and args.queries is not None:
        raise OptionError("--sheet goes with one text, and --queries has many. Search for the text alone.")
    _check_sheet(args)
    texts = [args.text] if args.queries is None else read_queries(args.queries)
    if args.server is not None:
        _ask_server(texts, args)
        return 0
    search = open_search(args)
    if args.approximate:
        search.video_index.use_approximate()
    results = search.search_many(
        texts,
        args.topk,
        shortlist=args.shortlist,
        where=filter_of(args),
        vector_pooling=args.vector_pooling,
        vectors_only=args.vectors_only,
        threshold=args.threshold,
        clips=args.clips,
    )
    print_results(results, args)
    folders = search.video_index.folders
    _draw_sheet(results[0].text, results[0].hits, results[0].score_kind, folders, args)
    if args.explain:
        if not results[0].hits:
            raise OptionError("There is no hit to explain.")
        search.explain(args.text, results[0].hits[0].path, args.explain)
        note(f"drew {args.explain}")
    return 0


def _ask_server(texts: list[str], args: argparse.Namespace) -> None:
    """Search on a server, which takes none of the imports of a search, and print what it answers."""
    from clipbert_mm.command_server import format_result, print_json, result_rows, search_server

    results = search_server(texts, args)
    if args.csv:
        _print_csv(row for result in results for row in result_rows(result))
    elif args.json:
        print_json(results, lines=args.queries is not None)
    else:
        print_value("\n\n".join(map(format_result, results)))


def run_similar(args: argparse.Namespace) -> int:
    """Find videos that are similar to another one; the model is opened only if that one is not in the index."""
    _check_format(args)
    _check_sheet(args)
    with importing():
        from clipbert_mm.apis.similar import in_index, similar
        from clipbert_mm.index.engines import open_index

        index = open_index(index_folder(args))
    predictor = None if in_index(index, args.video) else open_search(args).predictor
    result = similar(index, args.video, args.topk, where=filter_of(args), predictor=predictor)
    if args.csv:
        _print_csv([result.path, *row] for row in hit_rows(result.hits))
    else:
        show(result, args)
    _draw_sheet(f"similar to {os.path.basename(result.path)}", result.hits, "cosine", index.folders, args)
    return 0


def _check_sheet(args: argparse.Namespace) -> None:
    """Check the file of a contact sheet before anything is searched.

    Raises:
        OptionError: If its suffix names no format that is written.
    """
    if args.sheet and getattr(args, "server", None) is None:
        from clipbert_mm.apis.contact_sheet import check_suffix

        check_suffix(args.sheet)


def _draw_sheet(
    title: str, hits: "Sequence[Hit]", score_kind: str, folders: Sequence[str], args: argparse.Namespace
) -> None:
    """Draw a contact sheet of the hits, if that is asked for."""
    if args.sheet:
        from clipbert_mm.apis.contact_sheet import draw_hits

        draw_hits(title, hits, score_kind, args.sheet, folders)
        note(f"drew {args.sheet}")


def run_duplicates(args: argparse.Namespace) -> int:
    """Find copies and near duplicates in the index, which takes no model."""
    with importing():
        from clipbert_mm.apis.duplicates import THRESHOLD, duplicates
        from clipbert_mm.index.engines import open_index

        index = open_index(index_folder(args))
    threshold = THRESHOLD if args.threshold is None else args.threshold
    show(duplicates(index, threshold, where=filter_of(args)), args)
    return 0


def run_calibrate(args: argparse.Namespace) -> int:
    """Calibrate the scores of an index."""
    from clipbert_mm.apis.calibration import read_pairs

    pairs = read_pairs(args.pairs)
    show(open_search(args).calibrate(pairs), args)
    return 0


def _check_format(args: argparse.Namespace) -> None:
    """Check that one format is asked for.

    Raises:
        OptionError: If there are two.
    """
    if args.json and args.csv:
        raise OptionError("Give --json or --csv, not both.")


def read_queries(file: str) -> list[str]:
    """Read texts, one a line; empty lines are left out.

    Args:
        file: The file; "-" for the standard input.

    Raises:
        OptionError: If it cannot be read, is not UTF-8, or has no text.
    """
    try:
        with open(0 if file == "-" else file, "rb", closefd=file != "-") as stream:
            content = stream.read(MAX_QUERIES_BYTES + 1)
    except OSError as error:
        raise OptionError(f"Cannot read --queries {encodable(file)}: {error.strerror}.") from error
    if len(content) > MAX_QUERIES_BYTES:
        raise OptionError(
            f"--queries {encodable(file)}: expected at most {MAX_QUERIES_BYTES / 2**20:.0f} MiB, got more."
        )
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise OptionError(f"--queries {encodable(file)}: expected text in UTF-8, one a line, got {error}.") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise OptionError(f"--queries {encodable(file)} has no text. Write one text a line.")
    return texts


def filter_of(args: argparse.Namespace) -> "Filter | None":
    """Return the conditions that the options name; None for none.

    Raises:
        OptionError: If no video can meet them.
    """
    from clipbert_mm.index import Filter

    conditions = Filter(
        None if args.folders is None else tuple(args.folders),
        args.min_seconds,
        args.max_seconds,
        args.written_after,
        args.written_before,
    )
    return None if conditions == Filter() else conditions


def print_results(results: "Sequence[SearchResult]", args: argparse.Namespace) -> None:
    """Print results as the options say: CSV, JSON (of many texts a line each), or one hit a line."""
    if args.csv:
        _print_csv([result.text, *row] for result in results for row in hit_rows(result.hits))
    elif args.queries is None:
        show(results[0], args)
    elif args.json:
        from clipbert_mm.json_text import json_line

        for result in results:
            sys.stdout.write(json_line(result.to_dict()))
    else:
        print_value("\n\n".join(str(result) for result in results))
    sys.stdout.flush()


def hit_rows(hits: "Sequence[Hit]") -> Iterator[list[Any]]:
    """Yield the rank of each hit, its path, score and probability, the times of its best clip, and what ranked it."""
    for rank, hit in enumerate(hits, start=1):
        times = ("", "") if hit.moment is None else (hit.moment.start, hit.moment.end)
        yield [rank, hit.path, hit.score, hit.probability, *times, hit.stage]


def _print_csv(rows: Iterable[Sequence[Any]]) -> None:
    output = io.StringIO()
    csv.writer(output, lineterminator="\n").writerows([COLUMNS, *rows])
    sys.stdout.write(encodable(output.getvalue()))
    sys.stdout.flush()
