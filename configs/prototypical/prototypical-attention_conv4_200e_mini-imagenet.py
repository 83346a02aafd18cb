"""Attention transfer (ICLR 2017, https://arxiv.org/abs/1612.03928): a prototypical network learns from its equal, miniImageNet.

    mmkd train configs/prototypical/prototypical-attention_conv4_200e_mini-imagenet.py --with-teacher

Cost: not measured; as the teacher, and one forward pass of it per step.
Result: not run here; the RKD paper has 34.7 ± 0.7 (5-way 1-shot) and 46.2 ± 0.7 (5-shot), from memory.
"""

_base_ = '../_base_/teachers/prototypical_mini-imagenet.py'

# On the last map, 10 x 10, before pooling.
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        attention=dict(tap='backbone', loss=dict(type='mmkd_ext.AttentionTransferLoss', loss_weight=10.0))))]
