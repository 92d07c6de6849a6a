# Table 1 of the paper, row "L = 1000": MSRVTT retrieval, local validation.
# The paper's numbers: R1 10.0, R5 28.4, R10 39.4, MdR 18.
#   bash tools/dist_train.sh configs/ablations/table1_l1000_8xb16-1x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
frames_and_text = [dict(type="DecodeClips"), dict(type="ResizePad", size=1000), *_base_.tokens]
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), _base_.train_clips, *frames_and_text]))
val_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), _base_.val_clips, *frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), _base_.test_clips, *frames_and_text]))
