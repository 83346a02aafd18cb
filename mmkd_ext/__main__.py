"""The console command ``mmkd``; ``python -m mmkd_ext`` is the same.

Nothing heavy is imported before a command is chosen.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from mmkd_ext.version import __version__

COMMANDS = {
    'train': ('mmkd_ext.cli.train:train', 'train a config, with the stages that it builds on where asked'),
    'test': ('mmkd_ext.cli.train:evaluate', 'evaluate a checkpoint'),
    'discover': ('mmkd_ext.cli.discover:discover', 'find the classes in a folder of images, given images of some'),
    'infer': ('mmkd_ext.cli.discover:infer', 'tell the classes of new images with the model of a discovery'),
    'export': ('mmkd_ext.cli.export:export', 'write the model of a discovery as ONNX, or its backbone'),
    'num-classes': ('mmkd_ext.cli.num_classes:num_classes', 'estimate the number of classes from features'),
    'convert': ('mmkd_ext.cli.export:convert', 'rename official weights for the models of this package'),
}
"""Command -> its function, and what it does."""


def usage() -> str:
    """Return the text of ``mmkd --help``."""
    width = max(map(len, COMMANDS))
    lines = '\n'.join(f'  {name:{width}}  {text}' for name, (_, text) in COMMANDS.items())
    return (
        'usage: mmkd COMMAND ...\n\n'
        f'Relation distillation and novel class discovery for OpenMMLab, version {__version__}.\n\n'
        f'{lines}\n\n'
        'mmkd COMMAND --help has the options of a command. For a start, about a minute on one CPU core, no download:\n'
        '  mmkd train crkd_convnet_80e_digits --with-teacher\n'
        'Several processes: torchrun --standalone --nproc-per-node 2 -m mmkd_ext train CONFIG --launcher pytorch'
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the first word names with the words after it.

    Args:
        arguments: Words in place of the command line's.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words else '--help'
    if name in ('-h', '--help', 'help'):
        print(usage())
    elif name == '--version':
        print(__version__)
    elif name in COMMANDS:
        module, _, function = COMMANDS[name][0].partition(':')
        getattr(importlib.import_module(module), function)(words[1:])
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=1) or list(COMMANDS)
        sys.exit(f'mmkd: expected a command but got {name!r}; choose {" or ".join(near)}')


if __name__ == '__main__':
    main()
