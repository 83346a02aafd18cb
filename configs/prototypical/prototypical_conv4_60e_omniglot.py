"""Teacher: prototypical network (NeurIPS 2017, https://arxiv.org/abs/1703.05175), four convolutions, Omniglot.

    mmkd train configs/prototypical/prototypical_conv4_60e_omniglot.py

Cost: 15 minutes of one CPU core with bfloat16 instructions (AMX).
Result: 5-way 1-shot 98.65 ± 0.17, 5-shot 99.66 ± 0.06; 20-way 1-shot 95.73 ± 0.15, 5-shot 98.88 ± 0.06, one seed.
"""

_base_ = [
    '../_base_/models/prototypical_conv4.py',
    '../_base_/datasets/omniglot_few_shot.py',
    '../_base_/schedules/few_shot_60e.py',
    '../_base_/default_runtime.py']
