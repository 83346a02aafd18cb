"""What is odd about students, teachers and data under the DistillHook: each as the Runner meets it."""

import copy
import random
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement, PixelData
from torch import nn
from torch.utils.data import DataLoader

from distilled_net import GramLoss, Net, gram_loss, hook_config, make_runner, samples, save_teacher, teacher_of
from mmkd_ext.distill import Distillation, FrozenTeacher, Term
from mmkd_ext.hooks import DistillHook


def runner_of(model, dataset, batch_size=4, logger=None, collate_fn=default_collate):
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=collate_fn)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    logger = logger or SimpleNamespace(info=lambda text: None, warning=lambda text: None)
    return SimpleNamespace(
        model=model, logger=logger, train_dataloader=loader, optim_wrapper=optimizer, train_loop=None, hooks=[]
    )


def images(number=8, size=16):
    generator = torch.Generator().manual_seed(0)
    return [
        {'inputs': torch.randn(3, size, size, generator=generator), 'data_samples': BaseDataElement()}
        for _ in range(number)
    ]


class Decoder(BaseModel):
    """Tokens of all layers, (layers, N, L, C), as DETR's decoder returns them; and of an encoder, (L, N, C)."""

    def __init__(self, num_layers=6, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.encoder = nn.Linear(width, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))
        self.decoder = nn.Identity()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        memory = self.encoder(self.stem(inputs).flatten(2).permute(2, 0, 1))
        stacked = self.decoder(torch.stack([layer(memory.transpose(0, 1)) for layer in self.layers]))
        return {'loss_own': stacked.square().mean()} if mode == 'loss' else stacked


@pytest.mark.parametrize('num_layers', [6, 4])  # the rehearsal has 4 samples
def test_layers_in_the_place_of_images_are_refused(num_layers):
    terms = {'gram': {'tap': 'decoder', 'loss': {'type': 'mmkd_ext.RKDDistanceLoss'}}}
    hook = DistillHook({'model': {'type': Decoder, 'num_layers': num_layers}, 'checkpoint': None}, terms)
    message = rf"term 'gram', student: tap 'decoder': expected the \d images .* \({num_layers}, \d, 16, 8\)"
    with pytest.raises(ValueError, match=message):
        hook.before_train(runner_of(Decoder(num_layers), images()))


@pytest.mark.parametrize('rows', [{'pooling': 'gap'}, {'tokens': 99}, {'positions': 99}])
def test_an_encoder_with_tokens_first_is_read_by_images(rows):
    student = Decoder()
    hook = DistillHook(
        {'model': {'type': Decoder, 'width': 6}, 'checkpoint': None},
        {'gram': {'tap': 'encoder', 'loss': {'type': GramLoss}, **rows}},
    )
    hook.before_train(runner_of(student, images()))
    x = torch.stack([image['inputs'] for image in images()])
    loss = student(x, [BaseDataElement()] * len(x), mode='loss')['loss_gram']
    teacher = hook._distillation.teachers['teacher'].model
    maps = [net.encoder(net.stem(x).permute(0, 2, 3, 1)) for net in (student, teacher)]
    if 'pooling' in rows:
        expected = gram_loss(*(m.mean((1, 2)) for m in maps))
    elif 'tokens' in rows:
        expected = gram_loss(*(m.reshape(-1, m.shape[-1]) for m in maps))
    else:
        flat = [m.flatten(1, 2).unbind(1) for m in maps]
        expected = torch.stack([gram_loss(s, t) for s, t in zip(*flat, strict=True)]).mean()
    torch.testing.assert_close(loss, expected)


class Segmentor(BaseModel):
    def __init__(self, width=4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = self.stem(inputs)
        return {'loss_own': x.square().mean()} if mode == 'loss' else x


def segmented(padding=1e4):
    """Two images in one batch as mmseg pads it: the second is 8 x 12 of 16 x 16, and pixels of 255 have no class."""
    x = torch.randn(2, 3, 16, 16)
    x[1, :, 8:], x[1, :, :, 12:] = padding, padding
    data = []
    for size in ((16, 16), (8, 12)):
        labels = torch.zeros(1, 16, 16, dtype=torch.long)
        labels[:, size[0] :], labels[:, :, size[1] :] = 255, 255
        labels[:, :4, :8] = 255
        meta = {'img_shape': size, 'pad_shape': (16, 16)}
        data.append(BaseDataElement(metainfo=meta, gt_sem_seg=PixelData(data=labels)))
    return x, data


@pytest.mark.parametrize(
    ('options', 'cells'),
    [
        ({}, (range(2, 16), (2, 4, 5, 6))),  # the first two cells of each image have no class
        ({'ignore_index': None}, (range(16), (0, 1, 2, 4, 5, 6))),
    ],
)
def test_neither_padding_nor_unlabelled_pixels_take_part(options, cells):
    student, seen = Segmentor(), []

    class Seen(GramLoss):
        def forward(self, student, teacher):
            seen.append(student)
            return super().forward(student, teacher)

    terms = {'kd': {'tap': 'stem', 'loss': {'type': Seen}, 'tokens': 99, **options}}
    hook = DistillHook({'model': {'type': Segmentor}, 'checkpoint': None}, terms)
    hook.before_train(runner_of(student, images()))
    x, data = segmented()
    student(x, data, mode='loss')
    flat = student.stem(x).flatten(2)
    expected = torch.cat([flat[image][:, list(wanted)].mT for image, wanted in enumerate(cells)])
    torch.testing.assert_close(seen[-1].sort(0).values, expected.sort(0).values)


def test_the_mean_leaves_the_padding_out():
    values = []
    for padding in (0.0, 1e4):
        torch.manual_seed(0)
        student = Segmentor()
        terms = {'gap': {'tap': 'stem', 'loss': {'type': GramLoss}, 'pooling': 'gap'}}
        hook = DistillHook({'model': {'type': Segmentor, 'width': 5}, 'checkpoint': None}, terms)
        hook.before_train(runner_of(student, images()))
        torch.manual_seed(1)
        values.append(student(*segmented(padding), mode='loss')['loss_gap'].item())
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    assert values[0] > 0


# Self-supervision with several views


def views(number=8, size=32):
    generator = torch.Generator().manual_seed(0)
    return [
        {
            'inputs': [torch.randn(3, size, size, generator=generator) for _ in range(2)],
            'data_samples': BaseDataElement(),
        }
        for _ in range(number)
    ]


_BACKBONE = {'type': 'ResNet', 'depth': 18, 'stem_channels': 8, 'base_channels': 8}
_NECK = {'type': 'NonLinearNeck', 'in_channels': 64, 'hid_channels': 8, 'out_channels': 4, 'with_avg_pool': True}
_SELF_SUPERVISED = {
    'SimCLR': ({}, {'type': 'ContrastiveHead', 'temperature': 0.1, 'loss': {'type': 'mmpretrain.CrossEntropyLoss'}}),
    'BYOL': (
        {'base_momentum': 0.1},
        {
            'type': 'LatentPredictHead',
            'predictor': {**_NECK, 'in_channels': 4, 'with_avg_pool': False},
            'loss': {'type': 'CosineSimilarityLoss'},
        },
    ),
    'BarlowTwins': (
        {},
        {'type': 'LatentCrossCorrelationHead', 'in_channels': 4, 'loss': {'type': 'CrossCorrelationLoss'}},
    ),
}


def self_supervised(name):
    import mmpretrain.models  # noqa: F401
    from mmpretrain.registry import MODELS

    more, head = _SELF_SUPERVISED[name]
    config = {
        'type': name,
        'backbone': _BACKBONE,
        'neck': _NECK,
        'head': head,
        **more,
        'data_preprocessor': {'type': 'SelfSupDataPreprocessor', 'mean': [0.0] * 3, 'std': [1.0] * 3},
    }
    return MODELS.build(copy.deepcopy(config))


@pytest.mark.parametrize('name', list(_SELF_SUPERVISED))
def test_the_teacher_sees_the_views_in_the_order_of_the_student(name):
    student = self_supervised(name)
    teacher = {
        'model': {'type': 'ImageClassifier', '_scope_': 'mmpretrain', 'backbone': {**_BACKBONE, 'base_channels': 4}},
        'checkpoint': None,
    }
    seen = []

    class Seen(GramLoss):
        def forward(self, student, teacher):
            seen.append((student, teacher))
            return super().forward(student, teacher)

    terms = {
        'gram': {'student': 'backbone.layer4', 'teacher': 'backbone.layer4', 'pooling': 'gap', 'loss': {'type': Seen}}
    }
    hook = DistillHook(teacher, terms)
    runner = runner_of(student, views())
    hook.before_train(runner)
    data = student.data_preprocessor(next(iter(runner.train_dataloader)), True)
    losses = student(**data, mode='loss')
    assert losses['loss_gram'].requires_grad
    given = list(data['inputs'])
    # SimCLR interleaves the views of an image, the others take one view after the other
    order = torch.stack(given, 1).flatten(0, 1) if name == 'SimCLR' else torch.cat(given)
    model = hook._distillation.teachers['teacher'].model
    expected = torch.cat([model.backbone(image[None])[-1].mean((2, 3)) for image in order])
    torch.testing.assert_close(seen[-1][1], expected)
    assert len(seen[-1][0]) == len(expected) == 8


# Terms that are switched off


class Projected(Net):
    """A layer that only a term looks at."""

    def __init__(self):
        super().__init__()
        self.projector = nn.Linear(4, 3)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.projector(self.backbone(inputs))
        return super().forward(inputs, data_samples, mode)


def test_a_term_that_is_off_keeps_its_layers_in_the_graph():
    student = Projected()
    teacher = FrozenTeacher(Net(width=6), ['backbone'])
    term = Term('gram', 'projector', 'backbone', GramLoss())
    distillation = Distillation(student, {'teacher': teacher}, [term])
    distillation._factors = {'gram': 0.0}
    batch = [BaseDataElement(gt_label=torch.tensor([i % 2])) for i in range(4)]
    losses = student(torch.randn(4, 3), batch, mode='loss')
    assert losses['loss_gram'].item() == 0
    assert teacher.model.num_forwards == 0
    sum(losses.values()).backward()
    assert student.projector.weight.grad.count_nonzero() == 0
    assert student.backbone[0].weight.grad.count_nonzero() > 0


@pytest.mark.parametrize('schedule', [{'begin': 1}, {'warmup': 1}, {'stop': 1}])
def test_a_student_without_a_loss_of_its_own(case, tmp_path, schedule):
    class Idle(Net):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            output = super().forward(inputs, data_samples, mode)
            return {} if mode == 'loss' else output

    term = {'tap': 'head', 'loss': {'type': GramLoss}, 'schedule': schedule}
    runner = make_runner(case, tmp_path, [hook_config(save_teacher(tmp_path), {'gram': term})])
    runner.model = Idle()
    runner.train()
    assert runner.iter == runner.max_iters


# The rehearsal


class Cached:
    """As mmdet's CachedMosaic: keeps what it has seen, and mixes it in; and has a generator of its own."""

    def __init__(self):
        self.results_cache = []
        self.generator = random.Random(0)

    def __call__(self, x):
        self.results_cache.append(x.clone())
        return (x + self.results_cache[self.generator.randrange(len(self.results_cache))]) / 2


class Augmented:
    def __init__(self):
        self.pipeline = SimpleNamespace(transforms=[Cached()])
        self.data = samples()

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        sample = self.data[index]
        return {**sample, 'inputs': self.pipeline.transforms[0](sample['inputs'])}


def test_the_rehearsal_leaves_nothing_in_the_caches_of_transforms(tmp_path):
    dataset, untouched = Augmented(), Augmented()
    student = Net()
    DistillHook(
        teacher_of(save_teacher(tmp_path)), {'gram': {'tap': 'backbone', 'loss': {'type': GramLoss}}}
    ).before_train(runner_of(student, dataset))
    assert dataset.pipeline.transforms[0].results_cache == []
    for index in range(len(dataset)):
        assert torch.equal(dataset[index]['inputs'], untouched[index]['inputs'])


def test_a_type_error_keeps_its_traceback(case, tmp_path):
    class Wrong(GramLoss):
        def forward(self, student, teacher):
            return student + None

    terms = {'gram': {'tap': 'backbone', 'loss': {'type': Wrong}}}
    runner = make_runner(case, tmp_path, [hook_config(save_teacher(tmp_path), terms)])
    with pytest.raises(RuntimeError, match='unsupported operand') as caught:
        runner.train()
    assert 'DistillHook object' not in str(caught.value)
    assert isinstance(caught.value.__cause__, TypeError)
    assert caught.value.__cause__.__traceback__ is not None


@pytest.mark.parametrize(('weight', 'is_told'), [(3000.0, True), (100.0, False)])
def test_a_weight_for_larger_batches_is_pointed_out(tmp_path, weight, is_told):
    told = []
    logger = SimpleNamespace(info=lambda text: None, warning=told.append)
    terms = {'sp': {'tap': 'backbone', 'loss': {'type': 'mmkd_ext.SPLoss', 'loss_weight': weight}}}
    DistillHook(teacher_of(save_teacher(tmp_path)), terms).before_train(runner_of(Net(), samples(), logger=logger))
    assert bool(told) == is_told
    assert not told or "term 'sp': loss_weight=3000 of SPLoss is that of batches of 128 rows" in told[0]
