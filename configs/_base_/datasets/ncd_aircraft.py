# FGVC-Aircraft with the classes of the Semantic Shift Benchmark: 50 known, 50 novel variants; views as for CUB.
# data/fgvc-aircraft-2013b holds data/images/ and data/images_variant_*.txt; training uses the split 'trainval'.
_base_ = './ncd_cub.py'

data = dict(type='FGVCAircraft', data_root='data/fgvc-aircraft-2013b')
known = '{{ fileDirname }}/splits/fgvc_aircraft_ssb.json'
train_split, test_split = _base_.val_dataloader.dataset.datasets

train_dataloader = dict(dataset=dict(known=known, dataset=dict(split='trainval', **data)))
val_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(train_split, known=known, dataset=dict(train_split.dataset, split='trainval', **data)),
            dict(test_split, known=known, dataset=dict(test_split.dataset, **data))]))
test_dataloader = val_dataloader

val_evaluator = dict(num_known=50)
test_evaluator = val_evaluator
