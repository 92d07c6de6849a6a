# COCO image retrieval, Karpathy's split: 5,000 test images of five captions each.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_8xb32-10e_coco.py 8
_base_ = "../_base_/other_datasets/image_retrieval.py"
coco = "{{$CLIPBERT_COCO:data/coco}}"
train_dataloader = dict(dataset=dict(data_root=coco, ann_file="annotations/retrieval_train.jsonl"))
val_dataloader = dict(dataset=dict(data_root=coco, ann_file="annotations/retrieval_val.jsonl", indices=250))
test_dataloader = dict(dataset=dict(data_root=coco, ann_file="annotations/retrieval_test.jsonl"))
