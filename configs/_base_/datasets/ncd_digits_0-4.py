# Digits of scikit-learn, known 0-4, novel 5-9.
_base_ = './ncd_digits.py'

known = 5

train_dataloader = dict(dataset=dict(known=known))
val_dataloader = dict(
    dataset=dict(datasets=[dict(split, known=known) for split in _base_.val_dataloader.dataset.datasets]))
test_dataloader = val_dataloader
