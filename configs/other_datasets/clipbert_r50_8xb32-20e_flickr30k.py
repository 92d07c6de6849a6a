# Flickr30k image retrieval, Karpathy's split: 1,000 test images of five captions each.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_8xb32-20e_flickr30k.py 8
_base_ = "../_base_/other_datasets/image_retrieval.py"
flickr30k = "{{$CLIPBERT_FLICKR30K:data/flickr30k}}"
train_dataloader = dict(dataset=dict(data_root=flickr30k, ann_file="annotations/retrieval_train.jsonl"))
val_dataloader = dict(dataset=dict(data_root=flickr30k, ann_file="annotations/retrieval_val.jsonl", indices=150))
test_dataloader = dict(dataset=dict(data_root=flickr30k, ann_file="annotations/retrieval_test.jsonl"))
train_cfg = dict(max_epochs=20)
