# Something-Something v2 retrieval by the 174 templates, each true of 12 of the test videos: SSv2-Template of Lei et al.,
# Revealing Single Frame Bias, 2023.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_8xb16-4x2-10e_ssv2-template.py 8
_base_ = "../_base_/other_datasets/video_retrieval.py"
ssv2 = "{{$CLIPBERT_SSV2:data/ssv2}}"
train_dataloader = dict(dataset=dict(data_root=ssv2, ann_file="annotations/template_train.jsonl"))
val_dataloader = dict(dataset=dict(data_root=ssv2, ann_file="annotations/template_val.jsonl"))
test_dataloader = dict(dataset=dict(data_root=ssv2, ann_file="annotations/template_test.jsonl"))
# Equal texts are one query, for which all videos with this text are right.
val_evaluator = dict(multi_positive=True)
test_evaluator = dict(multi_positive=True)
