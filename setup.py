"""Packaging: dependencies, extras, data. Tool settings live in pyproject.toml.

``mmkd_ext/.mim`` holds links to ``configs``, ``tools`` and ``model-index.yml``, so that mmengine and mim find them in a
checkout; wheel and sdist get the files themselves.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """Read the version without importing the package."""
    scope: dict[str, str] = {}
    exec((ROOT / 'mmkd_ext' / 'version.py').read_text(), scope)
    return scope['__version__']


setup(
    name='mmkd_ext',
    version=read_version(),
    description='Relation distillation and novel class discovery for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmkd_ext', 'mmkd_ext.*']),
    package_data={
        'mmkd_ext': [
            'py.typed',
            '.mim/model-index.yml',
            '.mim/configs/**/*',
            '.mim/tools/*.py',
            '.mim/tools/*.sh',
        ],
        'mmkd_ext.ops': ['*.c'],
        'mmkd_ext.visualization.html': ['page/*'],
    },
    exclude_package_data={'mmkd_ext': ['.mim/tools/with_env.sh', '*.py[cod]']},  # that script sets up a checkout
    entry_points={'console_scripts': ['mmkd = mmkd_ext.__main__:main']},
    zip_safe=False,
    # Nothing named mm*: pip must never overwrite the OpenMMLab packages of an existing environment.
    install_requires=[
        'torch>=2.6',
        'torchvision',
        'numpy',
        'scipy',
        'scikit-learn',
        'matplotlib',
        'packaging',
        'pillow',
    ],
    extras_require={
        'onedl': ['onedl-mmengine>=0.10.12,<0.11', 'onedl-mmcv>=2.3.6,<2.4', 'onedl-mmpretrain>=1.3.6,<1.4'],
        # setuptools<81: mmengine imports pkg_resources. numpy<2: mmcv's hue transform overflows with numpy 2.
        'openmmlab': [
            'mmengine>=0.10.7,<0.11',
            'mmcv-lite>=2.2.0,<2.3',
            'mmpretrain>=1.2.0,<1.3',
            'setuptools<81',
            'numpy<2',
        ],
        'seg': ['onedl-mmsegmentation>=1.4.2'],
        'onnx': ['onnx', 'onnxruntime', 'onnxscript'],
        'tests': [
            'pytest>=8',
            'pytest-xdist',
            'ruff==0.17.5',
            'mypy==2.4.1',
            'safetensors',
            'tensorboard',
            'nbclient',
            'ipykernel',
            'timm',
        ],
        'docs': ['sphinx>=8', 'myst-parser>=4', 'furo', 'sphinx-copybutton'],
    },
)
