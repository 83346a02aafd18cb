"""What was discovered, for people: figures (numpy in, matplotlib ``Figure`` out) and the report of a run."""

from mmkd_ext.deprecation import moved
from mmkd_ext.visualization.discovery import Assignment, Discovery, DiscoveryCollector, SplitView
from mmkd_ext.visualization.figures import style
from mmkd_ext.visualization.figures.charts import curves_figure, grouped_bars_figure, num_classes_figure
from mmkd_ext.visualization.figures.confusion import confusion_figure
from mmkd_ext.visualization.figures.embedding_map import embedding_map_figure, project
from mmkd_ext.visualization.figures.gallery import (
    GalleryImage,
    GalleryRow,
    NeighbourRow,
    gallery_figure,
    neighbours_figure,
    pick_rows,
    small_picture,
    thumbnail,
)
from mmkd_ext.visualization.history import CurveHistory
from mmkd_ext.visualization.html.discovery_result import (
    ClassCount,
    DiscoveryResult,
    Picture,
    SummaryNumber,
    write_assignments_csv,
)
from mmkd_ext.visualization.html.html_report import write_html_report
from mmkd_ext.visualization.markdown_report import (
    console_summary,
    history_figure,
    report_figures,
    write_assignments,
    write_markdown,
    write_metrics,
    write_problem,
    write_report,
)

__all__ = [
    'Assignment',
    'ClassCount',
    'CurveHistory',
    'Discovery',
    'DiscoveryCollector',
    'DiscoveryResult',
    'GalleryImage',
    'GalleryRow',
    'NeighbourRow',
    'Picture',
    'SplitView',
    'SummaryNumber',
    'confusion_figure',
    'console_summary',
    'curves_figure',
    'embedding_map_figure',
    'gallery_figure',
    'grouped_bars_figure',
    'history_figure',
    'neighbours_figure',
    'num_classes_figure',
    'pick_rows',
    'project',
    'report_figures',
    'small_picture',
    'style',
    'thumbnail',
    'write_assignments',
    'write_assignments_csv',
    'write_html_report',
    'write_markdown',
    'write_metrics',
    'write_problem',
    'write_report',
]

__getattr__ = moved(
    __name__,
    {'mmkd_ext.engine.runner': 'progress run_settings', 'mmkd_ext.scores': 'contingency_table match_clusters'},
)
