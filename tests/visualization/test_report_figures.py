import numpy as np
import pytest

from mmkd_ext.visualization import Assignment, CurveHistory, Discovery, history_figure, report_figures

NAMES = ('ant', 'bee', 'cat', 'dog')


def make_discovery(train_clusters=(1, 1, 1, 1, 1, 1, 0, 0), has_test=True):
    train = [Assignment(i, 'train', 2 + i // 6, c, 0, 1 - i / 10, 0.5) for i, c in enumerate(train_clusters)]
    test = [Assignment(i, 'test', i % 4, 0, i % 4, 0.5, 0.9) for i in range(12)] if has_test else []
    points = {
        name: (np.arange(len(rows)) + start, np.random.default_rng(0).normal(size=(len(rows), 5)))
        for name, rows, start in (('train', train, 0), ('test', test, len(train)))
    }
    return Discovery([*train, *test], NAMES, 2, 2, points)


def draw(discovery, images_per_class=3):
    read = []

    def read_image(position):
        read.append(position)
        return np.zeros((4, 4, 3), dtype=np.uint8)

    figures = dict(report_figures(discovery, 'train', images_per_class=images_per_class, read_image=read_image))
    return figures, read


def test_figures_of_all_splits():
    figures, _ = draw(make_discovery())
    assert list(figures) == ['confusion', 'confusion_test', 'gallery', 'embedding_map']
    titles = [figure.texts[0].get_text() for figure in figures.values()]
    assert titles == [
        'Discovered and true classes: train, novel head alone',
        'Discovered and true classes: test, known and novel classes',
        'Discovered classes: train',
        'Embedding map: test',
    ]


def test_gallery_shows_most_and_least_confident_members():
    _, read = draw(make_discovery(), images_per_class=3)
    # Cluster 1 is 'cat' (positions 0..5, ever less confident), cluster 0 is 'dog' (positions 6, 7).
    assert read == [0, 1, 5, 6, 7]


def test_map_falls_back_to_the_split_of_novel_classes():
    figures, _ = draw(make_discovery(has_test=False))
    assert figures['embedding_map'].texts[0].get_text() == 'Embedding map: train'
    assert list(figures) == ['confusion', 'gallery', 'embedding_map']


def test_empty_clusters_have_no_row():
    figures, _ = draw(make_discovery(train_clusters=(1,) * 8))
    texts = [text.get_text() for text in figures['gallery'].axes[0].texts]
    assert 'cluster 1: 75% of 8 images' in texts
    assert not any('cluster 0' in text for text in texts)


def test_curves_are_named_for_people_and_a_lone_term_is_not_drawn_twice():
    history = CurveHistory()
    history.observe({'loss': 2.0, 'loss_cluster': 2.0})
    history.add_losses(1.0)
    history.add_metrics(1.0, {'test/v2_novel': 50.0, 'train/novel_acc': 60.0})
    upper, lower = history_figure(history, 'Run').axes
    assert [line.get_label() for line in upper.lines] == ['loss_cluster']
    assert [line.get_label() for line in lower.lines] == ['test novel', 'train novel (task-aware)']


def test_sum_of_several_terms_is_drawn():
    history = CurveHistory()
    history.observe({'loss': 3.0, 'loss_cluster': 2.0, 'loss_crkd': 1.0})
    history.add_losses(1.0)
    assert [line.get_label() for line in history_figure(history, '').axes[0].lines] == [
        'loss',
        'loss_cluster',
        'loss_crkd',
    ]


def test_no_curves_without_training():
    assert history_figure(CurveHistory(), '') is None


@pytest.mark.parametrize('images_per_class', [1, 4, 20])
def test_no_image_is_shown_twice(images_per_class):
    _, read = draw(make_discovery(), images_per_class)
    assert len(read) == len(set(read)) <= 2 * images_per_class
