# Table 1 of the paper, row "L = 768": MSRVTT-QA, validation.
# The paper's numbers: accuracy 35.73.
#   bash tools/dist_train.sh configs/ablations/table1_l768_4xb16-1x1-10e_msrvtt-qa.py 4
_base_ = "../_base_/ablations/msrvtt_qa.py"
frames_and_text = [dict(type="DecodeClips"), dict(type="ResizePad", size=768), *_base_.tokens]
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), _base_.train_clips, *frames_and_text]))
val_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), _base_.val_clips, *frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), _base_.test_clips, *frames_and_text]))
