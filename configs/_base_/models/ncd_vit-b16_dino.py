# ViT-B/16 with DINO weights, the class token after the final norm; only the last of twelve blocks is trained.
# checkpoints/dino_vit-b16.pth: DINO's own weights through `mmkd convert dino`.
model = dict(
    type='mmkd_ext.NCDClassifier',
    data_preprocessor=dict(
        type='mmkd_ext.MultiViewDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375]),
    backbone=dict(
        type='VisionTransformer',
        arch='b',
        img_size=224,
        patch_size=16,
        out_type='cls_token',
        frozen_stages=11,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/dino_vit-b16.pth', prefix='backbone.')),
    known_head=dict(type='mmkd_ext.CosineHead', in_channels=768, num_classes=100))
