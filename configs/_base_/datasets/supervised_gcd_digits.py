# Stage one on digits in the generalised setting: half of the images of the known classes 5-9.
_base_ = './supervised_digits.py'

train_dataloader = dict(dataset=dict(labelled_fraction=0.5))
