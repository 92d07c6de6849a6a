# What follows OpenVideo and SampleClips in the pipelines of videos, for the configs of other_datasets/.
bert = "{{$CLIPBERT_BERT:bert-base-uncased}}"
frames_and_text = [
    dict(type="DecodeClips"),
    dict(type="ResizePad", size=448),
    dict(type="Tokenize", tokenizer=bert, max_length=40),
    dict(type="PackInputs"),
]
