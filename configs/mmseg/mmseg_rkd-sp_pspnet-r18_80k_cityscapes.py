"""SP and RKD in mmsegmentation: PSPNet-R101 teaches PSPNet-R18 on Cityscapes, 4 GPUs with 2 images each.

    mmkd train configs/mmseg/mmseg_rkd-sp_pspnet-r18_80k_cityscapes.py
    bash tools/dist_train.sh configs/mmseg/mmseg_rkd-sp_pspnet-r18_80k_cityscapes.py 4

Cost: 4 GPUs; not measured.
Result: not run here; mmsegmentation reports mIoU 74.87 for this student alone and 79.76 for the teacher.
"""

_base_ = __import__('mmseg').__path__[0] + '/.mim/configs/pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'

custom_hooks = [dict(
    type='mmkd_ext.DistillHook',
    teacher=dict(
        config='mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py',
        checkpoint='https://mmassets.onedl.ai/mmsegmentation/v0.5/pspnet/pspnet_r101-d8_512x1024_80k_cityscapes/'
        'pspnet_r101-d8_512x1024_80k_cityscapes_20200606_112211-e1e1100f.pth'),
    terms=dict(
        sp=dict(tap='backbone[-1]', loss=dict(type='mmkd_ext.SPLoss', loss_weight=187.5, gather=True)),
        rkd=dict(tap='decode_head.conv_seg:in', tokens=128,
                 loss=dict(type='mmkd_ext.RKDDistanceLoss', loss_weight=25.0))))]
