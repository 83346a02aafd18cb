"""``mmkd convert`` as a script, for mim and for the launchers beside it."""

from mmkd_ext.cli.export import convert

if __name__ == '__main__':
    convert()
