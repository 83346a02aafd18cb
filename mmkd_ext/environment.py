"""What an installation must look like, read from package metadata without importing anything heavy."""

from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

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


def _check_multimodal() -> str | None:
    """With transformers and pycocotools, ``import mmpretrain.models`` also imports its multimodal models.

    mmpretrain 1.2.0 and onedl-mmpretrain 1.3.6 derive these from classes that transformers 5 has no more, and end in
    ``TypeError: NoneType takes no arguments``, whatever model was asked for.
    """
    transformers = _version('transformers')
    name = 'onedl-mmpretrain' if _version('onedl-mmpretrain') else 'mmpretrain'
    if transformers is None or _version(name) is None or _version('pycocotools') is None:
        return None
    wanted = [Requirement(line).specifier for line in metadata.requires(name) or () if 'transformers' in line]
    if not wanted or name == 'mmpretrain':
        wanted = [SpecifierSet('<5')]  # the original says of no later version that it does not suit
    if all(specifier.contains(transformers, prereleases=True) for specifier in wanted):
        return None
    return (
        f'{name} {_version(name)} expects transformers{wanted[0]} but found transformers {transformers}, with which '
        'none of its models can be imported (TypeError: NoneType takes no arguments) as long as pycocotools is '
        f'installed too; run `pip install "transformers{wanted[0]}"`, or `pip uninstall pycocotools` if nothing needs '
        'it, and then mmpretrain leaves its multimodal models out'
    )


def problems() -> list[str]:
    """Return one sentence per defect of the installation, each with its remedy; empty when all is well."""
    return [problem for problem in (_check_stack(), _check_torch(), _check_multimodal()) if problem is not None]
