# Table 1 of the paper, row "L = 448": MSRVTT retrieval, local validation.
# The paper's numbers: R1 10.2, R5 28.6, R10 40.5, MdR 17.
#   bash tools/dist_train.sh configs/ablations/table1_l448_8xb16-1x1-20e_msrvtt-retrieval.py 8
_base_ = "../_base_/ablations/msrvtt_retrieval.py"
frames_and_text = [dict(type="DecodeClips"), dict(type="ResizePad", size=448), *_base_.tokens]
train_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), _base_.train_clips, *frames_and_text]))
test_dataloader = dict(dataset=dict(pipeline=[dict(type="OpenVideo"), _base_.test_clips, *frames_and_text]))
