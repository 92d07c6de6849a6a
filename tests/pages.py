"""A page on three small videos with models that know nothing, for tests of what visitors may do."""

import contextlib
import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import uvicorn
from mmengine.registry import DefaultScope
from ports import free_port
from torch import Tensor, nn
from video_files import write_file

from clipbert_mm.apis import VideoQA, VideoSearch
from clipbert_mm.apis.page import build_app
from clipbert_mm.datasets import train_vocabulary
from clipbert_mm.registry import MODELS

CAPTIONS = [f"a {color} {shape}" for color in ("red", "blue", "green") for shape in ("circle", "square", "triangle")]
ANSWERS = {"red": 0, "blue": 1, "green": 2}
CONFIG = """
model = {model}
test_dataloader = dict(dataset=dict(type="RetrievalDataset", ann_file="none.jsonl", answer_file={answers!r}, pipeline=[
    dict(type="OpenVideo"), dict(type="SampleClips", num_frames=2, num_clips=2, mode="uniform"), dict(type="DecodeClips"),
    dict(type="ResizePad", size=32), dict(type="Tokenize", tokenizer={tokenizer!r}, max_length=20), dict(type="PackInputs")]))
"""


@MODELS.register_module(force=True)
class PageBackbone(nn.Module):
    """One convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, kernel_size=4, stride=4)

    def forward(self, frames: Tensor) -> tuple[Tensor]:
        return (torch.relu(self.conv(frames)),)


def write_page_world(folder: Path) -> None:
    """Write models for searching and for questions, and three videos in ``videos``, one of which browsers do not play."""
    (folder / "videos").mkdir(parents=True)
    for i, ending in enumerate(("mp4", "mp4", "avi")):
        write_file(folder / "videos" / f"{i}.{ending}", "libx264" if ending == "mp4" else "mpeg4", count=25 + i)
    tokenizer = str(train_vocabulary(CAPTIONS, folder / "tokenizer", 60))
    (folder / "answers.json").write_text(json.dumps(ANSWERS))
    heads = dict(
        search=dict(type="MatchingHead", in_channels=16, hidden_channels=16, dropout=0.0),
        qa=dict(type="OpenEndedHead", in_channels=16, num_answers=len(ANSWERS), hidden_channels=None),
    )
    for name, head in heads.items():
        model = dict(
            type="ClipBert",
            data_preprocessor=dict(type="VideoTextPreprocessor", mean=[120.0] * 3, std=[60.0] * 3, vocab_size=60),
            backbone=dict(type="PageBackbone"),
            projection=dict(type="GridProjection", in_channels=8, out_channels=16),
            temporal_fusion=dict(type="MeanFusion"),
            encoder=dict(
                type="JointEncoder",
                vocab_size=60,
                hidden_size=16,
                num_layers=1,
                num_heads=2,
                intermediate_size=16,
                max_text_length=20,
                dropout=0.0,
                grid_size=8,
                initializer_range=0.2,
            ),
            head=head,
            aggregator=dict(type="LogSumExpAggregator"),
        )
        answers = str(folder / "answers.json") if name == "qa" else ""
        (folder / f"{name}.py").write_text(CONFIG.format(model=model, answers=answers, tokenizer=tokenizer))
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("clipbert_mm"):
            torch.save(dict(state_dict=MODELS.build(model).state_dict(), meta={}), folder / f"{name}.pth")


def open_page_world(folder: Path, gallery: Path) -> tuple[VideoSearch, VideoQA]:
    """Open both models; the videos are indexed into a gallery."""
    search = VideoSearch(folder / "search.py", "cpu", weights=folder / "search.pth", index=gallery)
    search.index(folder / "videos", workers=0)
    return search, VideoQA(folder / "qa.py", "cpu", weights=folder / "qa.pth")


class Page:
    """A page that is served, and a visitor of it.

    Args:
        address: Where it is served, as host and port.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def request(
        self, path: str, body: bytes | None = None, *, method: str | None = None, **headers: str
    ) -> tuple[int, str]:
        """Ask for a path as it is written; returns the status and the answer."""
        status, answer, _ = self.request_bytes(path, body, method=method, **headers)
        return status, answer.decode(errors="replace")

    def request_bytes(
        self, path: str, body: bytes | None = None, *, method: str | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host="Host" in headers)
            if body is not None and "Content_Length" not in headers:
                connection.putheader("Content-Length", str(len(body)))
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it was refused before all of it came
                if body is not None:
                    connection.send(body)
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())

    def event(self, number: int, data: list[Any], session: str = "visitor", **fields: Any) -> tuple[int, str]:
        """Send an event as the page does, and wait for what it says; returns the status of the sending, and the answer."""
        body = json.dumps(dict(fn_index=number, data=data, session_hash=session) | fields).encode()
        status, answer = self.request("/gradio_api/queue/join", body, Content_Type="application/json")
        return (status, answer) if status != 200 else self.request(f"/gradio_api/queue/data?session_hash={session}")

    def numbers(self) -> dict[str, int]:
        """The number of each event, by the label of what it fills."""
        config = json.loads(self.request("/config")[1])
        parts = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
        return {parts[event["outputs"][0]]: event["id"] for event in reversed(config["dependencies"])}


@contextlib.contextmanager
def running(app: Any) -> Iterator[str]:
    """Serve an application in a thread of this process; where, as host:port."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=10)


@contextlib.contextmanager
def served(search: VideoSearch, qa: VideoQA | None = None, **options: Any) -> Iterator[Page]:
    """Serve a page in a thread of this process."""
    with running(build_app(search, qa, **options)) as address:
        yield Page(address)


def serve_world(folder: str, gallery: str, visitor: Connection) -> None:
    """Serve a world's page, from the folder of its gallery, until the visitor ends; tells where it is and what there is."""
    os.chdir(gallery)
    search, qa = open_page_world(Path(folder), Path(gallery))
    with served(search, qa, max_upload=300_000, max_uploads=50) as page:
        keys = [entry.key for entry in search.video_index.entries.values()]
        visitor.send(dict(port=int(page.address.partition(":")[2]), numbers=page.numbers(), keys=keys))
        visitor.poll(None)
    os._exit(0)
