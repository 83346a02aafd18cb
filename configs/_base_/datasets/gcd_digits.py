# Digits of scikit-learn in the generalised setting: known 5-9, half of their images labelled; all others unlabelled.
_base_ = './ncd_digits.py'

labelled_fraction = 0.5

train_dataloader = dict(dataset=dict(labelled_fraction=labelled_fraction))
val_dataloader = dict(
    dataset=dict(datasets=[
        dict(_base_.val_dataloader.dataset.datasets[0], labelled_fraction=labelled_fraction),
        _base_.val_dataloader.dataset.datasets[1]]))
test_dataloader = val_dataloader
