import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch.nn import functional as F

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.clustering.kmeans import semi_supervised_kmeans

PACK = {'type': 'mmpretrain.PackInputs', 'meta_keys': ('sample_idx', 'split_name')}
VIEWS = [
    {
        'type': 'mmpretrain.MultiView',
        'num_views': [2],
        'transforms': [[{'type': 'mmpretrain.RandomFlip', 'prob': 0.5}]],
    },
    PACK,
]


def split(pipeline, **settings):
    digits = {'type': 'mmkd_ext.Digits', 'indices': 200, 'pipeline': pipeline}
    return {'type': 'mmkd_ext.NovelClassSplit', 'known': 3, 'labelled_fraction': 0.5, 'dataset': digits, **settings}


def loader(dataset, shuffle):
    return {
        'dataset': dataset,
        'batch_size': 50,
        'num_workers': 0,
        'sampler': {'type': 'DefaultSampler', 'shuffle': shuffle},
        'collate_fn': {'type': 'default_collate'},
    }


def config(tmp_path, hooks=({'type': 'mmkd_ext.ClusterHook', 'num_inits': 2},), cluster_head=True):
    head = {'type': 'mmkd_ext.ClusterHead', 'in_channels': 8, 'num_clusters': 6}
    return Config(
        {
            'default_scope': 'mmpretrain',
            'work_dir': str(tmp_path),
            'model': {
                'type': 'mmkd_ext.GCD',
                'data_preprocessor': {'type': 'mmkd_ext.MultiViewDataPreprocessor', 'mean': [78.0], 'std': [96.0]},
                'backbone': {'type': 'mmkd_ext.ConvNet', 'in_channels': 1, 'channels': (4, 8)},
                'neck': {'type': 'GlobalAveragePooling'},
                'contrastive_head': {'type': 'mmkd_ext.ContrastiveHead', 'in_channels': 8, 'hidden_channels': 8},
                'num_known': 3,
                'cluster_head': head if cluster_head else None,
            },
            'train_dataloader': loader(split(VIEWS), shuffle=True),
            'val_dataloader': loader(
                split([PACK], subset='unlabelled', hide_labels=False, name='unlabelled_train'), shuffle=False
            ),
            'val_evaluator': {'type': 'mmkd_ext.NovelClassMetric', 'num_known': 3},
            'val_cfg': {},
            'train_cfg': {'by_epoch': True, 'max_epochs': 3, 'val_interval': 2},
            'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.01}},
            'default_hooks': {'checkpoint': {'type': 'CheckpointHook', 'interval': 1}},
            'custom_hooks': list(hooks),
            'randomness': {'seed': 0},
        }
    )


def train(case, cfg):
    runner = case.build_runner(cfg)
    runner.train()
    return runner


@pytest.mark.usefixtures('host_scope')
def test_centres_are_those_of_the_weights_saved_with_them(case, tmp_path):
    runner = train(case, config(tmp_path))
    model = runner.model.eval()
    dataset = runner.train_dataloader.dataset
    images = torch.from_numpy(np.stack([dataset.get_data_info(i)['img'] for i in range(len(dataset))]))[:, None]
    for epoch in (2, 3):  # before a validation, and the last
        model.load_state_dict(load_checkpoint_safely(tmp_path / f'epoch_{epoch}.pth')['state_dict'])
        with torch.no_grad():
            features = model.neck(model.backbone((images.float() - 78) / 96))[-1]
        expected = semi_supervised_kmeans(
            F.normalize(features, dim=1).numpy(), dataset.get_gt_labels(), 6, num_inits=2
        ).centre_KD
        np.testing.assert_allclose(model.cluster_head.centre.numpy(), expected, atol=1e-5)
    first = load_checkpoint_safely(tmp_path / 'epoch_1.pth')['state_dict']['cluster_head.centre']
    assert first.abs().max() == 0
    scores = runner.message_hub.log_scalars
    assert 'val/unlabelled_train/v2_all' in scores


def test_training_is_that_of_a_run_without_the_hook(case, tmp_path):
    def weights(hooks):
        cfg = config(tmp_path / str(len(hooks)), hooks)
        state = train(case, cfg).model.state_dict()
        return {name: value for name, value in state.items() if 'centre' not in name}

    with_hook, without = weights(({'type': 'mmkd_ext.ClusterHook'},)), weights(())
    assert with_hook.keys() == without.keys()
    assert all(torch.equal(value, without[name]) for name, value in with_hook.items())


def test_a_model_without_the_head_is_refused(case, tmp_path):
    with pytest.raises(TypeError, match=r'one ClusterHead .*GCD .*0'):
        train(case, config(tmp_path, cluster_head=False))
