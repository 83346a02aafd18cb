# The views of ncd_cifar100_50.py, made of whole batches on the training device; docs/data_path.md says how to use it.
batch_jitter = dict(type='mmkd_ext.BatchColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
large_augments = [
    dict(
        type='mmkd_ext.BatchRandomChoice',
        transforms=[
            dict(type='mmkd_ext.BatchRandomCrop', size=32, padding=4),
            dict(type='mmkd_ext.BatchRandomResizedCrop', size=32, scale=(0.5, 1.0))]),
    dict(type='mmkd_ext.BatchRandomFlip'),
    dict(prob=0.6, **batch_jitter),
    dict(type='mmkd_ext.BatchSolarize', prob=0.1),
    dict(type='mmkd_ext.BatchEqualize', prob=0.1)]
small_augments = [
    dict(type='mmkd_ext.BatchRandomResizedCrop', size=18, scale=(0.3, 0.8)),
    dict(type='mmkd_ext.BatchRandomFlip'),
    dict(prob=0.8, **batch_jitter),
    dict(type='mmkd_ext.BatchSolarize', prob=0.2),
    dict(type='mmkd_ext.BatchEqualize', prob=0.2)]
batch_augments = [
    dict(type='mmkd_ext.BatchMultiView', num_views=[2, 2], transforms=[large_augments, small_augments])]
supervised_batch_augments = [dict(type='mmkd_ext.BatchMultiView', num_views=[2], transforms=[large_augments])]

# Whole batches of a tensor need neither workers nor collating.
in_memory_loader = dict(num_workers=0, persistent_workers=False, collate_fn=dict(type='mmkd_ext.collate_batch'))
