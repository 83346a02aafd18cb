"""``mmkd infer`` as a script, for mim and for the launchers beside it."""

from mmkd_ext.cli.discover import infer

if __name__ == '__main__':
    infer()
