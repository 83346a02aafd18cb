# Stage one on Stanford Cars: images of the 98 known classes.
_base_ = './ncd_cars.py'

test_split = _base_.val_dataloader.dataset.datasets[1]

train_dataloader = dict(dataset=dict(subset='labelled'))
val_dataloader = dict(dataset=dict(_delete_=True, **dict(test_split, subset='labelled')))
test_dataloader = val_dataloader

val_evaluator = dict(_delete_=True, type='Accuracy')
test_evaluator = val_evaluator
