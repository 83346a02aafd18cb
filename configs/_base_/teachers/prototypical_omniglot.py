# Omniglot: a prototypical network teaches its equal.
# The last hook is the distillation, without terms: a config that inherits says them.
_base_ = '../../prototypical/prototypical_conv4_60e_omniglot.py'

# Not the teacher's: the student would begin with the same weights, and meet the same episodes.
randomness = dict(seed=1)

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_ext.DistillHook',
        teacher=dict(
            config='{{ fileDirname }}/../../prototypical/prototypical_conv4_60e_omniglot.py',
            checkpoint='work_dirs/prototypical_conv4_60e_omniglot/epoch_60.pth'))]
