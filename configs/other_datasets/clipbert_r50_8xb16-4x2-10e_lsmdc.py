# LSMDC text-to-video retrieval: 1,000 test clips of movies and their sentences.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_8xb16-4x2-10e_lsmdc.py 8
_base_ = "../_base_/other_datasets/video_retrieval.py"
lsmdc = "{{$CLIPBERT_LSMDC:data/lsmdc}}"
train_dataloader = dict(dataset=dict(data_root=lsmdc, ann_file="annotations/train.jsonl"))
val_dataloader = dict(dataset=dict(data_root=lsmdc, ann_file="annotations/val.jsonl", indices=500))
test_dataloader = dict(dataset=dict(data_root=lsmdc, ann_file="annotations/test.jsonl"))
