"""Attention transfer (ICLR 2017, https://arxiv.org/abs/1612.03928): a prototypical network learns from its equal, Omniglot.

    mmkd train configs/prototypical/prototypical-attention_conv4_60e_omniglot.py --with-teacher

Cost: not measured; as RKD.
Result: not run here.
"""

_base_ = '../_base_/teachers/prototypical_omniglot.py'

# On the last map, 3 x 3: the embedding has one position, and so nothing to attend to.
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(_base_.custom_hooks[-1], terms=dict(
        attention=dict(tap='backbone', loss=dict(type='mmkd_ext.AttentionTransferLoss', loss_weight=10.0))))]
