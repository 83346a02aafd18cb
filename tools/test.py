"""``mmkd test`` as a script, for mim and for the launchers beside it."""

from mmkd_ext.cli.train import evaluate

if __name__ == '__main__':
    evaluate()
