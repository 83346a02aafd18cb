"""The picture of ``benchmark.py``: time of every loss over the batch size, on logarithmic axes."""

from pathlib import Path

__all__ = ['plot_losses']

_COLUMNS = 4


def plot_losses(rows: list[dict], path: Path, machine: str) -> None:
    """Write one panel per loss, one colour per dimension: dashed the published form, solid ours.

    Args:
        rows: Results of the group ``losses``.
        path: PNG to write.
        machine: What the figures were measured on, for the title.
    """
    from matplotlib import pyplot

    cases = list(dict.fromkeys(row['case'] for row in rows))
    dims = sorted({row['size']['dims'] for row in rows})
    num_lines = -(-len(cases) // _COLUMNS)
    figure, axes = pyplot.subplots(num_lines, _COLUMNS, figsize=(12, 2.8 * num_lines), sharex=True, squeeze=False)
    for case, axis in zip(cases, axes.flat, strict=False):
        for colour, dim in enumerate(dims):
            of_line = [row for row in rows if row['case'] == case and row['size']['dims'] == dim]
            batches = [row['size']['batch'] for row in of_line]
            ours, published = ([row[f'{side}_ms'] for row in of_line] for side in ('ours', 'published'))
            axis.loglog(batches, ours, f'C{colour}-o', markersize=3, label=f'D = {dim}')
            axis.loglog(batches, [y or float('nan') for y in published], f'C{colour}--', linewidth=1)
        axis.set_title(f'{case} ({of_line[0]["path"]})', fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(cases) :]:
        axis.axis('off')
    for axis in axes[:, 0]:
        axis.set_ylabel('ms, forward + backward')
    axes.flat[0].legend(fontsize=8)
    figure.suptitle(f'Time over batch size; dashed: published form. {machine}', fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
