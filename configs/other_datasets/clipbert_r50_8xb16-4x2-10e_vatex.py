# VATEX text-to-video retrieval in English: 1,500 test videos of ten captions each, half of the validation videos as in HGR.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_8xb16-4x2-10e_vatex.py 8
_base_ = "../_base_/other_datasets/video_retrieval.py"
vatex = "{{$CLIPBERT_VATEX:data/vatex}}"
train_dataloader = dict(dataset=dict(data_root=vatex, ann_file="annotations/train.jsonl"))
val_dataloader = dict(dataset=dict(data_root=vatex, ann_file="annotations/val.jsonl", indices=200))
test_dataloader = dict(dataset=dict(data_root=vatex, ann_file="annotations/test.jsonl"))
