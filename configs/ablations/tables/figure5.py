# Figure 5 of the paper: memory and time of training against clips N_train and frames T, with the retrieval of the rows of
# Tables 2 and 3. The paper measured on one V100 with 32 GB.
#   python tools/analysis_tools/ablation.py figure5 --gpus-per-run 8
#   python tools/analysis_tools/ablation.py figure5 --conclusions    # memory and time alone, which need no weights
_base_ = "./_msrvtt.py"
title = "Figure 5: memory and time of training"
by_clips = {1: "table3_n1", 2: "table3_lse-n2", 16: "table3_lse-n16"}
by_frames = {1: "table2_t1"} | {number: f"table2_mean-t{number}" for number in (2, 4, 8, 16)}
rows = {
    f"{axis}-{number}": dict(label={"axis": axis, "number": number}, paper=row, tasks=dict(qa=None))
    for axis, own in dict(clips=by_clips, frames=by_frames).items()
    for number, row in own.items()
}
benchmark = dict(
    config="configs/ablations/table1_l448_8xb16-1x1-20e_msrvtt-retrieval.py",
    memory=["--batch", 8, "--memory-limit", "32GiB"],
    step=["--batch", 8],
    conclusions=[
        dict(number="iv", statement="4 clips need less memory and time than 16", axis="clips", less=4, more=16),
    ],
)
