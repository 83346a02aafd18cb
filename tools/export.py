"""``mmkd export`` as a script, for mim and for the launchers beside it."""

from mmkd_ext.cli.export import export

if __name__ == '__main__':
    export()
