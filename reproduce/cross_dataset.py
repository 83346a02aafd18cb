"""Recall@K of several models on several data sets: what a model that was trained on one keeps on the others.

    python reproduce/cross_dataset.py \
        --model pretrained configs/metric_learning/metric_learning_resnet50_40e_cars.py none neck \
        --model teacher configs/metric_learning/metric_learning_resnet50_40e_cars.py \
            work_dirs/metric_learning_resnet50_40e_cars/epoch_40.pth \
        --model student configs/metric_learning/metric_learning-rkd_resnet18_80e_cars.py \
            work_dirs/metric_learning-rkd_resnet18_80e_cars/epoch_80.pth \
        --data cars configs/metric_learning/metric_learning_resnet50_40e_cars.py \
        --data cub configs/metric_learning/metric_learning_resnet50_40e_cub.py

A data set is the ``test_dataloader`` of its config. The folder ``--out`` gets ``table.md`` and ``recall.png`` (RKD's
figure on domain adaptation, section 4.1) with Recall@1, and ``metrics.json`` with all numbers.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.image import imsave
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmkd_ext.checkpoint import register_safe_loader
from mmkd_ext.distill import Recorder
from mmkd_ext.evaluation import RetrievalMetric
from mmkd_ext.models.build import build_model_from_config, load_weights, read_config
from mmkd_ext.visualization import grouped_bars_figure
from mmkd_ext.visualization.figures import style

Table = dict[str, dict[str, dict[str, float]]]
"""Model -> data set -> metric -> percent."""


class ModelSpec(NamedTuple):
    """A row of the table: name, config, checkpoint ('none' leaves the weights as the config makes them), and a tap."""

    name: str
    config: str
    checkpoint: str
    tap: str | None = None


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or ``arguments`` in its place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--model',
        nargs='+',
        action='append',
        required=True,
        metavar='WORD',
        help='name, config, checkpoint or "none", and optionally a tap to compare by in place of the embedding',
    )
    parser.add_argument('--data', nargs=2, action='append', required=True, metavar=('NAME', 'CONFIG'))
    parser.add_argument('--topk', nargs='+', type=int, default=[1, 2, 4, 8], help='values of K; the first is shown')
    parser.add_argument('--out', default='work_dirs/cross_dataset', help='folder of the results')
    args = parser.parse_args(arguments)
    for words in args.model:
        if len(words) not in (3, 4):
            parser.error(f'--model: expected name, config, checkpoint and perhaps a tap but got {words}')
    for option in ('model', 'data'):
        names = [words[0] for words in getattr(args, option)]
        if len(set(names)) < len(names):
            parser.error(f'--{option}: expected names that differ but got {names}')
    return args


def build(spec: ModelSpec) -> nn.Module:
    """Build a model in evaluation mode, with its weights."""
    model = build_model_from_config(spec.config)
    if spec.checkpoint == 'none':
        model.init_weights()
    else:
        load_weights(model, spec.checkpoint, spec.name)
    model.eval()  # no chain: backbones of OpenMMLab return nothing
    return model.to('cuda' if torch.cuda.is_available() else 'cpu')


def evaluate(model: nn.Module, tap: str | None, data: str, topk: Sequence[int]) -> dict[str, float]:
    """Embed the test data of a config and score the embeddings, in percent.

    Args:
        model: In evaluation mode.
        tap: Tensor to compare by; None for the ``embedding`` that the model predicts.
        data: Config file.
        topk: The values of K.
    """
    cfg = read_config(data)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
    metric = RetrievalMetric(topk)
    recorder = Recorder(model, [tap] if tap else [])
    with torch.no_grad():
        for batch in loader:
            with recorder.record() as features:
                samples = [sample.to_dict() for sample in model.test_step(batch)]
            if tap:
                samples = [
                    {**sample, 'embedding': embedding.flatten()}
                    for sample, embedding in zip(samples, features[tap], strict=True)
                ]
            metric.process(None, samples)
    recorder.remove()
    scores = metric.evaluate(len(loader.dataset))
    return {name.removeprefix('retrieval/'): score for name, score in scores.items()}


def markdown(table: Table, metric: str) -> str:
    """One row per model, one column per data set."""
    columns = list(next(iter(table.values())))
    lines = [f'| {metric} | ' + ' | '.join(columns) + ' |', '|---' * (len(columns) + 1) + '|']
    lines += [
        f'| {model} | ' + ' | '.join(f'{row[column][metric]:.2f}' for column in columns) + ' |'
        for model, row in table.items()
    ]
    return '\n'.join(lines)


def write(table: Table, metric: str, out: Path) -> None:
    """Write numbers, table and picture."""
    out.mkdir(parents=True, exist_ok=True)
    (out / 'metrics.json').write_text(json.dumps(table, indent=1))
    (out / 'table.md').write_text(f'{markdown(table, metric)}\n')
    values = {model: {column: scores[metric] for column, scores in row.items()} for model, row in table.items()}
    figure = grouped_bars_figure(
        values,
        value_name=f'{metric} (%)',
        title='Retrieval across data sets',
        subtitle='One group per data set, one bar per model',
    )
    imsave(out / 'recall.png', style.to_array(figure), dpi=style.DPI)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse_args(arguments)
    register_safe_loader()
    table: Table = {}
    for words in args.model:
        spec = ModelSpec(*words)
        model = build(spec)
        table[spec.name] = {name: evaluate(model, spec.tap, config, args.topk) for name, config in args.data}
    metric = f'recall@{args.topk[0]}'
    write(table, metric, Path(args.out))
    print(markdown(table, metric))


if __name__ == '__main__':
    main()
