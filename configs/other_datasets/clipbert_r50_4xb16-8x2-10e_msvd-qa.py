# MSVD-QA: open-ended questions, 1,000 answers.
#   bash tools/dist_train.sh configs/other_datasets/clipbert_r50_4xb16-8x2-10e_msvd-qa.py 4
_base_ = "../_base_/other_datasets/open_ended_qa.py"
msvd = "{{$CLIPBERT_MSVD:data/msvd}}"
answers = "annotations/msvd-qa_answers.json"
train_dataloader = dict(dataset=dict(data_root=msvd, ann_file="annotations/msvd-qa_train.jsonl", answer_file=answers))
val_dataloader = dict(dataset=dict(data_root=msvd, ann_file="annotations/msvd-qa_val.jsonl", answer_file=answers))
test_dataloader = dict(dataset=dict(data_root=msvd, ann_file="annotations/msvd-qa_test.jsonl", answer_file=answers))
