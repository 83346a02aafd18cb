# Omniglot for retrieval: trains on the 964 characters of the background set, searches the 659 of the evaluation set.
# Batches of 24 characters with 5 drawings each. data/omniglot holds images_background.npz and images_evaluation.npz.
data = dict(type='mmkd_ext.Omniglot', data_root='data/omniglot', pipeline=[dict(type='PackInputs')])
data_preprocessor = dict(mean=[20.8], std=[60.2])

train_dataloader = dict(
    batch_size=120,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='mmkd_ext.MPerClassBatchSampler', samples_per_class=5, num_batches=100),
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='background', **data))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(split='evaluation', **data))
test_dataloader = val_dataloader

val_evaluator = dict(type='mmkd_ext.RetrievalMetric', topk=(1, 2, 4, 8))
test_evaluator = val_evaluator
