"""What was discovered, for people: figures (numpy in, matplotlib ``Figure`` out) and the report of a run."""

from mmkd_ext.visualization.assignments_csv import write_assignments_csv
from mmkd_ext.visualization.collector import DiscoveryCollector
from mmkd_ext.visualization.confusion import confusion_figure
from mmkd_ext.visualization.curves import curves_figure
from mmkd_ext.visualization.discovery import Assignment, Discovery, SplitView
from mmkd_ext.visualization.discovery_result import ClassCount, DiscoveryResult, Picture, SummaryNumber
from mmkd_ext.visualization.embedding_map import embedding_map_figure, project
from mmkd_ext.visualization.gallery import GalleryImage, GalleryRow, gallery_figure, pick_rows
from mmkd_ext.visualization.grouped_bars import grouped_bars_figure
from mmkd_ext.visualization.history import CurveHistory
from mmkd_ext.visualization.html_report import write_html_report
from mmkd_ext.visualization.matching import contingency_table, match_clusters
from mmkd_ext.visualization.neighbours import NeighbourRow, neighbours_figure
from mmkd_ext.visualization.num_classes import num_classes_figure
from mmkd_ext.visualization.report import write_problem, write_report
from mmkd_ext.visualization.report_figures import history_figure, report_figures
from mmkd_ext.visualization.report_text import console_summary, write_assignments, write_markdown, write_metrics
from mmkd_ext.visualization.run import progress, run_settings
from mmkd_ext.visualization.thumbnail import small_picture, thumbnail

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
    'contingency_table',
    'curves_figure',
    'embedding_map_figure',
    'gallery_figure',
    'grouped_bars_figure',
    'history_figure',
    'match_clusters',
    'neighbours_figure',
    'num_classes_figure',
    'pick_rows',
    'progress',
    'project',
    'report_figures',
    'run_settings',
    'small_picture',
    'thumbnail',
    'write_assignments',
    'write_assignments_csv',
    'write_html_report',
    'write_markdown',
    'write_metrics',
    'write_problem',
    'write_report',
]
