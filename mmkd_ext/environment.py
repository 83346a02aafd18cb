"""What an installation must look like, read from package metadata without importing anything heavy."""

from importlib import metadata

from packaging.requirements import Requirement

INSTALL_HINT = (
    'install one OpenMMLab stack: `pip install "mmkd_ext[onedl]"` (maintained forks, the default) or '
    '`pip install "mmkd_ext[openmmlab]"` (the originals), with ".[onedl]" and ".[openmmlab]" from a clone'
)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _check_stack() -> str | None:
    """Exactly one of mmengine and onedl-mmengine must own the module ``mmengine``."""
    original, fork = _version('mmengine'), _version('onedl-mmengine')
    if original is None and _version('mmengine-lite') is None and fork is None:
        return f'expected mmengine but found none; {INSTALL_HINT}'
    if original is not None and fork is not None:
        return (
            f'found both mmengine {original} and onedl-mmengine {fork}, which own the same files, so what runs is a '
            'mixture; remove both with `pip uninstall -y mmengine mmcv mmcv-lite mmpretrain onedl-mmengine onedl-mmcv '
            f'onedl-mmpretrain`, then {INSTALL_HINT}'
        )
    return None


def _check_torch() -> str | None:
    """Torchvision's compiled operators load only with the torch release named in its metadata."""
    torch, torchvision = _version('torch'), _version('torchvision')
    if torch is None or torchvision is None:
        missing = ' and '.join(
            name for name, found in (('torch', torch), ('torchvision', torchvision)) if found is None
        )
        return f'expected torch and torchvision but found no {missing}; run `pip install torch torchvision`'
    for line in metadata.requires('torchvision') or ():
        requirement = Requirement(line)
        if requirement.name == 'torch' and not requirement.specifier.contains(torch, prereleases=True):
            return (
                f'torchvision {torchvision} needs torch{requirement.specifier} but found torch {torch}; '
                'run `pip install --upgrade torch torchvision` so that pip picks a matching pair'
            )
    return None


def problems() -> list[str]:
    """Return one sentence per defect of the installation, each with its remedy; empty when all is well."""
    return [problem for problem in (_check_stack(), _check_torch()) if problem is not None]
