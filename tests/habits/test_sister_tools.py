"""The analysis tools of MMPretrain and MMAction2 on files of ours."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hook_runs import written
from mmengine.config import Config
from sister_libraries import sister
from warm_python import run_code

from clipbert_mm.evaluation import DumpLabels

RUN = """
import os, runpy, sys
os.environ.update(MPLBACKEND="Agg", TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
for number, (script, *arguments) in enumerate(commands):
    print(f"<{number}>")
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
"""


def test_h21_the_sisters_tools_read_our_files(
    runner_config: Config, tmp_path: Path, tool: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
):
    runner_config.default_hooks.checkpoint.interval = 1
    runner_config.default_hooks.logger = dict(type="MainProcessLoggerHook", interval=2)
    runner_config.default_hooks.param_scheduler = dict(type="ParamSchedulerHook")
    runner_config.param_scheduler = [dict(type="WarmupLinearLR", convert_to_iter_based=True)]
    runner_config.visualizer.vis_backends = [dict(type="LocalVisBackend")]
    config, test = written(runner_config, tmp_path, "a"), tool("test.py").main
    tool("train.py").main([config])
    trained = str(Path(runner_config.work_dir) / "epoch_1.pth")
    (log,) = map(str, Path(runner_config.work_dir).glob("*/vis_data/scalars.json"))
    metrics = test([config, trained, "--out", str(tmp_path / "r.pkl"), "--work-dir", str(tmp_path / "test")])
    labels = DumpLabels(out_file_path=str(tmp_path / "labels.pkl"))
    scores = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -0.5, -1.0], [-2.0, -2.5, -0.1], [-0.1, -3.0, -2.0]])
    labels.process(
        None,
        [
            dict(
                sample_idx=i,
                path="a.mp4",
                broken=None,
                scores=scores[2 * i : 2 * i + 2],
                answer_labels=np.array([0, 1]),
            )
            for i in (0, 1)
        ],
    )
    labels.evaluate(2)
    schedule = ["train_cfg.type=mmengine.EpochBasedTrainLoop", "optim_wrapper.type=mmengine.OptimWrapper"]
    commands = [
        ["mmpretrain/analysis_tools/analyze_logs.py", "plot_curve", log, "--keys", "loss", "--out", "curve.png"],
        ["mmpretrain/analysis_tools/analyze_logs.py", "cal_train_time", log],
        ["mmpretrain/analysis_tools/eval_metric.py", "labels.pkl", "--metric", "type=Accuracy", "topk=1,2"],
        ["mmpretrain/analysis_tools/confusion_matrix.py", config, "labels.pkl", "--out", "matrix.pkl"],
        ["mmaction/analysis_tools/report_accuracy.py", "--preds", "labels.pkl", "--coefficients", "1"],
        ["mmaction/analysis_tools/eval_metric.py", config, "r.pkl"],
        ["mmaction/deployment/publish_model.py", trained, "published.pth"],
        ["mmpretrain/model_converters/publish_model.py", trained, "public.pth"],
        [
            "mmaction/visualizations/vis_scheduler.py",
            config,
            "-d",
            "24",
            "-s",
            "lr.png",
            "--not-show",
            "--cfg-options",
            *schedule,
        ],
    ]
    commands = [[sister(path), *arguments] for path, *arguments in commands]
    printed = run_code(f"import os\nos.chdir({str(tmp_path)!r})\n{RUN}", commands=commands)
    _, time, accuracy, _, report, retrieval, *_ = re.split(r"<\d>\n", printed)[1:]
    assert "average iter time:" in time
    # The best answers to the four questions are 0, 1, 2 and 0; correct are 0, 1, 0 and 1. The third is the second best.
    assert re.search(r"'accuracy/top1': 50\.0,", accuracy)
    assert re.search(r"'accuracy/top2': 75\.0\D", accuracy)
    assert "Top 1 Accuracy: 0.5000" in report
    assert all(f"'{name}': {value}" in retrieval for name, value in metrics.items() if np.isfinite(value)), retrieval
    assert {"curve.png", "lr.png", "matrix.pkl"} <= {path.name for path in tmp_path.iterdir()}
    assert np.array_equal(np.load(tmp_path / "matrix.pkl", allow_pickle=True), [[1, 0, 1], [1, 1, 0], [0, 0, 0]])
    for published in (*tmp_path.glob("published_*.pth"), *tmp_path.glob("public_*.pth")):
        content = torch.load(published, weights_only=False)
        assert "optimizer" not in content
        assert test([written(runner_config, tmp_path, published.stem[:8]), str(published)]) == metrics
