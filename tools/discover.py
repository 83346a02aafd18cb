"""``mmkd discover`` as a script, for mim and for the launchers beside it."""

from mmkd_ext.cli.discover import discover

if __name__ == '__main__':
    discover()
