"""``mmkd num-classes`` as a script, for mim and for the launchers beside it."""

from mmkd_ext.cli.num_classes import num_classes

if __name__ == '__main__':
    num_classes()
