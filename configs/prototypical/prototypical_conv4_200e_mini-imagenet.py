"""Teacher: prototypical network (NeurIPS 2017, https://arxiv.org/abs/1703.05175), four convolutions, miniImageNet.

    mmkd train configs/prototypical/prototypical_conv4_200e_mini-imagenet.py

Cost: not measured; 20,000 episodes of 480 images, for a GPU.
Result: not run here; the RKD paper has 49.1 ± 0.8 (5-way 1-shot) and 66.9 ± 0.7 (5-shot) for its teacher, from memory.
"""

_base_ = [
    '../_base_/models/prototypical_conv4_84.py',
    '../_base_/datasets/mini_imagenet_few_shot.py',
    '../_base_/schedules/few_shot_200e.py',
    '../_base_/default_runtime.py']
