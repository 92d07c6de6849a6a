# MSVD text-to-video retrieval: 670 test videos of about 41 captions each.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_8xb16-4x2-10e_msvd.py 8
_base_ = "../_base_/other_datasets/video_retrieval.py"
msvd = "{{$CLIPBERT_MSVD:data/msvd}}"
train_dataloader = dict(dataset=dict(data_root=msvd, ann_file="annotations/msvd_train.jsonl"))
val_dataloader = dict(dataset=dict(data_root=msvd, ann_file="annotations/msvd_val.jsonl", indices=50))
test_dataloader = dict(dataset=dict(data_root=msvd, ann_file="annotations/msvd_test.jsonl"))
