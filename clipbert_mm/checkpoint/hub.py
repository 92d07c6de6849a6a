"""Find files of a Hugging Face model, in a folder or by its name on the hub; code that comes with it is never run.

A file of the hub is downloaded once, to the cache of huggingface_hub, whose settings (HF_HOME, HF_HUB_OFFLINE, HF_TOKEN) hold.
"""

import os
import re
from collections.abc import Iterator

from clipbert_mm.errors import CheckpointError, printable, quoted

NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
"""Names on the hub, MODEL or OWNER/MODEL."""
COMMIT = re.compile(r"[0-9a-f]{40}")
VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
"""Files of which each tokenizer has one at least."""
TOKENIZER_FILES = (
    *VOCABULARIES,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
)
"""All files that a tokenizer may read; the model's config.json names it where its own does not."""


class _OutOfReachError(CheckpointError):
    """A file of the hub that is not in the cache, and that cannot be asked for."""


def find_file(path_or_name: str, *files: str, revision: str | None = None) -> str:
    """Return the path of the first of several files that a model has; out of reach of the hub, that the cache has.

    Args:
        path_or_name: A folder, or a name on the Hugging Face hub.
        files: File names, in order of preference.
        revision: Branch, tag or commit on the hub; None for its main branch.

    Raises:
        CheckpointError: If it has none of them, or see :func:`locate_file`.
    """
    from huggingface_hub import try_to_load_from_cache

    for i, file in enumerate(files):
        try:
            path = locate_file(path_or_name, file, revision=revision)
        except _OutOfReachError:  # asking again would take as long again
            cached = (try_to_load_from_cache(path_or_name, each, revision=revision) for each in files[i + 1 :])
            path = next((each for each in cached if isinstance(each, str)), None)
            if path is None:
                raise
        if path is not None:
            return path
    kind = "folder" if os.path.isdir(path_or_name) else "Hugging Face model"
    at = "" if revision is None else f" at the revision {printable(revision)}"
    raise CheckpointError(
        f"The {kind} {printable(path_or_name)}{at} has no {' or '.join(files)}. Take a complete copy."
    )


def locate_file(path_or_name: str, file: str, *, revision: str | None = None) -> str | None:
    """Return the path of a model's file, None if the model has no such file; arguments as of :func:`find_file`.

    With a commit as ``revision``, the hub is not asked for what the cache has, nor for what it once had not.

    Raises:
        CheckpointError: If there is no such folder or name, the revision does not exist, the model needs an agreement or a
            login, or the hub cannot be reached and the cache does not have the file.
    """
    if os.path.isdir(path_or_name):
        if revision is not None:
            raise CheckpointError(
                f"A revision goes with a name on the Hugging Face hub, and {printable(path_or_name)} is a folder; got the "
                f"revision {quoted(revision)}. Leave it out."
            )
        path = os.path.join(path_or_name, file)
        return path if os.path.isfile(path) else None
    if not NAME.fullmatch(path_or_name):
        raise CheckpointError(
            f"There is no folder {printable(path_or_name)}, and no name on the Hugging Face hub is like it."
        )
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cached = None
    if revision is not None and COMMIT.fullmatch(revision):
        cached = try_to_load_from_cache(path_or_name, file, revision=revision)
    if cached is _CACHED_NO_EXIST:
        return None
    try:
        return cached or hf_hub_download(path_or_name, file, revision=revision)
    # of the hub, of the network and of the disk, each by its own library
    except Exception as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise _explained(error, path_or_name, file, revision) from error


def tokenizer_folder(path_or_name: str, *, revision: str | None = None) -> str:
    """Return the folder of a model's tokenizer, which is downloaded if it is on the hub; arguments as of :func:`find_file`.

    Raises:
        CheckpointError: If there is no vocabulary, or see :func:`locate_file`.
    """
    vocabulary = find_file(path_or_name, *VOCABULARIES, revision=revision)
    commit = commit_of(vocabulary)
    if commit is not None:
        try:
            for file in TOKENIZER_FILES:
                locate_file(path_or_name, file, revision=commit)
        except _OutOfReachError:  # what the cache does not have, the model need not have
            pass
    return os.path.dirname(vocabulary)


def commit_of(path: str) -> str | None:
    """Return the commit of a file that :func:`find_file` found on the hub; None for one of a folder.

    >>> commit_of(f"hub/models--owner--name/snapshots/{'0' * 40}/config.json") == "0" * 40
    True
    """
    folder, commit = os.path.split(os.path.dirname(os.path.abspath(path)))
    return commit if os.path.basename(folder) == "snapshots" and COMMIT.fullmatch(commit) else None


def _explained(error: Exception, name: str, file: str, revision: str | None) -> CheckpointError:
    """Return an error that says why a file of the hub cannot be had, and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    causes = list(_chain(error))
    what = f"{file} of {name}" + ("" if revision is None else f" at the revision {printable(revision)}")
    reason = quoted((str(causes[-1]).strip() or type(causes[-1]).__name__).splitlines()[0].rstrip("."))
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        return _OutOfReachError(
            f"{what} is not in the cache of Hugging Face, and offline mode forbids to download it. Unset HF_HUB_OFFLINE, or "
            "give a folder that holds the model."
        )
    if isinstance(error, LocalEntryNotFoundError):
        return _OutOfReachError(
            f"{what} is not in the cache of Hugging Face, and the hub cannot be reached: {reason}. Connect to the network, or "
            "give a folder that holds the model."
        )
    if isinstance(error, GatedRepoError):
        return CheckpointError(
            f"The Hugging Face model {name} is gated: accept its terms on https://huggingface.co/{name}, log in by "
            "`hf auth login`, and try again."
        )
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return CheckpointError(
            f"There is no folder {name}, and no such name on Hugging Face that you may read. Check the name; for a private "
            "model, log in by `hf auth login`."
        )
    if isinstance(error, RevisionNotFoundError):
        return CheckpointError(
            f"The Hugging Face model {name} has no revision {quoted(revision)}. Give a branch, a tag or a whole commit."
        )
    return CheckpointError(
        f"{what} cannot be downloaded from Hugging Face: {reason}. Try again, or give a folder that holds the model."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__
