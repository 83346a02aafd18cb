# A student for CIFAR on a CPU: three convolutions of 8, 16 and 32 channels. Teachers are wider.
_base_ = './convnet_digits.py'

model = dict(backbone=dict(in_channels=3, channels=(8, 16, 32)), head=dict(in_channels=32, num_classes=20))
