"""``mmkd train`` as a script, for mim and for the launchers beside it."""

from mmkd_ext.cli.train import train

if __name__ == '__main__':
    train()
