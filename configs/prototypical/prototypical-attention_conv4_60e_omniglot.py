"""Attention transfer (ICLR 2017, https://arxiv.org/abs/1612.03928): a prototypical network learns from its equal, Omniglot.

    python tools/train.py configs/prototypical/prototypical-attention_conv4_60e_omniglot.py --with-teacher

Cost: not measured; as RKD.
Result: not run here.
"""

_base_ = './prototypical_conv4_60e_omniglot.py'

# Not the teacher's: the student would begin with the same weights, and meet the same episodes.
randomness = dict(seed=1)

# On the last map, 3 x 3: the embedding has one position, and so nothing to attend to.
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/prototypical_conv4_60e_omniglot.py',
            checkpoint='work_dirs/prototypical_conv4_60e_omniglot/epoch_60.pth'),
        terms=dict(attention=dict(tap='backbone', loss=dict(type='mmkd_ext.AttentionTransferLoss', loss_weight=10.0))))]
